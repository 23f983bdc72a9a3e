"""Command ``xclip-onnx push``."""

from __future__ import annotations

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_json


@click.command("push")
@click.argument("bundle")
@click.argument("name")
@opt.option("--private", is_flag=True, help="Make the repository private, if it is new.")
@opt.revision_option
@opt.option("--dry-run", is_flag=True, help="Print the model card and the files, and send nothing.")
@opt.json_option
def command(bundle: str, name: str, revision: str | None, as_json: bool, **options: bool) -> None:
    """Push a bundle to a model hub, with a model card.

    BUNDLE is a folder that `xclip-onnx export` wrote, NAME a repository such as owner/name, which is made if there is
    none, as is the branch that --revision names. All files are checked first. The card (README.md) is written from the
    bundle's manifest: source, licence, graphs, parity with PyTorch, and how to run it. The token of HF_TOKEN, or of
    `hf auth login`, must be one that may write. Extra [hub].
    """
    from xclip_runtime.bundle.model_card import Push
    from xclip_runtime.cli.render import console, table

    push = Push.prepare(bundle, name, revision)
    commit = None if options["dry_run"] else push.send(private=options["private"])
    if as_json:
        branch = push.revision or "main"
        files = dict(push.files)
        print_json({"repository": push.name, "revision": branch, "commit": commit, "files": files, "card": push.card})
        return
    out = console()
    if options["dry_run"]:
        echo(push.card)
        out.print(table(("file", "MB"), [(path, f"{size / 1e6:.1f}") for path, size in push.files.items()]))
        out.print(f"nothing was sent to {push.name}: leave --dry-run out", style="bold")
    else:
        megabytes = sum(push.files.values()) / 1e6
        out.print(f"{push.name}@{commit}: {len(push.files)} files, {megabytes:.1f} MB", style="bold")
        out.print(f"xclip-onnx classify VIDEO --bundle {push.name}" + (f"@{push.revision}" if push.revision else ""))
