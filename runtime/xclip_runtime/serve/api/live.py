"""/v1/live: frames of a camera in, labels of its windows out, over a WebSocket.

The client opens with a JSON text of `LiveOptions`, then sends each frame as bytes: its time in seconds, 0 to
`MAX_TIME`, as little-endian float64, and a JPEG, PNG or WebP. A JSON text of `LabelChange` replaces the label set. The
server sends JSON texts: {"type": "ready"}, then {"type": "window", …} with the fields of
`xclip_runtime.results.WindowResult`, and {"type": "error", "message": …} before it closes the connection. If the
model is slower than the camera, the newest frame and the newest window win; `dropped_frames` counts the frames that
were replaced before they were decoded.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from xclip_runtime.errors import DeadlineError, FramesError, UnauthorizedError, UploadTooLargeError
from xclip_runtime.inference.cached_frames import Reuse
from xclip_runtime.serve.api.schemas import LabelChange, LiveOptions
from xclip_runtime.serve.api_keys import key_in
from xclip_runtime.serve.error_responses import INTERNAL, describe, first_problem
from xclip_runtime.streaming.events import Smoother
from xclip_runtime.streaming.feed import Taken
from xclip_runtime.streaming.windowed_model import window_result

if TYPE_CHECKING:
    from xclip_runtime.inference.cached_frames import WindowEncoder
    from xclip_runtime.results import Encoding
    from xclip_runtime.serve.api_keys import ApiKeys
    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.served_model import EncodedVideo, ServedModel
    from xclip_runtime.serve.text_cache import LabelEmbeds
    from xclip_runtime.streaming.windows import Window

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Message = TypeVar("Message", LabelChange, LiveOptions)

TIMESTAMP = struct.Struct("<d")
MAX_TIME = 1e10
"""Largest time of a frame, seconds: far beyond any clock, and small enough for float64 to hold every window's start."""
MAX_TEXT_BYTES = 2 << 20
"""Maximum size of a JSON message, bytes."""
IDLE_SECONDS = 30.0
"""Seconds without a message after which a connection is closed."""

_INVALID_DATA = 1007
# Close codes by HTTP status: policy violation, internal error, try again later.
_CODES = {401: 1008, 504: 1008, INTERNAL: 1011, 503: 1013}


class Latest(Generic[Item]):
    """A queue of one place, in which a newer item replaces an older one."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._arrived = asyncio.Event()
        self._dropped = 0

    def put(self, item: Item) -> None:
        """Put an item."""
        self._dropped += len(self._items)
        self._items = [item]
        self._arrived.set()

    async def take(self) -> Item:
        """Wait for an item and take it."""
        await self._arrived.wait()
        self._arrived.clear()
        return self._items.pop()

    def take_dropped(self) -> int:
        """Return the number of items replaced since the previous call."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class Connection:
    """The connection of one camera.

    Args:
        engine: The engine.
        served: The model.
        socket: The accepted WebSocket.
        options: First message of the client.
        encoder: Encoder of the windows from cached frames, or None to compute all.

    Raises:
        FramesError: The model cannot cut such windows.
    """

    def __init__(
        self,
        engine: Engine,
        served: ServedModel,
        socket: WebSocket,
        options: LiveOptions,
        *,
        encoder: WindowEncoder | None = None,
    ) -> None:
        self._engine = engine
        self._served = served
        self._socket = socket
        self._options = options
        self._smoother = Smoother(options.smooth)
        try:
            self._window_feed = served.model.windows(
                options.window, options.hop, ends_after=math.inf, reuse=options.reuse
            )
        except ValueError as error:
            raise FramesError(str(error)) from error
        self._labels: LabelEmbeds | None = None
        self._changes: Latest[LabelChange] = Latest()
        self._changes.put(options)
        self._encoder = encoder
        self._frames: Latest[tuple[float, bytes]] = Latest()
        self._windows: Latest[Window] = Latest()

    async def run(self) -> None:
        """Serve the connection until it ends.

        Raises:
            WebSocketDisconnect: The client has closed it.
            XClipError: A frame or a label set is invalid.
            ValidationError: A message is invalid.
            DeadlineError: The client has sent nothing for `IDLE_SECONDS`.
        """
        parts = (self._receive, self._relabel, self._prepare, self._classify)
        tasks = [asyncio.ensure_future(work()) for work in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        try:
            if failures:
                raise failures[0]
        finally:
            # An exception refers to this frame: a cycle with all frames of the camera, which nothing frees for long.
            del tasks, outcomes, failures

    async def _receive(self) -> None:
        while True:
            message = await _receive(self._socket)
            if isinstance(message, str):
                self._changes.put(await _parse(LabelChange, message))
            else:
                self._frames.put(_parse_frame(message))

    async def _relabel(self) -> None:
        while True:
            change = await self._changes.take()
            labels = await self._served.labels(change.labels, change.texts)
            if self._labels is None:
                await self._socket.send_json({"type": "ready"})
            self._labels, self._smoother = labels, Smoother(self._options.smooth)

    async def _prepare(self) -> None:
        while True:
            timestamp, encoded = await self._frames.take()
            async with self._engine.live_frames:
                frame = await self._engine.pool.image(encoded, "the frame")
            for window in await asyncio.to_thread(self._window_feed.push, frame, timestamp):
                self._windows.put(window)

    async def _classify(self) -> None:
        while True:
            window = await self._windows.take()
            if self._labels is None:
                continue
            async with self._served.live_windows:
                video, encoding = await self._encode(window)
            labels, smoother = self._labels, self._smoother
            logits, _ = await self._served.score(video, labels)
            taken = Taken(window, self._windows.take_dropped(), self._frames.take_dropped())
            top_k, model = self._options.top_k, self._served.model
            result = window_result(model, labels.names, taken, logits[0], smoother, top_k=top_k, encoding=encoding)
            await self._socket.send_json({"type": "window", **result.to_dict()})

    async def _encode(self, window: Window) -> tuple[EncodedVideo, Encoding | None]:
        if self._encoder is None:
            return await self._served.encode_frames(window.frames[None]), None
        return await self._served.encode_window(self._encoder, window)


def router(engine: Engine, keys: ApiKeys) -> APIRouter:
    """Return the route of /v1/live, whose clients send their key in a header, or as browsers in the first message."""
    routes = APIRouter()

    @routes.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        start = time.perf_counter()
        try:
            with engine.metrics.live_connections.track_inprogress():
                await serve(socket)
        except WebSocketDisconnect:
            pass
        except ValidationError as error:
            await _close(socket, _INVALID_DATA, first_problem(error))
        except Exception as error:  # noqa: BLE001 - logged, and told as over HTTP
            status, message = describe(error)
            await _close(socket, _CODES.get(status, _INVALID_DATA), message)
        finally:
            client = socket.client.host if socket.client else None
            fields = {"seconds": round(time.perf_counter() - start, 1), "client": client}
            logger.info("live connection closed", extra={"fields": fields})

    async def serve(socket: WebSocket) -> None:
        first = await _receive(socket)
        if isinstance(first, bytes):
            message = "the first message is binary: send a JSON text of options, such as {}"
            raise FramesError(message)
        options = await _parse(LiveOptions, first)
        if not keys.accepts(options.api_key or key_in(socket.headers)):
            message = "missing or unknown API key: send it as api_key in the first message, or in a header as over HTTP"
            raise UnauthorizedError(message)
        with engine.live_connection(), engine.registry.use(options.model) as served:
            encoder = None
            if options.reuse:
                encoder = await asyncio.to_thread(served.model.window_encoder, Reuse(refresh=options.refresh))
            await Connection(engine, served, socket, options, encoder=encoder).run()

    return routes


async def _receive(socket: WebSocket) -> str | bytes:
    try:
        with anyio.fail_after(IDLE_SECONDS):
            message = await socket.receive()
    except TimeoutError:
        error = f"nothing received for {IDLE_SECONDS:g} s: send frames, or connect anew"
        raise DeadlineError(error) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text: str | None = message.get("text")
    if text is None:
        return message.get("bytes") or b""
    if len(text) > MAX_TEXT_BYTES:
        error = f"JSON message exceeds {MAX_TEXT_BYTES} bytes: send fewer or shorter texts"
        raise UploadTooLargeError(error)
    return text


async def _parse(kind: type[Message], text: str) -> Message:
    # Off the event loop, as it takes longer the larger the message is.
    return await asyncio.to_thread(kind.model_validate_json, text, strict=True)


def _parse_frame(message: bytes) -> tuple[float, bytes]:
    if len(message) <= TIMESTAMP.size:
        error = "message too short: a frame is its time as float64, then a JPEG"
        raise FramesError(error)
    (timestamp,) = TIMESTAMP.unpack_from(message)
    if not 0 <= timestamp <= MAX_TIME:
        error = f"the frame's time is {timestamp:g}: send seconds from 0 to {MAX_TIME:g}"
        raise FramesError(error)
    return timestamp, message[TIMESTAMP.size :]


async def _close(socket: WebSocket, code: int, message: str) -> None:
    document: dict[str, Any] = {"type": "error", "message": message}
    try:
        await socket.send_json(document)
        await socket.close(code)
    except (RuntimeError, WebSocketDisconnect):
        # The client has closed the connection in the meantime.
        return
