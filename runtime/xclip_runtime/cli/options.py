"""Options that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from xclip_runtime.inference.session import DEVICE_CHOICES, GOALS, Compute, parse_provider_options

if TYPE_CHECKING:
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading

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


def _provider_options(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    return parse_provider_options(pairs)


def model_options(function: Function) -> Function:
    """--device, --precision, --profile, --threads, --optimize-for, --provider-option: how to load a model."""
    for option in (
        click.option(
            "--provider-option",
            "provider_options",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_provider_options,
            help="An option of the device's execution provider, such as gpu_mem_limit=4294967296; repeatable.",
        ),
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
            type=click.Choice(get_args(Compute)),
            help="Vision graph to run, or what TensorRT and OpenVINO compute in. Default: fp16 on CUDA, else fp32.",
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


FILE_OPTIONS = ("start", "end", "decoder", "time_limit", "track", "square_pixels")


def _check_decoder(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    from xclip_runtime.video import ReadOptions  # noqa: PLC0415 - keeps --help quick

    try:
        ReadOptions(decoder=value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def file_options(function: Function) -> Function:
    """--start, --end, --track and others: which part of a file is looked at, and how it is read."""
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
            default="auto",
            callback=_check_decoder,
            metavar="[auto|pyav]",
            show_default=True,
            help="Both are PyAV, which is FFmpeg.",
        ),
        click.option(
            "--square-pixels",
            is_flag=True,
            help="Stretch frames by their sample aspect ratio, as players do. Training ignored it.",
        ),
        click.option(
            "--track",
            type=click.IntRange(min=0),
            metavar="N",
            help="Number of the picture track, from 0. Default: the one that FFmpeg finds best.",
        ),
        click.option("--end", type=float, help="Look no further than this many seconds. Default: the whole video."),
        click.option("--start", type=float, default=0.0, show_default=True, help="Begin this many seconds in."),
    ):
        function = option(function)
    return function


def reading_options(function: Function) -> Function:
    """--views, and what :func:`file_options` adds."""
    views = click.option(
        "--views",
        default="1x1",
        show_default=True,
        metavar="CLIPSxCROPS",
        help="Average the probabilities over so many temporal clips and 1 or 3 crops, such as 4x3.",
    )
    return views(file_options(function))


def pop_reading(options: dict[str, Any]) -> Reading:
    """Take the reading options out of a command's options.

    Raises:
        click.UsageError: They make no sense.
    """
    from xclip_runtime.video import Views  # noqa: PLC0415
    from xclip_runtime.video.load import Reading  # noqa: PLC0415 - keeps --help quick

    file = {name: options.pop(name) for name in FILE_OPTIONS}
    start, end = file["start"], file["end"]
    if not 0 <= start < (math.inf if end is None else end):
        message = f"--start {start} --end {end}: give 0 <= start < end, in seconds"
        raise click.UsageError(message)
    try:
        return Reading(Views.parse(options.pop("views", "1x1")), **file)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--views") from None


truncate_option = click.option(
    "--truncate", is_flag=True, help="Cut texts that are longer than the model reads, instead of refusing them."
)
template_option = click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help="What each label is encoded as; {} is the label. Several are averaged. Default: the bare label.",
)
LABEL_OPTIONS = ("labels", "labels_file", "templates", "truncate")


def label_options(function: Function) -> Function:
    """--labels, --labels-file, --template and --truncate: labels that take the place of the bundle's."""
    for option in (
        truncate_option,
        template_option,
        click.option(
            "--labels-file",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            help="The same from a file: one a line, a CSV with a column 'name', or what `labels encode` wrote.",
        ),
        click.option("--labels", metavar="A,B,C", help="Use these labels, not the bundle's (extra [text])."),
    ):
        function = option(function)
    return function


def pop_labels(options: dict[str, Any]) -> Callable[[XClip], XClip]:
    """Take the label options out of a command's options, and read the file that they name.

    Returns:
        What gives a model the labels that were asked for.

    Raises:
        click.UsageError: They make no sense together.
        LabelsError: The file cannot be used.
    """
    labels, file, templates, truncate = (options.pop(name) for name in LABEL_OPTIONS)
    if labels is not None and file is not None:
        message = "--labels and --labels-file: give one of them"
        raise click.UsageError(message)
    if labels is None and file is None:
        if templates or truncate:
            message = (
                "--template and --truncate need --labels or --labels-file: the bundle's labels are encoded already"
            )
            raise click.UsageError(message)
        return lambda model: model
    from xclip_runtime.text.label_embeddings import is_encoded, load_labels  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.text.labels import PLACEHOLDER, read_label_names  # noqa: PLC0415

    if file is not None and is_encoded(file):
        if templates or truncate:
            message = f"{file} is encoded already: give --template and --truncate to `xclip-onnx labels encode`"
            raise click.UsageError(message)
        encoded = load_labels(file)
        return lambda model: model.with_labels(encoded)
    names = read_label_names(file) if file is not None else [name.strip() for name in labels.split(",")]
    return lambda model: model.with_labels(names, templates or PLACEHOLDER, truncate=truncate)


def silence_native_logs() -> None:
    """Keep OpenCV's and FFmpeg's own messages off stderr; every failure gets a line of ours instead."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
