"""``xclip-onnx verify``."""

from __future__ import annotations

import json
import sys

import click

from xclip_runtime.bundle import Bundle
from xclip_runtime.cli.options import json_option
from xclip_runtime.cli.render import progress_bar


@click.command("verify")
@click.argument("bundle", type=click.Path())
@json_option
def command(bundle: str, as_json: bool) -> None:
    """Check every file of BUNDLE against the sizes and SHA-256 sums in its manifest."""
    opened = Bundle.open(bundle, check_sizes=False)
    problems = {}
    with progress_bar("checking", len(opened.files)) as progress:
        for entry, problem in opened.problems():
            problems[entry.path] = problem
            progress.advance(progress.task_ids[0])
    bad = [problem for problem in problems.values() if problem is not None]
    if as_json:
        files = [{"file": path, "ok": problem is None, "problem": problem} for path, problem in problems.items()]
        click.echo(json.dumps({"bundle": bundle, "ok": not bad, "files": files}))
    elif not bad:
        click.echo(f"{bundle}: all {len(problems)} files are as exported")
    for problem in bad:
        click.echo(f"xclip-onnx: {problem}", err=True)
    sys.exit(2 if bad else 0)
