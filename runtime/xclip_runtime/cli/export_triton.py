"""Command ``xclip-onnx export-triton``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json
from xclip_runtime.inference.providers import DEVICES

if TYPE_CHECKING:
    from xclip_runtime.integrations.triton_repository import ModelRepository


@click.command("export-triton")
@opt.bundle_alias
@opt.positional_alias("old_output", option="output")
@opt.bundle_option
@opt.output_option(required=True, metavar="FOLDER", help="Model repository to write.")
@opt.option(
    "--device",
    type=opt.Device(DEVICES),
    default="cpu",
    help="Device that the models will run on; decides graph and instance groups. OVMS needs openvino.",
)
@opt.precision_option()
@opt.batch_size_option(type=opt.COUNT, aliases=("--batch",), show_default="1 on cpu and openvino, else 8")
@opt.batch_delay_option(default=2.0)
@opt.option("--delay-us", type=click.IntRange(0), hidden=True)
@opt.option("--instances", metavar="N", type=opt.COUNT, default=1, help="Copies of each model per device.")
@opt.overwrite_option
@opt.json_option
def command(
    *,
    bundle: str,
    output: str,
    batch_size: int | None,
    batch_delay: float,
    delay_us: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a model repository for Triton and OpenVINO servers.

    It is for Triton Inference Server and OpenVINO Model Server (OVMS), and holds the vision model, the prompt model
    with the bundle's labels inside, and an ensemble of both that maps uint8 clips to logits. Clients sample and
    prepare the frames with xclip_runtime.
    """
    from xclip_runtime.integrations.triton_repository import export_repository

    if delay_us is not None and opt.given("batch_delay"):
        message = "--delay-us is the old form of --batch-delay: give --batch-delay alone"
        raise click.UsageError(message)
    seconds = batch_delay / 1e3 if delay_us is None else delay_us / 1e6
    repository = export_repository(bundle, output, batch_size=batch_size, batch_delay=seconds, **options)
    if as_json:
        print_json(repository.to_dict(), indent=2)
    else:
        _print(repository)


def _print(repository: ModelRepository) -> None:
    from xclip_runtime.cli.render import console

    out = console()
    for name, size in repository.files.items():
        out.print(f"{size / 1e6:8.1f} MB  {name}", highlight=False)
    total = sum(repository.files.values())
    out.print(f"{repository.path}: {repository.vision_graph} and labels, {total / 1e6:.1f} MB", style="bold")
