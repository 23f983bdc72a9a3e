"""Traces over OTLP (extra [otel]), set up by OpenTelemetry's standard variables."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from xclip_runtime._version import __version__
from xclip_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

SERVICE = "xclip-onnx"

_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NOT_TRACED = "healthz,v2/health,metrics"


def wanted() -> bool:
    """Return True if the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER")
    return exporter == "otlp" if exporter else any(os.environ.get(name) for name in _VARIABLES)


def trace(app: FastAPI) -> Callable[[], None]:
    """Make a span of each request of an application, and export it, if the environment asks for it.

    Returns:
        Function that exports what is left and stops.

    Raises:
        MissingExtraError: The extra [otel] is not installed.
    """
    if not wanted():
        return lambda: None
    try:
        sdk = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        resource = import_module("opentelemetry.sdk.resources").Resource
        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
        instrumentor = import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    except ModuleNotFoundError as error:
        feature = f"the export of traces that OTEL_* variables ask for (it lacks {error.name})"
        raise MissingExtraError(feature, "otel") from error
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE), "service.version": __version__}
    provider = sdk.TracerProvider(resource=resource.create(named))
    provider.add_span_processor(export.BatchSpanProcessor(exporter()))
    excluded = os.environ.get("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", _NOT_TRACED)
    instrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=excluded, exclude_spans=["receive", "send"]
    )
    stop: Callable[[], None] = provider.shutdown
    return stop
