"""Connections: how many there may be, and for how long without a request."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager

import grpc
import httpx
import pytest

from helpers.servers import PATIENCE, Gate, eventually, in_thread, metric, process, running
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.serve.connections import connection_limit, raise_file_limit
from xclip_runtime.serve.inference_protocol.rpc import SERVICE
from xclip_runtime.serve.server import Server
from xclip_runtime.serve.settings import Limits, ServeSettings

VIDEO = DEMO_VIDEO.read_bytes()
HEAD = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(VIDEO)}\r\n\r\n".encode()


def connect(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def read_all(connection):
    received = b""
    while part := connection.recv(1 << 16):
        received += part
    return received


@contextmanager
def idle(address, count):
    """Connections that say nothing."""
    with ExitStack() as opened:
        yield [opened.enter_context(connect(address)) for _ in range(count)]


def closed(connection):
    connection.settimeout(PATIENCE)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_400_idle_connections_to_a_process_of_256_files_keep_nobody_out():
    with process(prefix=("prlimit", "--nofile=256"), env={"XCLIP_ONNX_HEADER_TIMEOUT": "1"}) as (server, address):
        with idle(address, 400) as connections:
            for path in ("/healthz", "/v2/health/ready", "/v1/info"):
                assert httpx.get(f"{address}{path}", timeout=PATIENCE).status_code == 200
            reply = httpx.post(f"{address}/v1/classify", content=VIDEO, timeout=PATIENCE)
            assert reply.json()["labels"][0]["label"] == expected_label()
            assert all(closed(connection) for connection in connections)
        server.terminate()
        log = server.communicate(timeout=PATIENCE)[1]

    assert server.returncode == 0
    assert len(log) < 20_000


@pytest.mark.parametrize(("files", "ports", "expected"), [(20_000, 2, 512), (256, 1, 104), (256, 2, 52), (64, 1, 16)])
def test_connections_leave_files_for_everything_else(monkeypatch, caplog, files, ports, expected):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))

    assert connection_limit(ServeSettings(decode_workers=1), ports) == expected
    assert ("fewer connections" in caplog.text) is (expected < 512)


def test_a_process_opens_as_many_files_as_it_may(monkeypatch):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524_288))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))

    raise_file_limit()

    assert raised == [(65_536, 524_288)]


@pytest.fixture(scope="module")
def hurried(model):
    with running(model, limits=Limits(header_timeout=0.5, idle_timeout=0.3), request_timeout=0.5) as server:
        yield server


@pytest.fixture(scope="module")
def gate(model):
    return Gate(model)


@pytest.fixture(scope="module")
def small(gate):
    with running(gate.model, limits=Limits(connections=4, live_connections=1)) as server:
        yield server


def test_a_header_is_awaited_so_long_however_it_trickles(hurried):
    beginnings = (
        b"",
        b"POST /v1/classify HTT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nfew",
    )
    with idle(hurried.address, len(beginnings)) as connections:
        for connection, sent in zip(connections, beginnings, strict=True):
            connection.sendall(sent)
        left = set(connections)
        give_up = time.monotonic() + PATIENCE
        while left:
            assert time.monotonic() < give_up
            for connection in [*left]:
                try:
                    connection.sendall(b"x")
                except OSError:
                    left.discard(connection)
            time.sleep(0.05)

    assert metric(hurried, "xclip_connections_closed_total", reason="header") == len(beginnings)


def test_a_connection_is_kept_for_the_next_request_so_long(hurried):
    with connect(hurried.address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")

        assert b"live" in read_all(connection)


def test_a_client_that_does_not_read_is_given_up(hurried):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = hurried.address.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.settimeout(PATIENCE)
        with pytest.raises(ConnectionError):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)

    assert metric(hurried, "xclip_connections_closed_total", reason="stalled") == 1


def test_a_client_that_reads_slowly_gets_all(model, tmp_path):
    size = 8 << 20
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(size))
    with running(model, request_timeout=1.5) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        host, port = server.address.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.settimeout(PATIENCE)
        path = server.engine.hit_media.path_of(str(film))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = 0
        while part := connection.recv(1 << 16):
            received += len(part)
            time.sleep(0.05)

    assert received > size


def test_where_all_connections_are_busy_others_get_503_and_health_answers(small, gate):
    with gate.closed(), idle(small.address, 4) as busy:
        for connection in busy:
            connection.sendall(HEAD + VIDEO)
        eventually(lambda: small.engine.in_flight == 4)

        refused = httpx.get(f"{small.address}/v1/info", timeout=PATIENCE)
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "OverloadedError"
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{small.address}/healthz", timeout=PATIENCE).status_code == 200
        gate.opened.set()

        assert all(connection.recv(20).startswith(b"HTTP/1.1 200") for connection in busy)


POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"0\r\n\r\nGET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        POST + CHUNKED + b"Content-Length: 5\r\n\r\n" + NEXT,
        POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + NEXT,
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + NEXT,
        POST + b"Content-Length: +5\r\n\r\n" + NEXT,
        POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + NEXT,
        POST + b"Host: y\r\n\r\n" + NEXT,
        *(
            b"GET /v1/info HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
            for host in [
                b"[::1",
                b"::1]",
                b"[::1]x",
                b"localhost:8000@evil",
                b"evil@localhost",
                b"x/y",
                b"x:port",
                b"x y",
            ]
        ),
    ],
)
def test_what_is_not_http_is_refused_as_json_and_counted(small, request_bytes):
    before = metric(small, "xclip_connections_closed_total", reason="malformed")
    with connect(small.address) as connection:
        connection.sendall(request_bytes)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    error = json.loads(body)["error"]
    assert error["type"] == "RequestError"
    assert error["request_id"] in head.decode()
    assert metric(small, "xclip_connections_closed_total", reason="malformed") == before + 1


def test_an_idle_connection_makes_room_for_a_new_one_and_the_oldest_goes_first(small):
    before = metric(small, "xclip_connections_closed_total", reason="idle")
    with idle(small.address, 4) as connections:
        assert closed(connections[0])
        assert httpx.get(f"{small.address}/v1/info", timeout=PATIENCE).status_code == 200

    assert metric(small, "xclip_connections_closed_total", reason="idle") > before


def test_silent_websockets_are_counted_and_refused_beyond_a_limit(small):
    ask = (
        b"GET /v1/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with idle(small.address, 3) as connections:
        replies = []
        for connection in connections:
            connection.sendall(ask)
            replies.append(connection.recv(4096).split(b"\r\n")[0])

    assert replies == [b"HTTP/1.1 101 Switching Protocols"] * 2 + [b"HTTP/1.1 503 Service Unavailable"]


def test_a_client_that_has_closed_its_sending_side_gets_its_answer(server):
    with connect(server.address) as connection:
        connection.sendall(HEAD + VIDEO)
        connection.shutdown(socket.SHUT_WR)
        reply = read_all(connection)

    assert b"HTTP/1.1 200 OK" in reply
    assert expected_label().encode() in reply


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_client_that_has_left_is_noticed_while_its_video_waits(small, gate, how):
    with gate.closed():
        with connect(small.address) as connection:
            connection.sendall(HEAD + VIDEO)
            eventually(lambda: small.engine.in_flight == 1)
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        eventually(lambda: small.engine.in_flight == 0)


def test_answers_are_sent_without_delay(server):
    with connect(server.address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(4096)
        [sides] = [
            c.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for c in server.server.server_state.connections
            if c.client == connection.getsockname()
        ]

    assert sides != 0


def test_a_unix_socket_serves_and_goes_with_the_server(model, tmp_path):
    path = tmp_path / "serve.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))  # As a killed server leaves it.
    left.close()
    server = Server(model, ServeSettings(decode_workers=1), uds=str(path))
    with in_thread(server, transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("/healthz").status_code == 200
        assert server.address == f"unix:{path}"
        with pytest.raises(OSError, match="Address already in use"):
            Server(model, ServeSettings(decode_workers=1), uds=str(path))

    assert not os.path.lexists(path)


def test_a_proxy_on_a_unix_socket_tells_its_clients_apart(model, tmp_path):
    path = str(tmp_path / "serve.sock")
    server = Server(model, ServeSettings(decode_workers=1, client_limit=1), uds=path)
    with in_thread(server, transport=httpx.HTTPTransport(uds=path)) as client, server.engine.clients.place("10.0.0.1"):
        statuses = [client.get("/v1/info", headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in (1, 2)]

    assert statuses == [429, 200]


def test_connections_of_grpc_are_as_few_and_as_short(model):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    limits = Limits(connections=2, header_timeout=0.5, idle_timeout=1.0)
    with running(model, grpc_port=0, limits=limits, request_timeout=0.5) as server:
        with idle(server.server.grpc_address, 2) as silent:
            assert all(read_all(connection) is not None for connection in silent)
        with idle(server.server.grpc_address, 3) as connections:
            for connection in connections:
                connection.sendall(preface)
            assert all(read_all(connection) is not None for connection in connections)

        over = threading.Event()
        with grpc.insecure_channel(server.server.grpc_address) as channel:
            call = channel.stream_unary(f"/{SERVICE}/ModelReady")
            with pytest.raises(grpc.RpcError) as refused:
                call(iter(over.wait, None))
            over.set()

    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
