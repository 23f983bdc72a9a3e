"""Command ``xclip-onnx export``, the only one that needs PyTorch."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, get_args

import click

from xclip_runtime.bundle import Precision
from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json
from xclip_runtime.errors import MissingExtraError
from xclip_runtime.inference.providers import DEVICES

if TYPE_CHECKING:
    from xclip_export import ExportReport
    from xclip_runtime.inference.providers import Device

EXPORT_PACKAGES = ("xclip_export", "torch", "transformers", "optimum", "onnx", "onnxscript", "onnxruntime")
PRECISION_FLAG = "--precision"
PRECISIONS = get_args(Precision)
DEVICE_FLAG = "--for"
SEVERAL = {PRECISION_FLAG: PRECISIONS, DEVICE_FLAG: DEVICES}


class ExportCommand(click.Command):
    """Command whose --precision and --for take several values at once, as in ``--precision fp32 fp16 int8``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before every further value."""
        repeated: list[str] = []
        for arg in args:
            flag = repeated[-2] if len(repeated) > 1 else ""
            if arg in SEVERAL.get(flag, ()):
                repeated.append(flag)
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


@click.command("export", cls=ExportCommand)
@click.argument("source")
@opt.output_option(required=True, metavar="FOLDER", help="Bundle to write.")
@opt.labels_file_option(
    aliases=("--labels",),
    show_default="config.json's labels",
    help="File of labels: one per line, or CSV with a column 'name'; hmdb51 for the built-in names of HMDB-51.",
)
@opt.template_option("template", default="{}", help="Text to encode for each label, with {} for the label.")
@opt.option(
    PRECISION_FLAG,
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["fp32"],
    help="Vision graphs to write, one or several, such as fp32 fp16. Without --for, fp32 is always written.",
)
@opt.option(
    DEVICE_FLAG,
    "target_devices",
    type=click.Choice(DEVICES),
    multiple=True,
    show_default="any device",
    help="Devices that will run the bundle, one or several: writes only the graphs that they use.",
)
@opt.option(
    "--text-precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    help="Storage of the text tower's weights; fp16 halves them, and moves logits of texts by some 0.01.",
)
@opt.option(
    "--fused/--no-fused", default=True, help="Also write the fp32 graph that is fused for ONNX Runtime's CPU provider."
)
@opt.option(
    "--stream",
    is_flag=True,
    help="Also write graphs for `stream --reuse`, which share the weights of the others.",
)
@opt.option(
    "--calibration",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False),
    show_default="embedded and synthetic clips",
    help="Typical videos that set the activation scales of int8.",
)
@opt.revision_option
@opt.profile_option(
    default="videox", help="The bundle's default preprocessing: videox as in training, hf as in transformers."
)
@opt.overwrite_option
@opt.json_option
def command(target_devices: tuple[Device, ...], as_json: bool, **options: Any) -> None:
    """Export a Hugging Face X-CLIP checkpoint as a bundle.

    SOURCE is a folder, a hub id such as microsoft/xclip-base-patch16-hmdb-2-shot, or the address of its page. Every
    graph is compared with the checkpoint in PyTorch; if one is out of tolerance, nothing is written. The bundle runs
    without PyTorch.
    """
    from xclip_runtime.cli.render import stages

    with stages("loading PyTorch") as progress:
        report = _export_bundle(devices=target_devices, **options, progress=progress)
    if as_json:
        print_json(report.to_dict(), indent=2)
    else:
        _print(report)


def _export_bundle(**options: Any) -> ExportReport:
    # The tracer warns about every Python constant in the graph; the parity check finds those that matter.
    warnings.simplefilter("ignore")
    logging.getLogger("optimum").setLevel(logging.ERROR)
    try:
        from xclip_export import export_bundle
    except ImportError as error:
        if (error.name or "").split(".")[0] not in EXPORT_PACKAGES:
            raise
        feature = "exporting a checkpoint"
        raise MissingExtraError(feature, "cpu,export") from error
    return export_bundle(**options)


def _print(report: ExportReport) -> None:
    from xclip_runtime.cli.render import console, table

    rows = [
        (
            name,
            f"{parity.max_abs_logit:.1e}",
            "reported" if parity.tolerance is None else f"{parity.tolerance:g}",
            f"{parity.cosine:.7f}",
            f"{parity.top1_agreement:.0%}",
        )
        for name, parity in report.parity.items()
    ]
    out = console()
    out.print(table(("compared with PyTorch", "max |Δlogit|", "tolerance", "cosine", "same best label"), rows))
    total = sum(report.files.values())
    out.print(f"{report.bundle}: {len(report.files)} files, {total / 1e6:.1f} MB", style="bold")
