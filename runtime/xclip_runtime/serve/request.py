"""One request from its admission to its answer: in its time, and only while its client is there."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from xclip_runtime.errors import DeadlineError
from xclip_runtime.serve.uploads import received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from starlette.requests import Request

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.uploads import Upload

Result = TypeVar("Result")

TIMEOUT_HEADER = "x-request-timeout"
"""Seconds that the client is willing to wait, when they are fewer than the server's."""


class ClientGoneError(Exception):
    """Nobody is there to take the answer."""


class Deadline:
    """The time that a request may take, from now on.

    Args:
        seconds: How long it may take in all.
    """

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter()
        self._seconds = seconds
        self._ends = self.begun + seconds

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request was let in."""
        return 1000 * (time.perf_counter() - self.begun)

    def shorten(self, seconds: float) -> None:
        """Take no longer than this in all."""
        if seconds < self._seconds:
            self._seconds, self._ends = seconds, self.begun + seconds

    async def within(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, if it comes in time.

        Raises:
            DeadlineError: It does not.
        """
        try:
            with anyio.fail_after(max(0.0, self._ends - time.perf_counter())):
                return await work
        except TimeoutError:
            message = f"the request took longer than {self._seconds:g} s: try again later, or send a shorter video"
            raise DeadlineError(message) from None


class Visit(Deadline):
    """A request over HTTP that has been let in.

    Args:
        request: Whose it is.
        seconds: How long it may take in all.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(seconds)
        self.request = request

    async def while_connected(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, stopped when the client goes or its time is over. The body must have been read.

        Raises:
            ClientGoneError: The client has closed the connection.
            DeadlineError: The time is over.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._disconnected())
        try:
            await self.within(_first(working, leaving))
            if working.done():
                return working.result()
            raise ClientGoneError
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _disconnected(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


@asynccontextmanager
async def admitted(engine: Engine, request: Request) -> AsyncIterator[Visit]:
    """Let a request in.

    Raises:
        OverloadedError: There is no place for it.
    """
    with engine.admitted():
        yield Visit(request, min(engine.settings.deadline, _asked_for(request)))


@asynccontextmanager
async def uploaded(engine: Engine, request: Request) -> AsyncIterator[tuple[Visit, Upload]]:
    """Let a request in and take its body; what it brought is gone when the context ends.

    Raises:
        OverloadedError: There is no place for it.
        DeadlineError: Its time is over before its body is here.
        UploadTooLargeError: The body is over the limit.
        VideoDecodeError: The body is no video.
    """
    async with admitted(engine, request) as visit:
        body = received(request, engine.scratch)
        upload = await visit.within(body.__aenter__())
        try:
            yield visit, upload
        finally:
            await body.__aexit__(None, None, None)


def _asked_for(request: Request) -> float:
    try:
        seconds = float(request.headers.get(TIMEOUT_HEADER, "inf"))
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf


async def _first(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
