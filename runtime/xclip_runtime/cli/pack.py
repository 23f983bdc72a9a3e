"""Command ``xclip-onnx pack``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_json
from xclip_runtime.inference.providers import DEVICES

if TYPE_CHECKING:
    from xclip_runtime.inference.providers import Device


@click.command("pack")
@click.argument("bundle")
@opt.output_option(required=True, metavar="FOLDER", help="Bundle to write.")
@opt.option(
    "--device",
    "devices",
    type=opt.Device(DEVICES),
    multiple=True,
    default=["cpu"],
    help="Device that will run it; repeatable.",
)
@opt.precision_option(show_default="fp16 on CUDA, else fp32, where the bundle has them")
@opt.option("--no-text", is_flag=True, help="Leave out the text tower, which labels and texts of your own need.")
@opt.option("--no-stream", is_flag=True, help="Leave out the graphs for `stream --reuse`, if there are any.")
@opt.overwrite_option
@opt.json_option
def command(
    bundle: str,
    output: str,
    devices: tuple[Device, ...],
    *,
    no_text: bool,
    no_stream: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Pack a bundle for one device and precision.

    BUNDLE is a folder, owner/name on a model hub, or motion-demo. Only the files that are used are copied; each is
    checked first. The packed bundle gives the same results as the whole one, and is a bundle like any other. Needs no
    PyTorch.
    """
    from xclip_runtime.inference.packing import pack_bundle

    packed = pack_bundle(bundle, output, devices=devices, text=not no_text, stream=not no_stream, **options)
    if as_json:
        print_json(packed.to_dict(), indent=2)
    else:
        echo(
            f"{packed.bundle}: {', '.join(packed.graphs)}; {len(packed.files)} files, {packed.size / 1e6:.1f} MB "
            f"of {packed.source_size / 1e6:.1f} MB"
        )
