"""Behaviour that operators rely on: reload, drain, systemd, metrics, TLS, variables."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from helpers.servers import PATIENCE, Gate, eventually, in_background, in_thread, metric, process, running
from xclip_runtime.cli.serve import command
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.serve.server import Server
from xclip_runtime.serve.settings import Limits, ServeSettings

VIDEO = DEMO_VIDEO.read_bytes()


def test_a_service_reloads_drains_and_tells_systemd(tmp_path):
    file = tmp_path / "keys"
    file.write_text("ci:one\n")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(PATIENCE)
    options = ("--api-keys", str(file), "--metrics-port", "0", "--drain-delay", "60")
    with process(*options, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as (server, address):
        metrics = next(json.loads(line)["metrics"] for line in server.seen if "metrics" in line)
        log = iter(server.stderr.readline, "")
        client = httpx.Client(base_url=address, headers={"X-API-Key": "one"}, timeout=PATIENCE)
        assert told.recv(100) == b"READY=1"

        assert client.get("/metrics").status_code == 404
        assert "xclip_info" in httpx.get(f"{metrics}/metrics", timeout=PATIENCE).text
        assert httpx.get(f"{metrics}/healthz", timeout=PATIENCE).status_code == 200
        assert httpx.get(f"{metrics}/v1/info", headers=client.headers, timeout=PATIENCE).status_code == 404

        def upload():
            yield VIDEO[:1000]
            assert reloaded.wait(PATIENCE)
            yield VIDEO[1000:]

        reloaded = threading.Event()
        answer = in_background(lambda: client.post("/v1/classify", content=upload()))
        in_flight = "xclip_requests_in_flight 1.0"
        eventually(lambda: in_flight in httpx.get(f"{metrics}/metrics", timeout=PATIENCE).text)
        file.write_text("# none is left\n")
        server.send_signal(signal.SIGHUP)
        assert any("holds no key" in line for line in log)
        # Now the bundle is reloaded, and the second signal waits.
        file.write_text("ci:two\n")
        server.send_signal(signal.SIGHUP)
        assert any('"reloaded"' in line for line in log)
        assert any('"reloaded"' in line for line in log)
        assert told.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        reloaded.set()
        assert answer().json()["labels"][0]["label"] == expected_label()
        assert client.get("/v1/info").status_code == 401
        client.headers["X-API-Key"] = "two"
        assert client.get("/v1/info").status_code == 200

        server.send_signal(signal.SIGTERM)
        assert any('"stopping"' in line for line in log)
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/v1/classify", content=VIDEO).status_code == 200
        client.close()
        server.send_signal(signal.SIGTERM)
        rest = server.communicate(timeout=PATIENCE)[1]
        states = [told.recv(100) for _ in range(4)]

    told.close()
    assert server.returncode == 0
    assert "Traceback" not in rest
    assert states[-1] == b"STOPPING=1"


def make_certificate(cert, key):
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True)


def test_a_reload_takes_what_it_can_and_a_stop_waits_for_no_idle_client(tmp_path):
    keys, cert, key = tmp_path / "keys", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    keys.write_text("one\n")
    make_certificate(cert, key)
    options = ("--api-keys", str(keys), "--tls-cert", cert, "--tls-key", key, "--grpc-port", "0")
    with process(*options) as (server, address):
        [grpc_address] = [json.loads(line)["grpc"] for line in server.seen if '"listening"' in line]
        log = iter(server.stderr.readline, "")
        make_certificate(cert, key)
        keys.write_text("# none is left\n")
        server.send_signal(signal.SIGHUP)
        assert any("holds no key" in line for line in log)
        assert any('"reloaded"' in line for line in log)

        trusted = Path(cert).read_bytes()
        with (
            httpx.Client(verify=ssl.create_default_context(cafile=cert)) as client,
            grpc.secure_channel(grpc_address, grpc.ssl_channel_credentials(trusted)) as channel,
        ):
            assert client.get(f"{address}/v1/info").status_code == 401
            assert client.get(f"{address}/v1/info", headers={"X-API-Key": "one"}).status_code == 200
            watched = HealthStub(channel).Watch(HealthCheckRequest())
            assert next(watched).status == HealthCheckResponse.SERVING
            server.send_signal(signal.SIGTERM)
            # TLS would wait 30 s for a goodbye, and gRPC a minute for the end of the stream.
            server.communicate(timeout=25)

    assert server.returncode == 0


def test_every_series_is_there_before_its_first_event(server):
    text = server.client.get("/metrics").text

    for endpoint in ("/v1/classify", "/v2/models/{model}/infer", "/healthz"):
        for code, outcome in ((200, "ok"), (503, "overloaded"), (503, "starting"), (429, "limited"), (500, "error")):
            assert f'xclip_requests_total{{code="{code}",endpoint="{endpoint}",outcome="{outcome}"}}' in text
    for reason in ("crashed", "timeout", "cancelled", "idle"):
        assert f'xclip_decode_worker_restarts_total{{reason="{reason}"}}' in text
    assert metric(server, "xclip_connections") >= 1


def test_starting_and_probes_are_no_overload(model):
    gate = Gate(model)
    with running(gate.model, queue=1, unready_when_full=True) as server, gate.closed():
        answer = in_background(lambda: server.classify(DEMO_VIDEO))
        eventually(lambda: server.engine.in_flight == 1)
        assert server.client.get("/v2/health/ready").status_code == 503
        assert server.client.get("/healthz").status_code == 200
        gate.opened.set()
        assert answer().status_code == 200
        server.engine.started.clear()
        assert server.classify(DEMO_VIDEO).status_code == 503

        assert server.client.get("/v2/health/ready").status_code == 503
        assert metric(server, "xclip_requests_total", outcome="starting", endpoint="/v1/classify") == 1
        assert metric(server, "xclip_requests_total", outcome="not_ready", endpoint="/v2/health/ready") == 2
        overloads = re.findall(r'xclip_requests_total\{.*"overloaded"\} (\S+)', server.client.get("/metrics").text)
        assert set(overloads) == {"0.0"}


def test_a_client_is_limited_by_its_key_and_another_is_not(model, caplog):
    gate = Gate(model)
    settings = {"client_limit": 1, "api_keys": ("a:one", "two"), "grpc_port": 0}
    with running(gate.model, **settings) as server, gate.closed():
        first = in_background(lambda: server.classify(DEMO_VIDEO, headers={"X-API-Key": "one"}))
        eventually(lambda: server.engine.in_flight == 1)
        refused = server.client.get("/v1/info", headers={"Authorization": "Bearer one"})
        other = server.client.get("/v1/info", headers={"X-API-Key": "two"})
        with (
            InferenceServerClient(server.server.grpc_address) as client,
            pytest.raises(InferenceServerException, match="send fewer at once"),
        ):
            client.get_server_metadata(headers={"x-api-key": "one"})
        with caplog.at_level("INFO", "xclip_runtime.serve"):
            gate.opened.set()
            assert first().status_code == 200
            eventually(lambda: "a" in {getattr(record, "fields", {}).get("key") for record in caplog.records})

    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "ClientLimitError")
    assert int(refused.headers["retry-after"]) > 0
    assert other.status_code == 200


@pytest.mark.parametrize("given", ["-1", "0", "nan", "soon", ""])
def test_a_timeout_that_is_no_time_is_refused(server, given):
    reply = server.client.post("/v1/classify", content=VIDEO, headers={"X-Request-Timeout": given})

    assert reply.status_code == 400
    assert "X-Request-Timeout" in reply.json()["error"]["message"]


def test_clients_that_never_begin_their_tls_handshake_keep_nobody_out(model, tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    make_certificate(cert, key)
    settings = ServeSettings(decode_workers=1, limits=Limits(connections=16))
    server = Server(model, settings, port=0, tls=(cert, key))
    trusted = ssl.create_default_context(cafile=cert)
    with in_thread(server, verify=trusted), ExitStack() as silent:
        host, port = server.address.removeprefix("https://").split(":")
        for _ in range(60):
            silent.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
        for _ in range(3):
            assert httpx.get(f"{server.address}/healthz", verify=trusted, timeout=PATIENCE).status_code == 200
            assert httpx.get(f"{server.address}/v1/info", verify=trusted, timeout=PATIENCE).status_code == 200


def test_a_certificate_gives_https_and_a_root_path_is_known(model, tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    make_certificate(cert, key)
    settings = ServeSettings(decode_workers=1)
    server = Server(model, settings, port=0, grpc_port=0, tls=(cert, key), root_path="/video")
    with in_thread(server, verify=ssl.create_default_context(cafile=cert)) as client:
        assert server.address.startswith("https://")
        assert client.get("/healthz").status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/video"}]
        assert client.get("/v2/nothing").json() == {"error": "Not Found"}
        credentials = grpc.ssl_channel_credentials(Path(cert).read_bytes())
        with grpc.secure_channel(server.grpc_address, credentials) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)

    with pytest.raises(OSError, match="TLS certificate and key"):
        Server(model, settings, port=0, tls=(key, cert))


def test_every_option_can_be_set_by_a_variable_of_its_name(monkeypatch):
    values = {"PORT": "1", "GRPC_PORT": "2", "LOG_LEVEL": "error", "UNREADY_WHEN_FULL": "1", "THREADS": "3"}
    values |= {"API_KEYS_FILE": "f", "INDEX": "i", "BUNDLE": "b", "PROVIDER_OPTION": "a=1 b=2"}
    for name, value in values.items():
        monkeypatch.setenv(f"XCLIP_ONNX_{name}", value)

    params = command.make_context("serve", []).params

    named = ("port", "grpc_port", "log_level", "unready_when_full", "threads", "api_keys", "folder")
    assert [params[name] for name in named] == [1, 2, "error", True, 3, "f", "i"]
    assert params["provider_options"] == {"a": "1", "b": "2"}
    assert command.make_context("serve", ["--port", "5"]).params["port"] == 5
