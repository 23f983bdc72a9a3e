"""Command ``xclip-onnx doctor``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_json


@click.command("doctor")
@opt.demo_bundle_option
@opt.json_option
def command(bundle: str, as_json: bool) -> None:
    """Check this machine and name the fix of each failure.

    Checks packages, devices, CPU, decoding and the bundle, and runs a self-test.
    """
    opt.silence_native_logs()
    from xclip_runtime.doctor import diagnose

    checks = []
    for check in diagnose(bundle):
        checks.append(check)
        if not as_json:
            echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<14} {check.detail}")
            if check.fix:
                echo(f"     fix: {check.fix}")
    healthy = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    sys.exit(0 if healthy else 1)
