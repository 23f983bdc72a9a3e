"""Request lifecycle: admission, deadline, disconnect."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_to_bytes

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation

from xclip_runtime.errors import DeadlineError
from xclip_runtime.serve.uploads import receive_upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.uploads import Upload

Result = TypeVar("Result")

_LISTS = ("labels", "texts")

TIMEOUT_HEADER = "x-request-timeout"
"""Client's own timeout, seconds, where it is shorter than the server's."""


class ClientGoneError(Exception):
    """The client has closed the connection."""


class Deadline:
    """Deadline of a request, counted from construction.

    Args:
        seconds: Time allowed in total.
    """

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter()
        self._seconds = seconds

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return 1000 * (time.perf_counter() - self.start)

    def shorten(self, seconds: float) -> None:
        """Allow at most `seconds` in total."""
        self._seconds = min(self._seconds, seconds)

    async def within(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await `work` until the deadline.

        Raises:
            DeadlineError: The deadline has passed.
        """
        try:
            with anyio.fail_after(max(0.0, self.start + self._seconds - time.perf_counter())):
                return await work
        except TimeoutError:
            message = f"request took longer than {self._seconds:g} s: try again later, or send a shorter video"
            raise DeadlineError(message) from None


class AdmittedRequest(Deadline):
    """An admitted HTTP request.

    Args:
        request: The request.
        seconds: Time allowed in total.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(seconds)
        self.request = request
        self.upload_ms = 0.0
        """Time to receive the body, milliseconds."""

    async def while_connected(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await `work`; cancel it when the client disconnects or the deadline passes. The body must have been read.

        Raises:
            ClientGoneError: The client has closed the connection.
            DeadlineError: The deadline has passed.
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


def check_query(request: Request) -> None:
    """Check that a query string is UTF-8 and names each option once, but lists.

    Raises:
        HTTPException: It is not, or does not.
    """
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, "the query string is not UTF-8: encode it as UTF-8") from error
    counts = Counter(name for name, _ in request.query_params.multi_items() if name not in _LISTS)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise HTTPException(422, f"{repeated} is given {counts[repeated]} times: give it once")


@asynccontextmanager
async def admit(engine: Engine, request: Request) -> AsyncIterator[AdmittedRequest]:
    """Admit a request to the queue.

    Raises:
        HTTPException: The client's timeout is not a positive number.
        OverloadedError: The queue is full, or the server is not ready.
    """
    seconds = min(engine.settings.request_timeout, _client_timeout(request))
    with engine.admit():
        yield AdmittedRequest(request, seconds)


@asynccontextmanager
async def admit_upload(engine: Engine, request: Request) -> AsyncIterator[tuple[AdmittedRequest, Upload]]:
    """Admit a request and receive its body; its temporary file is deleted on exit.

    Raises:
        OverloadedError: The queue is full, or the server is not ready.
        DeadlineError: The deadline has passed before the body was received.
        UploadTooLargeError: The body is over the limit.
    """
    async with admit(engine, request) as admitted:
        body = receive_upload(request, engine.upload_dir)
        upload = await admitted.within(body.__aenter__())
        admitted.upload_ms = admitted.elapsed_ms
        try:
            yield admitted, upload
        finally:
            await body.__aexit__(None, None, None)


def _client_timeout(request: Request) -> float:
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return math.inf
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise HTTPException(400, "the header X-Request-Timeout is not a number of seconds above 0: correct or omit it")
    return seconds


async def _first(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
