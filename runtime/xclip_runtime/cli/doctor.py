"""``xclip-onnx doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from xclip_runtime.cli.options import json_option, silence_native_logs


@click.command("doctor")
@click.option("--bundle", "-b", type=click.Path(), help="Bundle to test. Default: the embedded one.")
@json_option
def command(bundle: str | None, as_json: bool) -> None:
    """Check this machine: wheels, devices, CPU, decoding, a bundle, and a self-test. Each failure names its fix."""
    silence_native_logs()
    from xclip_runtime.demo import DEMO_BUNDLE  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.doctor import diagnose  # noqa: PLC0415

    checks = []
    for check in diagnose(bundle or DEMO_BUNDLE):
        checks.append(check)
        if not as_json:
            click.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<14} {check.detail}")
            if check.fix:
                click.echo(f"     fix: {check.fix}")
    healthy = all(check.ok for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "checks": [asdict(check) for check in checks]}))
    sys.exit(0 if healthy else 1)
