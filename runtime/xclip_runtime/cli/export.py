"""``xclip-onnx export``: the only command that needs PyTorch."""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.options import json_option
from xclip_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from xclip_export import ExportReport

EXPORT_PACKAGES = ("xclip_export", "torch", "transformers", "optimum", "onnx", "onnxscript", "onnxruntime")


PRECISION_FLAG = "--precision"
PRECISIONS = ("fp32", "fp16", "int8")


class ExportCommand(click.Command):
    """Lets one --precision take several values, as in ``--precision fp32 fp16 int8``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before every further value."""
        repeated: list[str] = []
        for arg in args:
            if arg in PRECISIONS and len(repeated) > 1 and repeated[-2] == PRECISION_FLAG:
                repeated.append(PRECISION_FLAG)
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


@click.command("export", cls=ExportCommand)
@click.argument("source")
@click.option("--output", "-o", required=True, type=click.Path(), help="The bundle to write.")
@click.option("--labels", help="A file (one a line, or CSV with a column 'name'), or hmdb51. Default: config.json's.")
@click.option("--template", default="{}", show_default=True, help="What each label is encoded as; {} is the label.")
@click.option(
    PRECISION_FLAG,
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["fp32"],
    show_default=True,
    help="Vision graphs to write; several may follow. fp32 is always written.",
)
@click.option(
    "--fused/--no-fused",
    default=True,
    show_default=True,
    help="Write the fp32 graph that is fused for ONNX Runtime's CPU provider.",
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of typical videos, for the scales of int8. Default: embedded and synthetic clips.",
)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option(
    "--profile",
    type=click.Choice(["videox", "hf"]),
    default="videox",
    show_default=True,
    help="The bundle's default preprocessing.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle, once the new one is complete.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Turn SOURCE, a Hugging Face X-CLIP checkpoint, into a bundle that runs without PyTorch.

    SOURCE is a folder or a hub id such as microsoft/xclip-base-patch16-hmdb-2-shot. Every graph is compared with the
    checkpoint in PyTorch; outside tolerance nothing is written.
    """
    from xclip_runtime.cli.render import error_console  # noqa: PLC0415 - keeps --help quick

    # As an exception it unwinds the export, which removes what is half written; by default it would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    err = error_console()
    with err.status("loading PyTorch") as status:

        def progress(stage: str) -> None:
            status.update(stage)
            if not err.is_terminal:
                err.print(stage)

        report = _export_bundle(**options, progress=progress)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)


def _export_bundle(**options: Any) -> ExportReport:
    # The tracer warns about every Python constant in the graph; the parity gate is what tells whether one is wrong.
    warnings.simplefilter("ignore")
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        from xclip_export import export_bundle  # noqa: PLC0415 - optional and heavy
    except ImportError as error:
        if (error.name or "").split(".")[0] not in EXPORT_PACKAGES:
            raise
        feature = "exporting a checkpoint"
        raise MissingExtraError(feature, "cpu,export") from error
    return export_bundle(**options)


def _print(report: ExportReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    from xclip_runtime.cli.render import console  # noqa: PLC0415

    table = Table("compared with PyTorch", "max |Δlogit|", "allowed", "cosine", "same best label", box=None)
    for name, parity in report.parity.items():
        allowed = "reported" if parity.tolerance is None else f"{parity.tolerance:g}"
        table.add_row(
            name, f"{parity.max_abs_logit:.1e}", allowed, f"{parity.cosine:.7f}", f"{parity.top1_agreement:.0%}"
        )
    out = console()
    out.print(table)
    total = sum(report.files.values())
    out.print(f"{report.bundle}: {len(report.files)} files, {total / 1e6:.1f} MB", style="bold")
