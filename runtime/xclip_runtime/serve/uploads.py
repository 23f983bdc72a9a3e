"""Request bodies: from the socket to a temporary file."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from starlette.exceptions import HTTPException

from xclip_runtime.errors import ServeError, UploadTooLargeError
from xclip_runtime.serve.forms import FormParser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request

    from xclip_runtime.serve.upload_dir import UploadDir

WRITE_BYTES = 1 << 20
MAX_JSON_BYTES = 2 << 20
UNNAMED = "the video"
_MAX_NAME_LENGTH = 100
_SKIPPED_BYTES = 16 << 20
_SKIPPED_SECONDS = 2.0


@dataclass(frozen=True)
class Upload:
    """Body of a request."""

    name: str
    """The client's name of the video, safe to print."""
    path: Path | None
    """Temporary file of the video, or None without one."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Other fields of a form or JSON object; repeated fields of a form are lists."""


@asynccontextmanager
async def receive_upload(request: Request, upload_dir: UploadDir) -> AsyncIterator[Upload]:
    """Receive a body: a form with a file, a JSON object, or a bare video. The file is deleted on exit.

    Raises:
        UploadTooLargeError: The JSON is too large.
        HTTPException: The form or JSON cannot be parsed.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        document = await _read_json(request)
        if not isinstance(document, dict):
            raise HTTPException(400, "the body must be a JSON object")
        yield Upload(UNNAMED, None, document)
        return
    with upload_dir.file() as path:
        if content_type == "multipart/form-data":
            yield await _read_form(request, path)
        else:
            size = await save_body(request, path)
            yield Upload(safe_name(request.headers.get("x-filename")), path if size else None)


def safe_name(name: str | None) -> str:
    """Return a client's file name without folders and unprintable characters."""
    printable = "".join(c for c in (name or "").replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return printable[:_MAX_NAME_LENGTH] or UNNAMED


async def save_body(request: Request, path: Path, take: Callable[[bytes], bytes] = lambda chunk: chunk) -> int:
    """Write a body, or what `take` returns of each chunk, to a file as it arrives; return the size in bytes.

    Raises:
        OSError: The disk has no room; `UploadDir.file` turns it into a DiskFullError.
    """
    size, pending, chunks = 0, bytearray(), request.stream()
    try:
        with path.open("wb") as file:
            async for chunk in chunks:
                taken = take(chunk)
                pending += taken
                size += len(taken)
                if len(pending) >= WRITE_BYTES:
                    # A slow disk must not block the event loop.
                    await asyncio.to_thread(file.write, bytes(pending))
                    pending.clear()
            file.write(pending)
    except (HTTPException, ServeError, OSError):
        await _skip(chunks)
        raise
    return size


async def _read_json(request: Request) -> Any:
    body, chunks = bytearray(), request.stream()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            await _skip(chunks)
            message = f"JSON body exceeds {MAX_JSON_BYTES} bytes: send fewer or shorter texts"
            raise UploadTooLargeError(message)
    try:
        # Unlike json it refuses halves of surrogate pairs, which cannot be encoded again.
        return await asyncio.to_thread(msgspec.json.decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from error


async def _read_form(request: Request, path: Path) -> Upload:
    form = FormParser(request.headers["content-type"])
    size = await save_body(request, path, form.feed)
    form.finish()
    return Upload(safe_name(form.file_name), path if size else None, form.fields)


async def _skip(chunks: AsyncIterator[bytes]) -> None:
    """Read the rest of a body, within bounds: a client that is still sending may miss the answer."""
    left = _SKIPPED_BYTES
    with anyio.move_on_after(_SKIPPED_SECONDS):
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                return
