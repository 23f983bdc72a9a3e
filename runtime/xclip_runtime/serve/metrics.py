"""Prometheus metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from xclip_runtime._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from xclip_runtime.model import XClip

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A local path; and the batch size that a GPU is warmed up for, where xclip_batch_size shows the real ones.
_NOT_EXPORTED = ("bundle", "batch_size")
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "xclip_requests", "Requests by outcome.", ["endpoint", "outcome"], registry=self.registry
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
        self.live_connections = Gauge("xclip_live_connections", "Cameras connected.", registry=self.registry)
        self._in_flight = Gauge("xclip_requests_in_flight", "Requests admitted, not answered.", registry=self.registry)
        self._waiting = Gauge("xclip_queue_depth", "Items waiting for a stage.", ["stage"], registry=self.registry)
        self._info = Info("xclip", "Effective configuration.", ["model"], registry=self.registry)

    def describe(self, name: str, model: XClip) -> None:
        """Show the effective configuration of a model."""
        info = {k: str(value) for k, value in model.info.items() if k not in _NOT_EXPORTED and value is not None}
        self._info.labels(name).info({"version": __version__, **info})

    def forget(self, name: str) -> None:
        """Show a model no longer."""
        with suppress(KeyError):
            self._info.remove(name)

    def observe(self, in_flight: Callable[[], int], decode: Callable[[], int], vision: Callable[[], int]) -> None:
        """Set the callbacks that the gauges read at every scrape."""
        self._in_flight.set_function(in_flight)
        self._waiting.labels("decode").set_function(decode)
        self._waiting.labels("vision").set_function(vision)

    def text(self) -> bytes:
        """Return the exposition, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)
