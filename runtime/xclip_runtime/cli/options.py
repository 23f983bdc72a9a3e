"""Options that several commands share: one spelling, default and help text each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
from click.core import ParameterSource

from xclip_runtime.bundle import Profile
from xclip_runtime.cli.parameters import Number, Option, PositionalAlias
from xclip_runtime.errors import DeviceError
from xclip_runtime.inference.auto import MAX_LOGIT_ERROR
from xclip_runtime.inference.providers import DEVICE_CHOICES, GOALS, Compute, parse_device, parse_provider_options
from xclip_runtime.util.plain_text import BLANKS, text_of

if TYPE_CHECKING:
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading

Function = TypeVar("Function", bound=Callable[..., Any])

COUNT = click.IntRange(min=1)
POSITIVE = Number(min=0, min_open=True)
FILE = click.Path(exists=True, dir_okay=False)


class Device(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """Device to run on, in its usual spelling; the shell completes the known ones."""

    name = "device"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Show the choices; click before 8.2 gives no context."""
        names = [str(name) for name in self.choices if ":" not in str(name)]
        return (
            f"[{'|'.join(names)}|openvino:gpu|openvino:npu|plugin:NAME]" if "auto" in names else f"[{'|'.join(names)}]"
        )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an unknown device, with suggestions."""
        try:
            device = parse_device(value)
        except DeviceError as error:
            self.fail(str(error), param, ctx)
        return str(super().convert(device, param, ctx))


class BundleType(click.types.StringParamType):
    """Bundle, of which a variable of the environment holds several as PATH does."""

    name = "bundle"
    envvar_list_splitter = os.pathsep


option = partial(click.option, cls=Option)
positional_alias = partial(click.argument, cls=PositionalAlias)


def given(*names: str) -> bool:
    """Return True if one of these parameters is on the command line of the command that runs."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is ParameterSource.COMMANDLINE for name in names)


def pop_fields(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Remove the options that are fields of a dataclass, with or without ``max_``, and return them by field."""
    names = [field.name for field in fields(kind)]
    found = {name: option for option in options if (name := option.removeprefix("max_")) in names}
    return {name: options.pop(option) for name, option in found.items()}


def _all(*decorators: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Combine options, shown in this order."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_bundle_option = partial(
    option,
    "--bundle",
    "-b",
    metavar="BUNDLE",
    envvar="XCLIP_ONNX_BUNDLE",
    show_envvar=True,
    help="Folder that `xclip-onnx export` wrote, owner/name[@revision] on a model hub, or motion-demo.",
)
bundle_option = _bundle_option(required=True, fix="give a bundle folder, or motion-demo for the embedded one")
bundles_option = partial(
    _bundle_option,
    "bundles",
    metavar="[NAME=]BUNDLE",
    type=BundleType(),
    multiple=True,
    required=True,
    help="Folder that `xclip-onnx export` wrote, owner/name[@revision] on a model hub, or motion-demo; several have "
    "names, the first is the default.",
    fix="give a bundle folder, or motion-demo for the embedded one",
)
demo_bundle_option = _bundle_option(default="motion-demo")
bundle_alias = positional_alias("old_bundle", option="bundle")

revision_option = option("--revision", metavar="NAME", help="Branch, tag or commit of a hub repository.")

_index_option = partial(option, "--index", "-i", "folder", metavar="FOLDER", type=click.Path(file_okay=False))
index_option = _index_option(
    required=True,
    envvar="XCLIP_ONNX_INDEX",
    show_envvar=True,
    help="Folder of the index.",
    fix="give the folder of an index",
)
optional_index_option = _index_option

videos_argument = click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
json_option = option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _check_folder_of(_: click.Context, __: click.Parameter, path: str | None) -> str | None:
    if path is not None and not (folder := Path(path).parent).is_dir():
        message = f"no folder {folder}: create it, or give another path"
        raise click.BadParameter(message)
    return path


output_option = partial(option, "--output", "-o", type=click.Path())
output_file_option = partial(output_option, callback=_check_folder_of)
resume_option = option("--resume", is_flag=True, help="Continue an interrupted run: skip what is in --output already.")
overwrite_option = option("--overwrite", is_flag=True, help="Replace existing output, once the new one is complete.")
top_k_option = partial(option, "--top-k", "-k", metavar="N", type=COUNT)
workers_option = option(
    "--workers",
    metavar="N",
    type=COUNT,
    show_default="usable CPUs, one per 0.5 GiB of memory",
    help="Videos that are read at once, ahead of the model.",
)
batch_size_option = partial(
    option,
    "--batch-size",
    metavar="N",
    help="Batch size: clips per run of the vision graph. Larger batches raise throughput on a GPU, and latency.",
)
batch_delay_option = partial(
    option,
    "--batch-delay",
    metavar="MS",
    type=Number(0, 1000),
    help="Maximum time that a clip waits for its batch to fill, milliseconds.",
)
time_limit_option = partial(
    option, "--time-limit", metavar="SECONDS", type=POSITIVE, help="Time limit for reading one video, seconds."
)
window_option = partial(option, "--window", metavar="SECONDS", type=POSITIVE)
hop_option = option(
    "--hop",
    metavar="SECONDS",
    type=POSITIVE,
    show_default="half a window, of cached frames an eighth",
    help="Time from the start of one window to the next, seconds.",
)
refresh_option = option(
    "--refresh",
    metavar="N",
    type=click.IntRange(min=0),
    default=64,
    help="Compute every N-th window exactly, and measure the drift of cached frames; 0 for never.",
)
profile_option = partial(option, "--profile", type=click.Choice(get_args(Profile)))
precision_option = partial(
    option,
    "--precision",
    type=click.Choice(get_args(Compute)),
    show_default="fp16 on CUDA, else fp32",
    help="Precision of the vision graph; on TensorRT and OpenVINO, the compute precision.",
)
max_logit_error_option = option(
    "--max-logit-error",
    metavar="LOGITS",
    type=Number(min=0),
    default=MAX_LOGIT_ERROR,
    help="Largest error to fp32 for which --device auto takes the fastest engine that `xclip-onnx tune` measured.",
)


def check_resume(output: str | None, *, resume: bool) -> None:
    """Refuse ``--resume`` without ``--output``."""
    if resume and output is None:
        message = "--resume needs --output: name the output of the interrupted run"
        raise click.UsageError(message)


def _provider_options(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    return parse_provider_options(pairs)


model_options = _all(
    option(
        "--device",
        type=Device(DEVICE_CHOICES),
        default="auto",
        help="Device to run on. auto may fall back to the CPU, with a warning; a named device runs or fails. "
        "plugin:NAME is an untested plugin of ONNX Runtime: nv-tensorrt-rtx, webgpu, mlx or qnn.",
    ),
    precision_option(),
    max_logit_error_option,
    profile_option(
        show_default="the bundle's", help="Preprocessing: videox as in training, hf as in transformers' processor."
    ),
    option("--threads", metavar="N", type=COUNT, show_default="usable CPUs", help="Intra-op threads."),
    option(
        "--optimize-for",
        type=click.Choice(GOALS),
        default="throughput",
        help="throughput lets idle threads sleep and leaves the CPU to decoding; latency keeps them spinning.",
    ),
    option(
        "--provider-option",
        "provider_options",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_provider_options,
        help="Option of the device's execution provider, such as gpu_mem_limit=4294967296; repeatable.",
    ),
)

FILE_OPTIONS = ("start", "end", "track", "square_pixels", "decoder", "time_limit")


def _check_decoder(_: click.Context, __: click.Parameter, value: Any) -> Any:
    from xclip_runtime.video import ReadOptions

    try:
        ReadOptions(decoder=value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


file_options = _all(
    option("--start", metavar="SECONDS", type=float, default=0.0, help="Start of the part to read, seconds."),
    option(
        "--end",
        metavar="SECONDS",
        type=float,
        show_default="end of the video",
        help="End of the part to read, seconds.",
    ),
    option(
        "--track",
        metavar="N",
        type=click.IntRange(min=0),
        show_default="FFmpeg's best",
        help="Number of the video track, from 0.",
    ),
    option(
        "--square-pixels",
        is_flag=True,
        help="Stretch frames by their sample aspect ratio, as players do; training ignored it.",
    ),
    option(
        "--decoder",
        metavar="[auto|pyav]",
        default="auto",
        callback=_check_decoder,
        help="Decoder; auto is PyAV (FFmpeg).",
    ),
    time_limit_option(default=600.0),
)
reading_options = _all(
    option(
        "--views",
        default="1x1",
        metavar="POSITIONSxCROPS",
        help="Views per video: temporal positions x crops (1 or 3), such as 4x3; their probabilities are averaged.",
    ),
    file_options,
)


def pop_reading(options: dict[str, Any]) -> Reading:
    """Remove the reading options from a command's options and build a `Reading`.

    Raises:
        click.UsageError: The options contradict each other.
    """
    from xclip_runtime.video import Views
    from xclip_runtime.video.load import Reading

    file = {name: options.pop(name) for name in FILE_OPTIONS}
    start, end = file["start"], file["end"]
    if not 0 <= start < (math.inf if end is None else end):
        message = f"--start {start} --end {end}: give 0 <= start < end, in seconds"
        raise click.UsageError(message)
    try:
        return Reading(Views.parse(options.pop("views", "1x1")), **file)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--views") from None


truncate_option = option(
    "--truncate", is_flag=True, help="Cut texts longer than the model's context instead of refusing them."
)
template_option = partial(option, "--template", metavar="TEXT")
templates_option = template_option(
    "templates",
    multiple=True,
    show_default="the bare label",
    help="Text to encode for each label, with {} for the label; repeatable, embeddings are averaged.",
)
labels_file_option = partial(option, "--labels-file", metavar="FILE")
LABEL_OPTIONS = ("labels", "labels_file", "templates", "truncate")
label_options = _all(
    option("--labels", metavar="A,B,C", help="Labels to use instead of the bundle's, comma-separated (extra [text])."),
    labels_file_option(
        help="File with such labels: one per line, CSV with a column 'name', or a set of `labels encode`; or hmdb51."
    ),
    templates_option,
    truncate_option,
)


def pop_labels(options: dict[str, Any]) -> Callable[[XClip], XClip]:
    """Remove the label options from a command's options, and read the file that they name.

    Returns:
        Function that gives a model these labels.

    Raises:
        click.UsageError: The options contradict each other.
        LabelsError: The file cannot be used.
    """
    from xclip_runtime.text.label_embeddings import is_encoded, load_labels
    from xclip_runtime.text.labels import BUILT_IN, PLACEHOLDER, read_label_names

    labels, file, templates, truncate = (options.pop(name) for name in LABEL_OPTIONS)
    if labels is not None and file is not None:
        message = "--labels and --labels-file: give one of them"
        raise click.UsageError(message)
    if labels is None and file is None:
        if templates or truncate:
            message = "--template and --truncate need --labels or --labels-file: the bundle's own are encoded already"
            raise click.UsageError(message)
        return lambda model: model
    file = labels if labels in BUILT_IN else file
    if file is not None and is_encoded(file):
        if templates or truncate:
            message = f"{file} is encoded already: give --template and --truncate to `xclip-onnx labels encode`"
            raise click.UsageError(message)
        encoded = load_labels(file)
        return lambda model: model.with_labels(encoded)
    names = read_label_names(file) if file is not None else [text_of(name).strip(BLANKS) for name in labels.split(",")]
    return lambda model: model.with_labels(names, tuple(map(text_of, templates)) or PLACEHOLDER, truncate=truncate)


def silence_native_logs() -> None:
    """Keep OpenCV's and FFmpeg's messages off standard error, where every failure has one line already."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
