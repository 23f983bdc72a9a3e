"""Cameras for the tests: a synthetic one, and some that serve real streams over HTTP and RTSP on loopback."""

from __future__ import annotations

import fractions
import io
import socketserver
import struct
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from xclip_runtime.streaming.sources import StreamFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

FPS = 25
BOUNDARY = b"frame"


def grey(number: int) -> np.ndarray:
    """Frame whose brightness gives its number."""
    return np.full((96, 128, 3), 20 + number % 200, np.uint8)


def transport_stream(frames: int) -> list[bytes]:
    """MPEG-TS (H.264), one piece a frame."""
    return _encode(frames, "mpegts")


def elementary_stream(frames: int) -> list[bytes]:
    """H.264 with start codes, one piece a frame."""
    return _encode(frames, "h264")


def _encode(frames: int, container_format: str) -> list[bytes]:
    file, pieces = io.BytesIO(), []
    with av.open(file, "w", format=container_format) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"tune": "zerolatency", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.gop_size = 5
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(grey(number), "rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, FPS)
            container.mux(stream.encode(frame))
            pieces.append(file.getvalue())
            file.seek(0)
            file.truncate()
    return pieces


def multipart_jpeg(frames: int) -> list[bytes]:
    """Multipart JPEG, as network cameras send to browsers; it carries no times."""
    jpegs = [cv2.imencode(".jpg", grey(number))[1].tobytes() for number in range(frames)]
    head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    return [head % (BOUNDARY, len(jpeg)) + jpeg + b"\r\n" for jpeg in jpegs]


class Camera:
    """Serves a stream; connection c gets the first ``plan[c]`` frames, one every ``interval`` seconds.

    When the plan is at its end connections are refused. A negative number sends so many frames and then keeps silent.
    """

    def __init__(self, pieces: list[bytes], content_type: str, *, plan: list[int], interval: float) -> None:
        self._pieces = pieces
        self._content_type = content_type
        self._plan = plan
        self._interval = interval
        self.connections = 0
        self.closing = threading.Event()
        self.address = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        if self.connections >= len(self._plan):
            handler.send_error(503)
            return
        frames = self._plan[self.connections]
        self.connections += 1
        handler.send_response(200)
        handler.send_header("Content-Type", self._content_type)
        handler.end_headers()
        try:
            for piece in self._pieces[: abs(frames)]:
                handler.wfile.write(piece)
                if self.closing.wait(self._interval):
                    return
        except OSError:
            return
        if frames < 0:
            self.closing.wait()


@contextmanager
def serving(camera: Camera) -> Iterator[Camera]:
    """Serve on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            camera.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    camera.address = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield camera
    finally:
        camera.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def transport_camera(plan: list[int], interval: float = 0.01) -> Camera:
    """Faster than its own clock, so that the two cannot be mistaken."""
    return Camera(transport_stream(max(map(abs, plan))), "video/mp2t", plan=plan, interval=interval)


def jpeg_camera(plan: list[int], interval: float = 0.02) -> Camera:
    content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}"
    return Camera(multipart_jpeg(max(map(abs, plan))), content_type, plan=plan, interval=interval)


class _RtspConnection(socketserver.StreamRequestHandler):
    """An RTSP server (RFC 2326) that sends H.264 (RFC 6184) between its answers, as OpenCV asks for it."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, RtspServer)
        while request := self.rfile.readline().decode():
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, value = line.split(":", 1)
                headers[name.lower()] = value.strip()
            method = request.split()[0]
            if server.connections >= len(server.plan):
                return
            self._answer(method, headers["cseq"])
            if method == "PLAY":
                with suppress(OSError):
                    self._play(server)
                return

    def _answer(self, method: str, number: str) -> None:
        description = (
            "v=0\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
        )
        told, body = {
            "OPTIONS": ("Public: DESCRIBE, SETUP, PLAY, TEARDOWN", ""),
            "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Length: {len(description)}", description),
            "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1", ""),
        }.get(method, ("Session: 1", ""))
        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{told}\r\n\r\n{body}".encode())

    def _play(self, server: RtspServer) -> None:
        frames = server.plan[server.connections]
        server.connections += 1
        sequence = 0
        for number, piece in enumerate(server.pieces[:frames]):
            units = [unit.rstrip(b"\0") for unit in piece.split(b"\0\0\1")[1:]]
            for unit in units:
                last = 0x80 if unit is units[-1] else 0
                rtp = struct.pack(">BBHII", 0x80, last | 96, sequence, number * 90_000 // FPS, 1)
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp) + len(unit)) + rtp + unit)
                sequence += 1
            time.sleep(server.interval)


class RtspServer(socketserver.ThreadingTCPServer):
    """Connection c gets the first ``plan[c]`` frames; then there are no more."""

    daemon_threads = True

    def __init__(self, plan: list[int], interval: float = 0.01) -> None:
        super().__init__(("127.0.0.1", 0), _RtspConnection)
        self.plan = plan
        self.interval = interval
        self.pieces = elementary_stream(max(plan))
        self.connections = 0

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.server_address[1]}/camera"


@contextmanager
def rtsp_camera(plan: list[int]) -> Iterator[RtspServer]:
    """Serve on 127.0.0.1."""
    with RtspServer(plan) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class SyntheticSource:
    """Synthetic frames, as fast as they are taken, or one every ``interval`` seconds."""

    def __init__(self, frames: int, fps: float = 30.0, *, live: bool = False, interval: float = 0.0) -> None:
        self.live = live
        self.fps = fps
        self.duration = frames / fps
        self.converted = self.given = 0
        self._frames = frames
        self._interval = interval
        self._closed = False

    def __iter__(self) -> Iterator[StreamFrame]:
        for number in range(self._frames):
            if self._closed:
                return
            self.given += 1
            yield StreamFrame(number / self.fps, lambda number=number: self._to_rgb(number))
            if self._interval:
                time.sleep(self._interval)

    def _to_rgb(self, number: int) -> np.ndarray:
        self.converted += 1
        return grey(number)

    def close(self) -> None:
        self._closed = True
