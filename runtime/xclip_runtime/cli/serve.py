"""``xclip-onnx serve``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from xclip_runtime.cli.options import bundle_option, model_options, silence_native_logs
from xclip_runtime.errors import MissingExtraError
from xclip_runtime.util.paths import read_text

KEYS_VARIABLE = "XCLIP_ONNX_API_KEYS"
MIB = 1 << 20
BATCH_ON_GPU = 8


@click.command("serve")
@bundle_option
@click.option(
    "--index",
    "index_folder",
    metavar="FOLDER",
    type=click.Path(),
    help="Also search this index, made by `xclip-onnx index add` with the same bundle.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Also take the Open Inference Protocol over gRPC here; 0 for any free one (extra [grpc]). Default: no gRPC.",
)
@click.option(
    "--api-keys",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help=f"Keys that clients must show, one a line; or set {KEYS_VARIABLE}, separated by spaces. Default: none needed.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Requests taken at a time; more are answered 503 with Retry-After.",
)
@click.option(
    "--request-timeout",
    "--deadline",
    "request_timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds after which a request is given up.",
)
@click.option(
    "--decode-workers",
    type=click.IntRange(1),
    help="Processes that decode. Default: the CPUs that this process may use, at most 4.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 64),
    help="Clips that may go through the model together. Default: 1 on the CPU, 8 elsewhere.",
)
@click.option(
    "--batch-delay",
    type=click.FloatRange(0, 1000),
    default=0.0,
    show_default=True,
    help="Milliseconds that a clip waits for others, when the model is idle.",
)
@click.option(
    "--max-upload", type=click.FloatRange(0, min_open=True), default=256.0, show_default=True, help="MiB of a body."
)
@click.option(
    "--max-duration",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds of video.",
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=4096 * 2304, show_default=True, help="Width times height of video."
)
@click.option(
    "--time-limit",
    "--decode-limit",
    "time_limit",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds after which decoding a video is stopped.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    default="auto",
    show_default=True,
    help="auto is text on a terminal and JSON elsewhere.",
)
@model_options
def command(
    *,
    bundle: str,
    index_folder: str | None,
    host: str,
    port: int,
    grpc_port: int | None,
    api_keys: str | None,
    queue: int,
    request_timeout: float,
    decode_workers: int | None,
    batch_size: int | None,
    batch_delay: float,
    max_upload: float,
    max_duration: float,
    max_pixels: int,
    time_limit: float,
    log_format: Any,
    **model_options: Any,
) -> None:
    """Serve a bundle over HTTP, with a page to try it at /.

    Listens on this machine alone unless --host says otherwise. /v1 takes videos and answers in JSON (see /docs), /v2 is
    the Open Inference Protocol, /metrics is for Prometheus. Ctrl-C or SIGTERM ends it after answering what it has
    accepted.
    """
    silence_native_logs()
    try:
        from xclip_runtime.serve.logs import log_to_stderr  # noqa: PLC0415 - an extra
        from xclip_runtime.serve.server import Server, run_as_process  # noqa: PLC0415
        from xclip_runtime.serve.settings import Limits, ServeSettings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        feature = f"serving (it lacks {error.name})"
        raise MissingExtraError(feature, "serve") from error
    from xclip_runtime.inference.session import CPU_PROVIDER  # noqa: PLC0415
    from xclip_runtime.model import XClip  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.util.cpus import default_workers  # noqa: PLC0415

    log_to_stderr(log_format)
    # What a GPU is prepared for; the CPU takes any number of clips as it is.
    model = XClip(bundle, batch_size=batch_size or BATCH_ON_GPU, **model_options)
    limits = Limits(upload_bytes=int(max_upload * MIB), duration=max_duration, pixels=max_pixels, time_limit=time_limit)
    settings = ServeSettings(
        limits=limits,
        queue_size=queue,
        request_timeout=request_timeout,
        decode_workers=decode_workers or default_workers(),
        batch_size=batch_size or (1 if model.provider == CPU_PROVIDER else BATCH_ON_GPU),
        batch_delay=batch_delay / 1000,
        api_keys=_keys(api_keys),
    )
    index = None
    if index_folder is not None:
        from xclip_runtime.search import VideoIndex  # noqa: PLC0415 - an extra

        index = VideoIndex.open(index_folder, model)
    run_as_process(Server(model, settings, host, port, grpc_port=grpc_port, index=index))


def _keys(file: str | None) -> tuple[str, ...]:
    """The keys of the file, or else of the environment.

    Raises:
        click.BadParameter: The file holds none: an empty one must not open the server to all.
    """
    if file is None:
        return tuple(os.environ.get(KEYS_VARIABLE, "").split())
    refuse = partial(click.BadParameter, param_hint="--api-keys")
    keys = tuple(read_text(Path(file), refuse, content="keys", layout="one key a line").split())
    if not keys:
        message = f"{file} holds no key: write one a line"
        raise refuse(message)
    return keys
