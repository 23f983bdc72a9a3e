"""``xclip-onnx export-triton``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import click

from xclip_runtime.cli.options import json_option
from xclip_runtime.inference.session import DEVICES, Compute

if TYPE_CHECKING:
    from xclip_runtime.integrations.triton_repository import Repository


@click.command("export-triton")
@click.argument("bundle", type=click.Path())
@click.argument("repo", type=click.Path())
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where the models will run; decides graph and instance groups. OVMS needs openvino.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Compute)),
    help="Vision graph, or what TensorRT computes in. Default: fp16 on CUDA where the bundle has it, else fp32.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Most clips in one run. Default: 1 on cpu and openvino, 8 on a GPU."
)
@click.option(
    "--delay-us",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Microseconds that a clip may wait for others to fill a batch.",
)
@click.option(
    "--instances", type=click.IntRange(1), default=1, show_default=True, help="Copies of each model on each device."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export, once the new one is complete.")
@json_option
def command(bundle: str, repo: str, as_json: bool, **options: Any) -> None:
    """Write REPO, a model repository for Triton Inference Server and OpenVINO Model Server, from BUNDLE.

    It holds the vision model, the prompt model with the bundle's labels inside, and an ensemble of both, which takes
    uint8 clips and gives logits. Clients sample and prepare the frames with xclip_runtime.
    """
    from xclip_runtime.integrations.triton_repository import export_repository  # noqa: PLC0415 - keeps --help quick

    batch_size, delay_us = options.pop("batch"), options.pop("delay_us")
    repository = export_repository(bundle, repo, batch_size=batch_size, batch_delay=delay_us / 1e6, **options)
    if as_json:
        click.echo(json.dumps(repository.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(repository)


def _print(repository: Repository) -> None:
    from xclip_runtime.cli.render import console  # noqa: PLC0415

    out = console()
    for name, size in repository.files.items():
        out.print(f"{size / 1e6:8.1f} MB  {name}", highlight=False)
    total = sum(repository.files.values())
    out.print(f"{repository.path}: {repository.vision_graph} and labels, {total / 1e6:.1f} MB", style="bold")
