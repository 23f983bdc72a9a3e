"""Traces over OTLP: spans arrive at a collector, and only where they are asked for."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from helpers.servers import running
from xclip_runtime.errors import MissingExtraError
from xclip_runtime.serve import telemetry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def collector():
    """A collector of OTLP over HTTP: its address, and what it gets."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_is_a_span_of_the_clients_trace_with_its_route(model, monkeypatch):
    with collector() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with running(model) as server:
            server.client.get("/v1/info", headers={"traceparent": PARENT})
            server.client.get("/healthz")

    resources = [resource for request in received for resource in request.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    [span] = [span for span in spans if span.name == "GET /v1/info"]
    assert span.trace_id.hex() == PARENT.split("-")[1]
    assert "xclip-onnx" in {attribute.value.string_value for attribute in resources[0].resource.attributes}
    assert not any("healthz" in span.name for span in spans)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_exported_only_if_a_variable_asks_for_it(monkeypatch, variables, wanted):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert telemetry.wanted() is wanted


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'xclip-onnx\[otel\]'"):
        telemetry.trace(FastAPI())
