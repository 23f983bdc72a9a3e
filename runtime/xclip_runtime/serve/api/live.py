"""/v1/live: pictures of a camera in, the labels of its last seconds out, over a WebSocket.

The client begins with a JSON text of :class:`LiveOptions`, then sends each picture as bytes: its time in seconds as a
little-endian float64, and a JPEG, PNG or WebP. A JSON text with ``labels`` or ``texts`` changes them at any time. The
server sends JSON texts: {"type": "ready"}, {"type": "window", …} for every answer, {"type": "error", "message": …}
before it closes. When pictures or windows come faster than they can be looked at, the newest wins.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import anyio
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from xclip_runtime.errors import FramesError, OverloadedError, XClipError
from xclip_runtime.inference.scoring import best_labels, softmax
from xclip_runtime.serve.api.schemas import LabelChange, LiveOptions
from xclip_runtime.serve.error_responses import first_problem
from xclip_runtime.serve.middleware import Keys
from xclip_runtime.streaming.events import Smoother

if TYPE_CHECKING:
    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.text_cache import LabelEmbeds
    from xclip_runtime.streaming.windows import Window

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TIME = struct.Struct("<d")
SILENCE_SECONDS = 30.0
"""Without a picture for so long, a session is over."""

_REFUSED = 1008
_UNREADABLE = 1007
_TRY_AGAIN = 1013


class Latest(Generic[Item]):
    """One place: a newer item takes the place of one that nobody has taken."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._arrived = asyncio.Event()
        self.dropped = 0
        """Items that were never taken."""

    def put(self, item: Item) -> None:
        """Offer an item."""
        self.dropped += len(self._items)
        self._items = [item]
        self._arrived.set()

    async def take(self) -> Item:
        """Wait for an item."""
        await self._arrived.wait()
        self._arrived.clear()
        return self._items.pop()


class Session:
    """One camera.

    Args:
        engine: What looks at it.
        socket: The connection, accepted.
        options: What the client began with.
        labels: What to score with.
    """

    def __init__(self, engine: Engine, socket: WebSocket, options: LiveOptions, labels: LabelEmbeds) -> None:
        self._engine = engine
        self._socket = socket
        self._options = options
        self._labels = labels
        self._smoother = Smoother(options.smooth)
        self._windows = engine.model.windows(options.window, options.hop)
        self._pictures: Latest[tuple[float, bytes]] = Latest()
        self._cut: Latest[Window] = Latest()

    async def run(self) -> None:
        """Until the client goes.

        Raises:
            WebSocketDisconnect: It has gone.
            XClipError: A picture or a label cannot be used.
            ValidationError: A message is none that is known.
        """
        tasks = [asyncio.ensure_future(work()) for work in (self._read, self._prepare, self._answer)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _read(self) -> None:
        while True:
            with anyio.fail_after(SILENCE_SECONDS):
                message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            if (text := message.get("text")) is not None:
                change = LabelChange.model_validate_json(text)
                self._labels = await self._engine.labels(change.labels, change.texts)
                self._smoother = Smoother(self._options.smooth)
            else:
                self._pictures.put(_timed(message["bytes"]))

    async def _prepare(self) -> None:
        while True:
            shown, encoded = await self._pictures.take()
            picture = await self._engine.pool.image(encoded, "the picture")
            for window in await asyncio.to_thread(self._windows.push, picture, shown):
                self._cut.put(window)

    async def _answer(self) -> None:
        dropped = 0
        while True:
            window = await self._cut.take()
            seen = await self._engine.see_frames(window.frames[None])
            labels, smoother = self._labels, self._smoother
            logits, _ = await self._engine.score(seen, labels)
            probs = smoother.update(softmax(logits[0]), window.end, anew=window.gap is not None)
            best = best_labels(labels.names, probs, logits[0], self._options.top_k)
            document = {
                "type": "window",
                "start": window.start,
                "end": window.end,
                "labels": [{"label": s.label, "prob": s.prob, "logit": s.logit} for s in best],
                "latency_ms": 1000 * (time.perf_counter() - window.arrived),
                "dropped_windows": self._cut.dropped - dropped,
                "dropped_pictures": self._pictures.dropped,
                "provider": self._engine.model.provider,
                "precision": self._engine.model.precision,
            }
            dropped = self._cut.dropped
            await self._socket.send_json(document)


def router(engine: Engine) -> APIRouter:
    """The route of /v1/live."""
    routes = APIRouter()
    keys = Keys(engine.settings.api_keys)
    sessions = engine.metrics.live_sessions

    @routes.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        if not _same_origin(socket):
            # Otherwise any page that someone visits could use their server.
            await socket.close(_REFUSED)
            return
        await socket.accept()
        begun = time.perf_counter()
        try:
            with sessions.track_inprogress():
                await begin(socket)
        except WebSocketDisconnect:
            pass
        except OverloadedError as error:
            await _end(socket, _TRY_AGAIN, str(error))
        except ValidationError as error:
            await _end(socket, _UNREADABLE, first_problem(error))
        except (XClipError, ValueError) as error:
            await _end(socket, _UNREADABLE, str(error))
        except TimeoutError:
            await _end(socket, _REFUSED, f"nothing came for {SILENCE_SECONDS:g} s")
        finally:
            client = socket.client.host if socket.client else None
            fields = {"seconds": round(time.perf_counter() - begun, 1), "client": client}
            logger.info("live session", extra={"fields": fields})

    async def begin(socket: WebSocket) -> None:
        with anyio.fail_after(SILENCE_SECONDS):
            text = await socket.receive_text()
        options = LiveOptions.model_validate_json(text)
        if not keys.fits(options.api_key):
            await _end(socket, _REFUSED, "this server needs a key: send it as api_key in the first message")
            return
        with engine.live_session():
            labels = await engine.labels(options.labels, options.texts)
            session = Session(engine, socket, options, labels)
            await socket.send_json({"type": "ready"})
            await session.run()

    return routes


def _timed(message: bytes) -> tuple[float, bytes]:
    if len(message) <= TIME.size:
        error = "a picture is its time as a float64 and a JPEG: this message is too short"
        raise FramesError(error)
    (shown,) = TIME.unpack_from(message)
    if not math.isfinite(shown):
        error = f"a picture is shown at {shown} s: give its time in seconds"
        raise FramesError(error)
    return shown, message[TIME.size :]


def _same_origin(socket: WebSocket) -> bool:
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")


async def _end(socket: WebSocket, code: int, message: str) -> None:
    document: dict[str, Any] = {"type": "error", "message": message}
    try:
        await socket.send_json(document)
        await socket.close(code)
    except (RuntimeError, WebSocketDisconnect):
        # It has gone in the meantime.
        return
