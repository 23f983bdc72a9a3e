"""Attacks on a server, each by one client and over within seconds: append functions with `@attack`."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import cv2
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from xclip_runtime.demo import DEMO_VIDEO

if TYPE_CHECKING:
    from collections.abc import Callable

VIDEO = DEMO_VIDEO.read_bytes()
PATIENCE = 60.0

ATTACKS: list[Callable[[Target], int | None]] = []
"""Each returns the status of its response, or None without one; none may be 500."""


@dataclass(frozen=True)
class Target:
    """Address of a server."""

    host: str
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def raw(self, sent: bytes, *, half_close: bool = False) -> int | None:
        """Send bytes; return the status of the first response that is final."""
        with self.connect() as connection:
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while (part := connection.recv(1 << 16)) and b"\r\n\r\n" not in received.removeprefix(b"HTTP/1.1 100"):
                received += part
        final = [head for head in (received + part).split(b"HTTP/1.1 ")[1:] if not head.startswith(b"100")]
        return int(final[0][:3]) if final else None

    def post(self, path: str, body: bytes | str = b"", **headers: str) -> int:
        """Send a request; return its status."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def infer(self, *, inputs: object, model: str = "xclip", **more: object) -> int:
        """Send a JSON request of the inference protocol."""
        return self.post(f"/v2/models/{model}/infer", json.dumps({"inputs": inputs, **more}))

    def live(self, options: dict[str, object] | bytes, *frames: bytes) -> None:
        """Send messages to /v1/live and leave without a goodbye."""
        with connect(f"ws://{self.host}:{self.port}/v1/live", open_timeout=PATIENCE, close_timeout=0.1) as live:
            live.send(options if isinstance(options, bytes) else json.dumps(options))
            for frame in frames:
                live.send(frame)
            with suppress(TimeoutError):
                while True:
                    live.recv(0.3)


def run(attack: Callable[[Target], int | None], target: Target) -> int | None:
    """Run an attack; that the server closes the connection, refuses a WebSocket or answers half is well."""
    with suppress(OSError, HTTPException, WebSocketException):
        return attack(target)
    return None


def attack(function: Callable[[Target], int | None]) -> Callable[[Target], int | None]:
    """Add an attack to the list."""
    ATTACKS.append(function)
    return function


def frame(seconds: float, size: int = 64) -> bytes:
    """Return a message of /v1/live."""
    picture = np.full((size, size, 3), int(time.time()) % 255, np.uint8)
    return struct.pack("<d", seconds) + cv2.imencode(".jpg", picture)[1].tobytes()


def tensor(shape: object, data: object, datatype: str = "UINT8", name: str = "pixel_values") -> dict[str, object]:
    """Return an input of the inference protocol."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


HEAD = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(VIDEO)}\r\n\r\n".encode()


@attack
def frame_at_the_end_of_time(target):
    target.live({"window": 2, "hop": 0.5}, frame(0.0), frame(1e300))


@attack
def windows_of_no_length(target):
    target.live({"window": 1e-12, "hop": 1e-12}, frame(0.0), frame(1.0), frame(2.0))


def camera(target, times, *, size=640, **options):
    """Show a camera, and leave without a goodbye."""
    with connect(f"ws://{target.host}:{target.port}/v1/live", open_timeout=PATIENCE, close_timeout=0.1) as live:
        live.send(json.dumps({"window": 1, "hop": 0.25, **options}))
        live.recv(PATIENCE)
        for seconds in times:
            live.send(frame(seconds, size))
            time.sleep(0.02)
        with suppress(TimeoutError):
            live.recv(1)
        live.socket.close()


@attack
def camera_that_leaves(target):
    camera(target, np.arange(0, 4, 0.1))


@attack
def camera_of_cached_frames(target):
    camera(target, np.arange(0, 4, 0.1), reuse=True)


@attack
def camera_whose_clock_jumps(target):
    camera(target, [0, 1e9] * 20, reuse=True)


@attack
def first_message_in_binary(target):
    target.live(b"\0" * 16)


@attack
def silent_websocket(target):
    with connect(f"ws://{target.host}:{target.port}/v1/live", open_timeout=PATIENCE, close_timeout=0.1):
        time.sleep(0.5)


@attack
def text_among_numbers(target):
    return target.infer(inputs=[tensor([1, 30_003], ["a" * 30_000, *[0] * 30_000])])


@attack
def empty_lists(target):
    return target.post("/v2/models/xclip/infer", b'{"inputs":[' + b"[]," * 1_000_000 + b"[]]}")


@attack
def nested_lists(target):
    return target.post("/v2/models/xclip/infer", b'{"inputs":' + b"[" * 200_000)


@attack
def many_outputs(target):
    outputs = [{"name": "logits_per_video"}] * 100_000
    return target.infer(inputs=[tensor([1], [0])], outputs=outputs)


@attack
def many_dimensions(target):
    return target.infer(inputs=[tensor([1] * 70, [0])])


@attack
def large_shape(target):
    return target.infer(inputs=[tensor([2**32, 2**32, 224, 224, 3], [0])])


@attack
def long_header_length(target):
    return target.post("/v2/models/xclip/infer", b"{}", Inference_Header_Content_Length="9" * 5000)


@attack
def empty_elements(target):
    described = [
        {"name": "video", "datatype": "BYTES", "shape": [500_000], "parameters": {"binary_data_size": 2_000_000}}
    ]
    head = json.dumps({"inputs": described}).encode()
    body = head + bytes(2_000_000)
    return target.post("/v2/models/xclip_video/infer", body, Inference_Header_Content_Length=str(len(head)))


@attack
def idle_connections(target):
    with ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(target.connect())
        time.sleep(0.5)


@attack
def slow_header(target):
    with target.connect() as connection:
        for byte in b"GET / HTTP/1.1\r\nHo":
            connection.sendall(bytes([byte]))
            time.sleep(0.02)


@attack
def upload_that_stops(target):
    with target.connect() as connection:
        connection.sendall(HEAD + VIDEO[:1000])
        time.sleep(0.5)


@attack
def client_that_leaves(target):
    with target.connect() as connection:
        connection.sendall(HEAD + VIDEO)
        time.sleep(random.uniform(0, 0.05))


@attack
def half_closed_post(target):
    status = target.raw(HEAD + VIDEO, half_close=True)
    assert status in (200, 503), status
    return status


@attack
def client_that_does_not_read(target):
    with target.connect() as connection:
        connection.settimeout(0.5)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000)


@attack
def foreign_host(target):
    return target.raw(b"GET /v1/info HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")


@attack
def path_with_a_new_line(target):
    return target.raw(b"GET /%0a12:00:00%20ready%1b[2J HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")


@attack
def no_http(target):
    return target.raw(random.randbytes(2000) + b"\r\n\r\n")


@attack
def long_header(target):
    return target.raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")


@attack
def many_texts_and_no_video(target):
    body = json.dumps({"texts": [f"a cat number {random.random()}" for _ in range(1000)]})
    return target.post("/v1/score", body, Content_Type="application/json")


@attack
def negative_timeout(target):
    return target.post("/v1/classify", VIDEO, X_Request_Timeout="-1")


@attack
def description_of_a_stream(target):
    sdp = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    return target.post("/v1/classify", b"\0\0\1\xba" + sdp + VIDEO[:100])


@attack
def playlist(target):
    return target.post("/v1/classify", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")


@attack
def damaged_video(target):
    damaged = bytearray(VIDEO)
    for _ in range(20):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    return target.post("/v1/classify", bytes(damaged[: random.randrange(100, len(damaged))]))
