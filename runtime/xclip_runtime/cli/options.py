"""Options that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from xclip_runtime.bundle import Precision
from xclip_runtime.session import DEVICE_CHOICES, GOALS

if TYPE_CHECKING:
    from xclip_runtime.reading import Reading

Function = TypeVar("Function", bound=Callable[..., Any])

bundle_option = click.option(
    "--bundle",
    "-b",
    required=True,
    envvar="XCLIP_ONNX_BUNDLE",
    show_envvar=True,
    type=click.Path(),
    help="Folder written by `xclip-onnx export`.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def model_options(function: Function) -> Function:
    """--device, --precision, --profile, --threads and --optimize-for: how to load a model."""
    for option in (
        click.option(
            "--optimize-for",
            type=click.Choice(GOALS),
            default="throughput",
            show_default=True,
            help="throughput lets idle threads sleep, for decoding beside; latency lets them spin.",
        ),
        click.option(
            "--threads",
            "intra_op_threads",
            type=click.IntRange(1),
            help="Intra-op threads. Default: the CPUs that this process may use.",
        ),
        click.option(
            "--profile",
            type=click.Choice(["videox", "hf"]),
            help="Preprocessing: videox as in training, hf as in transformers. Default: the bundle's.",
        ),
        click.option(
            "--precision",
            type=click.Choice(get_args(Precision)),
            help="Vision graph to run. Default: fp16 on CUDA, fp32 elsewhere.",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICE_CHOICES),
            default="auto",
            show_default=True,
            help="Where to run. A named device runs there or fails; auto may fall back to the CPU and says so.",
        ),
    ):
        function = option(function)
    return function


READING_OPTIONS = ("views", "start", "end", "decoder", "time_limit")


def reading_options(function: Function) -> Function:
    """--views, --start, --end, --decoder and --time-limit: which part of a file is looked at, and how it is read."""
    for option in (
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            default=600.0,
            show_default=True,
            help="Seconds after which reading one file is given up.",
        ),
        click.option(
            "--decoder",
            type=click.Choice(["auto", "opencv", "pyav"]),
            default="auto",
            show_default=True,
            help="auto is OpenCV, then PyAV (extra [av]) where OpenCV fails.",
        ),
        click.option("--end", type=float, help="Look no further than this many seconds. Default: the whole video."),
        click.option("--start", type=float, default=0.0, show_default=True, help="Begin this many seconds in."),
        click.option(
            "--views",
            default="1x1",
            show_default=True,
            metavar="CLIPSxCROPS",
            help="Average the probabilities over so many temporal clips and 1 or 3 crops, such as 4x3.",
        ),
    ):
        function = option(function)
    return function


def pop_reading(options: dict[str, Any]) -> Reading:
    """Take the reading options out of a command's options.

    Raises:
        click.UsageError: They make no sense.
    """
    from xclip_runtime.reading import Reading  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.video import Views  # noqa: PLC0415

    views, start, end, decoder, time_limit = (options.pop(name) for name in READING_OPTIONS)
    if not 0 <= start < (math.inf if end is None else end):
        message = f"--start {start} --end {end}: give 0 <= start < end, in seconds"
        raise click.UsageError(message)
    try:
        return Reading(Views.parse(views), start, end, decoder, time_limit)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--views") from None


def silence_native_logs() -> None:
    """Keep OpenCV's and FFmpeg's own messages off stderr; every failure gets a line of ours instead."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
