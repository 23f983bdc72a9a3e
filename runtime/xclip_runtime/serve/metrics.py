"""Prometheus metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from xclip_runtime._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xclip_runtime.model import XClip

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A local path; and the batch size that a GPU is warmed up for, where xclip_batch_size shows the real ones.
_NOT_EXPORTED = ("bundle", "batch_size")
_DRIFTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
STAGES = ("decode_queue", "decode", "prepare", "vision_queue", "vision", "prompt")
WORKER_LOSSES = ("crashed", "timeout", "stalled", "cancelled", "idle")
CLOSED = ("idle", "full", "header", "stalled", "files", "malformed")
"""Reasons to give up a connection: to make room, none idle, slow header, response not read, no files, not HTTP."""
CLIENT_GONE = 499
OUTCOMES: dict[int, tuple[str, ...]] = {
    200: ("ok",),
    206: ("ok",),
    304: ("ok",),
    400: ("refused",),
    401: ("unauthorized",),
    403: ("refused",),
    404: ("refused",),
    405: ("refused",),
    413: ("too_large",),
    416: ("refused",),
    422: ("refused",),
    429: ("limited",),
    CLIENT_GONE: ("cancelled",),
    500: ("error",),
    501: ("refused",),
    502: ("error",),
    503: ("overloaded", "starting", "not_ready"),
    504: ("deadline",),
    507: ("error",),
}
"""Outcomes of a request by its HTTP status; the first is the usual one."""
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "xclip_requests", "Requests by outcome.", ["endpoint", "code", "outcome"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "xclip_request_seconds",
            "Duration of a request, from its first byte to the last byte of the response.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "xclip_stage_seconds", "Duration of each stage.", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "xclip_batch_size", "Clips per run of the vision graph.", buckets=_BATCH_SIZES, registry=self.registry
        )
        self.decode_restarts = Counter(
            "xclip_decode_worker_restarts", "Decode workers replaced.", ["reason"], registry=self.registry
        )
        self.live_windows = Counter(
            "xclip_live_windows",
            "Windows of cameras, exact or from cached frames.",
            ["encoding"],
            registry=self.registry,
        )
        self.live_drift = Histogram(
            "xclip_live_drift",
            "Largest difference of a logit between a window from cached frames and the exact one, where both were run.",
            buckets=_DRIFTS,
            registry=self.registry,
        )
        self._connections = Gauge("xclip_connections", "Open HTTP connections.", registry=self.registry)
        self._connections_closed = Counter(
            "xclip_connections_closed", "Connections given up by the server.", ["reason"], registry=self.registry
        )
        self.live_connections = Gauge("xclip_live_connections", "Cameras connected.", registry=self.registry)
        self._in_flight = Gauge("xclip_requests_in_flight", "Requests admitted, not answered.", registry=self.registry)
        self._waiting = Gauge("xclip_queue_depth", "Items waiting for a stage.", ["stage"], registry=self.registry)
        self._info = Info("xclip", "Effective configuration.", ["model"], registry=self.registry)
        self._expect()

    def describe(self, name: str, model: XClip) -> None:
        """Show the effective configuration of a model."""
        info = {k: str(value) for k, value in model.info.items() if k not in _NOT_EXPORTED and value is not None}
        self._info.labels(name).info({"version": __version__, **info})

    def forget(self, name: str) -> None:
        """Show a model no longer."""
        with suppress(KeyError):
            self._info.remove(name)

    def _expect(self) -> None:
        """Make series that may come, so that their first event is a step from 0."""
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for reason in WORKER_LOSSES:
            self.decode_restarts.labels(reason)
        for encoding in ("exact", "cached"):
            self.live_windows.labels(encoding)
        for reason in CLOSED:
            self._connections_closed.labels(reason)

    def expect_requests(self, endpoints: Iterable[str]) -> None:
        """Make the series of these endpoints."""
        for endpoint in endpoints:
            self.request_seconds.labels(endpoint)
            for code, outcomes in OUTCOMES.items():
                for outcome in outcomes:
                    self.requests.labels(endpoint, str(code), outcome)

    def record_request(self, endpoint: str, code: int, outcome: str | None, seconds: float) -> None:
        """Record a finished request.

        Args:
            endpoint: The declared path.
            code: HTTP status.
            outcome: Its cause, where one status has several.
            seconds: Duration.
        """
        known = OUTCOMES.get(code) or ("ok" if code < 400 else "refused" if code < 500 else "error",)
        self.requests.labels(endpoint, str(code), outcome or known[0]).inc()
        self.request_seconds.labels(endpoint).observe(seconds)

    def connection_closed(self, reason: str) -> None:
        """Count a connection that the server has given up."""
        self._connections_closed.labels(reason).inc()

    def observe_connections(self, count: Callable[[], int]) -> None:
        """Set the callback that counts the open connections."""
        self._connections.set_function(count)

    def observe(self, in_flight: Callable[[], int], decode: Callable[[], int], vision: Callable[[], int]) -> None:
        """Set the callbacks that the gauges read at every scrape."""
        self._in_flight.set_function(in_flight)
        self._waiting.labels("decode").set_function(decode)
        self._waiting.labels("vision").set_function(vision)

    def text(self) -> bytes:
        """Return the exposition, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)
