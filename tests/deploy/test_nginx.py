"""deploy/nginx.conf in a real nginx, before a real server."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
from contextlib import contextmanager, suppress

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from helpers.deploy import DEPLOY, free_port, needs
from helpers.servers import PATIENCE, eventually, running
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.serve.settings import Limits, ServeSettings

pytestmark = needs("nginx")

MAIN = """
daemon off; pid nginx.pid; error_log stderr error; events {{}}
{user}
http {{
    access_log off; include server.conf;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
}}
"""


@contextmanager
def nginx(upstream, folder):
    """An nginx with the file before `upstream`; a client for it."""
    port, text = free_port(), (DEPLOY / "nginx.conf").read_text()
    for old, new in (("127.0.0.1:8000", upstream), ("listen 8080", f"listen 127.0.0.1:{port}")):
        assert old in text
        text = text.replace(old, new)
    (folder / "server.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(user="user root;" if os.getuid() == 0 else ""))
    process = subprocess.Popen(["nginx", "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"])

    def listens():
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def server(model):
    with running(model) as server:
        yield server


@pytest.fixture
def proxy(server, tmp_path):
    with nginx(server.address.removeprefix("http://"), tmp_path) as client:
        yield client


def logged_clients(caplog):
    return [record.fields["client"] for record in caplog.records if record.getMessage() == "request"]


def test_requests_pass_with_their_id_and_the_address_of_the_client(proxy, caplog):
    video = DEMO_VIDEO.read_bytes()
    with caplog.at_level("INFO", "xclip_runtime.serve"):
        forged = {"X-Request-ID": "my-id", "X-Forwarded-For": "203.0.113.9"}
        reply = proxy.post("/v1/classify", content=video, headers=forged)
        unsafe = proxy.post("/v1/classify", content=video, headers={"X-Request-ID": "a b"})
        eventually(lambda: len(logged_clients(caplog)) == 2)

    assert reply.json()["labels"][0]["label"] == expected_label()
    assert reply.headers["x-request-id"] == "my-id"
    assert len(unsafe.headers["x-request-id"]) == 32
    assert logged_clients(caplog) == ["127.0.0.1", "127.0.0.1"]


def test_clients_are_told_apart_behind_the_proxy(model, tmp_path, caplog):
    """Another loopback address stands for another machine."""
    with running(model) as server, nginx(server.address.removeprefix("http://"), tmp_path) as proxy:
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with caplog.at_level("INFO", "xclip_runtime.serve"), httpx.Client(transport=transport) as client:
            client.get(f"http://{proxy.base_url.host}:{proxy.base_url.port}/v1/info")
            eventually(lambda: logged_clients(caplog) == ["127.0.0.2"])


def test_errors_of_the_server_pass_unchanged(proxy):
    reply = proxy.post("/v1/classify", content=b"no video", headers={"X-Request-ID": "my-id"})

    assert reply.status_code == 422
    assert reply.json()["error"]["request_id"] == "my-id"


@pytest.mark.parametrize("path", ["/v1/classify", "/v2/models/xclip_video/infer"])
def test_a_body_over_the_limit_is_refused_with_json(proxy, path):
    host, port = proxy.base_url.host, proxy.base_url.port
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: my-id\r\nContent-Length: {257 << 20}\r\n\r\n"
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        reply = b""
        while b"}" not in reply:
            reply += connection.recv(1000)
    head, _, body = reply.decode().partition("\r\n\r\n")
    error = json.loads(body)["error"]

    assert head.startswith("HTTP/1.1 413")
    assert "content-type: application/json" in head.lower()
    assert "x-request-id: my-id" in head.lower()
    if path.startswith("/v2"):
        assert error == "request body exceeds 256 MiB: send a shorter part"
    else:
        assert (error["type"], error["request_id"]) == ("UploadTooLargeError", "my-id")


def test_a_server_that_is_gone_is_told_with_json(tmp_path):
    with nginx(f"127.0.0.1:{free_port()}", tmp_path) as proxy:
        v1, v2 = (proxy.get(path, headers={"X-Request-ID": "my-id"}) for path in ("/v1/info", "/v2"))

    for reply in (v1, v2):
        assert reply.status_code == 502
        assert reply.headers["content-type"] == "application/json"
        assert (reply.headers["x-request-id"], reply.headers["retry-after"]) == ("my-id", "5")
    assert v1.json()["error"]["request_id"] == "my-id"
    assert isinstance(v2.json()["error"], str)


def test_a_camera_passes(proxy):
    address = f"ws://{proxy.base_url.host}:{proxy.base_url.port}"
    image = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    with connect(f"{address}/v1/live", origin=address.replace("ws", "http")) as socket:
        socket.send(json.dumps({"window": 0.1, "hop": 0.1}))
        assert json.loads(socket.recv(PATIENCE)) == {"type": "ready"}
        answer, sent = None, itertools.count()
        while answer is None:
            socket.send(np.float64(0.1 * next(sent)).tobytes() + image)
            with suppress(TimeoutError):
                answer = json.loads(socket.recv(0.05))

    assert answer["type"] == "window"


def test_its_limits_are_those_of_the_server():
    text = (DEPLOY / "nginx.conf").read_text()

    assert f"client_max_body_size {Limits().upload >> 20}m;" in text
    assert f"exceeds {Limits().upload >> 20} MiB" in text
    assert "proxy_read_timeout 90s;" in text
    assert ServeSettings().request_timeout < 90
    assert "keepalive_timeout 20s;" in text
    assert Limits().idle_timeout > 20
