"""Command ``xclip-onnx verify``."""

from __future__ import annotations

import sys

import click

from xclip_runtime.bundle import Bundle
from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_error, print_json


@click.command("verify")
@opt.bundle_alias
@opt.bundle_option
@opt.json_option
def command(bundle: str, as_json: bool) -> None:
    """Check a bundle's files against the SHA-256 in its manifest."""
    from xclip_runtime.cli.bulk import Bulk

    opened = Bundle.open(bundle, check_sizes=False)
    problems = {}
    with Bulk("checking", len(opened.files)) as bulk:
        for entry, problem in opened.problems():
            problems[entry.path] = problem
            bulk.advance()
    bad = [problem for problem in problems.values() if problem is not None]
    if as_json:
        files = [{"file": path, "ok": problem is None, "problem": problem} for path, problem in problems.items()]
        print_json({"bundle": str(opened.path), "ok": not bad, "files": files})
    elif not bad:
        echo(f"{opened.path}: all {len(problems)} files are as exported")
    for problem in bad:
        print_error(problem)
    sys.exit(2 if bad else 0)
