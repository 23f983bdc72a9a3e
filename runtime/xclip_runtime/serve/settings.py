"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from xclip_runtime.util.cpus import default_workers

MIB = 1 << 20

DEFAULT_NAME = "xclip"
"""Name of a model that is given without one."""

VIDEOS_SUFFIX = "_video"
"""Suffix that /v2 adds to the name of a model where it takes encoded videos."""


@dataclass(frozen=True)
class Limits:
    """Resource limits."""

    upload: int = 256 * MIB
    """Size of a request body, bytes."""
    duration: float = 600.0
    """Duration of a video by its container, seconds."""
    pixels: int = 4096 * 2304
    """Width times height of a video."""
    time_limit: float = 30.0
    """Time to read a video, seconds; then its decode worker is killed."""
    decode_memory: int = 4096 * MIB
    """Address space of a decode worker, bytes; without effect where the platform cannot limit it."""
    labels: int = 1000
    """Labels and texts of a request."""
    text_length: int = 500
    """Length of a label or text, characters."""
    batch_size: int = 32
    """Clips or videos of one /v2 request."""
    views: int = 12
    """Views of a video, temporal clips times crops."""
    kept_videos: int = 64
    """Videos whose features are kept for later requests; the least recently used is dropped first."""
    live_connections: int = 8
    """Cameras connected at the same time."""
    connections: int = 512
    """Connections of a port at the same time; fewer where the process may not open that many files."""
    header_timeout: float = 10.0
    """Time for the complete header of a request, seconds."""
    idle_timeout: float = 30.0
    """Time that a connection is kept for the next request, seconds."""


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server."""

    limits: Limits = field(default_factory=Limits)
    queue: int = 64
    """Requests between upload and response; more are refused with 503."""
    request_timeout: float = 60.0
    """Time for one request, seconds; clients may ask for less."""
    decode_workers: int = field(default_factory=default_workers)
    """Processes that decode videos; by default one per usable CPU, as far as memory allows."""
    batch_size: int | None = 1
    """Maximum batch size of the vision graph; None for 1 on the CPU and 8 elsewhere."""
    batch_delay: float = 0.0
    """Time that a clip waits for its batch to fill, seconds."""
    allow_model_control: bool = False
    """Clients may load and unload the models of the server."""
    api_keys: tuple[str, ...] = ()
    """Accepted API keys, KEY or NAME:KEY; empty to accept every request."""
    client_limit: int | None = None
    """Concurrent requests of one client, which is an API key, or an address without keys; None for no limit."""
    unready_when_full: bool = False
    """Be not ready while the queue is full, so that load balancers choose another server."""
    drain_delay: float = 0.0
    """Time after SIGTERM in which the server is not ready but serves, seconds."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that the server answers to, beside IP addresses and names without a dot; *.example.com for all below
    example.com, * for any."""
    cors_origins: tuple[str, ...] = ()
    """Origins such as https://example.com whose pages may use the server; * for any."""
