"""Command ``xclip-onnx serve``."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.parameters import Number
from xclip_runtime.errors import MissingExtraError
from xclip_runtime.serve.settings import DEFAULT_NAME, MIB, VIDEOS_SUFFIX, Limits, ServeSettings
from xclip_runtime.util.plain_text import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VARIABLES = "XCLIP_ONNX"
KEYS_VARIABLE = f"{VARIABLES}_API_KEYS"
SETTINGS = ServeSettings()
LIMITS = SETTINGS.limits

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _named(_: click.Context, __: click.Parameter, bundles: Sequence[str]) -> dict[str, str]:
    """Return the folder of each model by its name.

    Raises:
        click.BadParameter: A name is given twice, or several bundles are given and one has no name.
    """
    paths: dict[str, str] = {}
    for given in bundles:
        name, equals, path = given.partition("=")
        if not equals or not NAME.fullmatch(name) or Path(given).exists():
            name, path = DEFAULT_NAME, given
        if path == given and len(bundles) > 1:
            message = f"{given} has no name: give NAME=FOLDER for each of several bundles"
            raise click.BadParameter(message)
        if name in paths:
            message = f"two bundles are named {name}: give each a name of its own"
            raise click.BadParameter(message)
        paths[name] = path
    if clash := next((name for name in paths if name + VIDEOS_SUFFIX in paths), None):
        message = f"{clash}{VIDEOS_SUFFIX} is how /v2 names {clash} for encoded videos: choose another name"
        raise click.BadParameter(message)
    return paths


def _bytes(_: click.Context, __: click.Parameter, mebibytes: float) -> int:
    return int(mebibytes * MIB)


@click.command("serve", context_settings={"auto_envvar_prefix": VARIABLES})
@opt.bundles_option(callback=_named)
@opt.optional_index_option(help="Index to search, written by `xclip-onnx index add` with the same bundle.")
@opt.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all interfaces.")
@opt.option("--port", metavar="N", type=click.IntRange(0, 65535), default=8000, help="HTTP port; 0 for any free one.")
@opt.option(
    "--grpc-port",
    metavar="N",
    type=click.IntRange(0, 65535),
    show_default="no gRPC",
    help="Port of the Open Inference Protocol over gRPC; 0 for any free one (extra [grpc]).",
)
@opt.option(
    "--metrics-port",
    metavar="N",
    type=click.IntRange(0, 65535),
    show_default="beside the rest, with a key",
    help="Port of /metrics and of the health probes, without a key; 0 for any free one.",
)
@opt.option("--uds", metavar="PATH", type=click.Path(), help="Unix socket to listen on in place of --host and --port.")
@opt.option(
    "--root-path", metavar="PATH", default="", help="Path below which a proxy shows the server, such as /video."
)
@opt.option("--tls-cert", metavar="FILE", type=opt.FILE, help="Certificate chain, PEM; with --tls-key, for HTTPS.")
@opt.option("--tls-key", metavar="FILE", type=opt.FILE, help="Private key of --tls-cert, PEM, without a password.")
@opt.option(
    "--api-keys",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    envvar=f"{KEYS_VARIABLE}_FILE",
    # XCLIP_ONNX_API_KEYS holds the keys themselves, not the name of their file.
    allow_from_autoenv=False,
    show_default="no keys",
    help="File of API keys that clients must send, NAME:KEY per line; SIGHUP reads it anew. Or set "
    f"{KEYS_VARIABLE}, separated by spaces or commas.",
)
@opt.option(
    "--allow-model-control",
    is_flag=True,
    help="Let clients load and unload the bundles of this server over /v2/repository.",
)
@opt.option(
    "--allowed-hosts",
    metavar="NAMES",
    multiple=True,
    callback=lambda _context, _option, values: _split(values, r"(\*\.)?[^\s:/*]+|\*", "a name such as www.example.com"),
    show_default="IP addresses and names without a dot",
    help="Further host names of the server, separated by commas; *.example.com for all below it, * for any.",
)
@opt.option(
    "--cors-origin",
    "cors_origins",
    metavar="ORIGINS",
    multiple=True,
    callback=lambda _context, _option, values: _split(values, r"https?://[^\s/*]+/?|\*", "https://www.example.com"),
    show_default="the server's own page",
    help="Origins whose pages may use the server, such as https://example.com, separated by commas; * for any.",
)
@opt.option(
    "--queue",
    metavar="N",
    type=opt.COUNT,
    default=SETTINGS.queue,
    help="Maximum concurrent requests; further ones get 503 and Retry-After.",
)
@opt.option(
    "--request-timeout",
    aliases=("--deadline",),
    metavar="SECONDS",
    type=opt.POSITIVE,
    default=SETTINGS.request_timeout,
    help="Time limit for one request, seconds.",
)
@opt.option(
    "--decode-workers",
    metavar="N",
    type=opt.COUNT,
    default=SETTINGS.decode_workers,
    show_default="usable CPUs, one per 0.5 GiB of memory",
    help="Processes that decode videos.",
)
@opt.option(
    "--decode-memory",
    metavar="MIB",
    type=click.IntRange(512, 1 << 20),
    default=LIMITS.decode_memory // MIB,
    callback=_bytes,
    help="Maximum address space of a decode worker, MiB; a video of 9 megapixels takes 1600.",
)
@opt.option(
    "--client-limit",
    metavar="N",
    type=opt.COUNT,
    show_default="none",
    help="Maximum concurrent requests of one client: an API key, or an address without keys.",
)
@opt.option(
    "--max-connections",
    metavar="N",
    type=opt.COUNT,
    default=LIMITS.connections,
    help="Maximum connections of a port; idle ones make room for new ones.",
)
@opt.option(
    "--header-timeout",
    metavar="SECONDS",
    type=opt.POSITIVE,
    default=LIMITS.header_timeout,
    help="Time limit for the header of a request, seconds.",
)
@opt.option(
    "--idle-timeout",
    metavar="SECONDS",
    type=opt.POSITIVE,
    default=LIMITS.idle_timeout,
    help="Time that a connection is kept for the next request, seconds.",
)
@opt.option(
    "--drain-delay",
    metavar="SECONDS",
    type=Number(0, 3600),
    default=SETTINGS.drain_delay,
    help="Time after SIGTERM in which the server says that it is not ready but still serves, seconds.",
)
@opt.option("--unready-when-full", is_flag=True, help="Be not ready while the queue is full.")
@opt.batch_size_option(type=click.IntRange(1, 64), show_default="1 on the CPU, else 8")
@opt.batch_delay_option(default=1000 * SETTINGS.batch_delay)
@opt.option(
    "--max-upload",
    metavar="MIB",
    type=opt.POSITIVE,
    default=LIMITS.upload / MIB,
    callback=_bytes,
    help="Maximum request body, MiB.",
)
@opt.option(
    "--max-duration",
    metavar="SECONDS",
    type=opt.POSITIVE,
    default=LIMITS.duration,
    help="Maximum duration of a video, seconds.",
)
@opt.option(
    "--max-pixels", metavar="N", type=opt.COUNT, default=LIMITS.pixels, help="Maximum width x height of a video."
)
@opt.time_limit_option(aliases=("--decode-limit",), default=LIMITS.time_limit)
@opt.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    default="auto",
    help="auto is text on a terminal, else JSON.",
)
@opt.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="Least severe entries to log; debug adds probes and scrapes.",
)
@opt.model_options
def command(
    *,
    bundles: Mapping[str, str],
    folder: str | None,
    host: str,
    port: int,
    grpc_port: int | None,
    metrics_port: int | None,
    uds: str | None,
    root_path: str,
    tls_cert: str | None,
    tls_key: str | None,
    api_keys: str | None,
    allowed_hosts: tuple[str, ...],
    batch_size: int | None,
    batch_delay: float,
    log_format: Any,
    log_level: str,
    **options: Any,
) -> None:
    """Serve bundles over HTTP, with a web page at /.

    /v1 takes videos and returns JSON (documented at /docs), /v2 is the Open Inference Protocol, /metrics serves
    Prometheus. Ctrl-C or SIGTERM stops the server once it has answered the requests that it has accepted; SIGHUP
    reloads keys, certificate and bundles. Every option can be set by a variable, such as XCLIP_ONNX_GRPC_PORT.
    """
    if (tls_cert is None) != (tls_key is None):
        message = "--tls-cert and --tls-key: give both or none"
        raise click.UsageError(message)
    if root_path and not root_path.startswith("/"):
        message = f"{root_path!r} does not begin with /"
        raise click.BadParameter(message, param_hint="--root-path")
    opt.silence_native_logs()
    try:
        from xclip_runtime.serve.connections import raise_file_limit
        from xclip_runtime.serve.logs import log_to_stderr
        from xclip_runtime.serve.served_model import BATCH_ON_GPU, Opened
        from xclip_runtime.serve.server import Server, run_as_process
    except ModuleNotFoundError as error:
        feature = f"serving (it lacks {error.name})"
        raise MissingExtraError(feature, "serve") from error
    from xclip_runtime.model import XClip
    from xclip_runtime.text.encoder import TextEncoder

    settings = ServeSettings(
        limits=Limits(**opt.pop_fields(options, Limits)),
        batch_size=batch_size,
        batch_delay=batch_delay / 1000,
        api_keys=_keys(api_keys),
        allowed_hosts=(host, *allowed_hosts),
        **opt.pop_fields(options, ServeSettings),
    )
    log_to_stderr(log_format, log_level)

    def open_bundle(path: str, index: str | None) -> Opened:
        # A GPU prepares every batch size up to this one; the CPU takes any as it is.
        model = XClip(path, batch_size=batch_size or BATCH_ON_GPU, **options)
        if model.bundle.repository is not None and model.bundle.graphs_of("text"):
            TextEncoder(model.bundle).check_files()  # no request waits for a download
        if index is None:
            return Opened(model)
        from xclip_runtime.search import VideoIndex

        return Opened(model, VideoIndex.open(index, model))

    # The index is the default model's.
    openers = {
        name: partial(open_bundle, path, None if number else folder)
        for number, (name, path) in enumerate(bundles.items())
    }
    raise_file_limit()
    server = Server(
        openers,
        settings,
        host,
        port,
        uds=uds,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
        root_path=root_path,
        read_keys=None if api_keys is None else partial(_read_keys, api_keys, ValueError),
    )
    run_as_process(server)


def _keys(file: str | None) -> tuple[str, ...]:
    """Read the keys from the file, or else from the environment.

    Raises:
        click.UsageError: There are none where some are meant: that must not open the server to all.
    """
    if file is not None:
        return _read_keys(file, partial(click.BadParameter, param_hint="--api-keys"))
    from xclip_runtime.serve.api_keys import parse_keys

    given = os.environ.get(KEYS_VARIABLE)
    keys = parse_keys(given or "")
    if given is not None and not keys:
        message = f"{KEYS_VARIABLE} is set but holds no key: set keys, or unset it to serve without keys"
        raise click.UsageError(message)
    return keys


def _read_keys(file: str, refuse: Callable[[str], Exception]) -> tuple[str, ...]:
    from xclip_runtime.serve.api_keys import parse_keys

    keys = parse_keys(read_text(Path(file), refuse, content="keys", layout="one key a line"))
    if not keys:
        message = f"{file} holds no key: write one per line"
        raise refuse(message)
    return keys


def _split(values: tuple[str, ...], pattern: str, right: str) -> tuple[str, ...]:
    """Return the names in values that are separated by commas; refuse those that do not match."""
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    for name in names:
        if not re.fullmatch(pattern, name):
            message = f"{name!r} is not right: give {right}, or * for any"
            raise click.BadParameter(message)
    return names
