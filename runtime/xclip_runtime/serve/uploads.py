"""From the body of a request to a video on the disk, with every limit checked on the way."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from xclip_runtime.errors import UploadTooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

    from xclip_runtime.serve.upload_dir import Scratch

WRITE_BYTES = 1 << 20
JSON_BYTES = 2 << 20
UNNAMED = "the video"
_NAME_CHARACTERS = 100
_MOST_FIELDS = 2000


@dataclass(frozen=True)
class Upload:
    """What a request brought."""

    name: str
    """What the client called the video, made safe to print."""
    path: Path | None
    """Where the video lies; None where the request has none."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The other fields of a form or of a JSON document; those that came more than once are lists."""


@asynccontextmanager
async def received(request: Request, scratch: Scratch) -> AsyncIterator[Upload]:
    """Take a body: a form with a file, a JSON document, or a bare video. The file is gone when the context ends.

    Raises:
        UploadTooLargeError: It is too much JSON.
        HTTPException: The body is neither of the three.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        document = await _json(request)
        if not isinstance(document, dict):
            raise HTTPException(400, "the body is no JSON object")
        yield Upload(UNNAMED, None, document)
        return
    with scratch.file() as path:
        if content_type == "multipart/form-data":
            yield await _form(request, path)
        else:
            size = await save_body(request, path)
            yield Upload(safe_name(request.headers.get("x-filename")), path if size else None)


def safe_name(name: str | None) -> str:
    """A client's file name without its folders and without what could not be printed."""
    printable = "".join(c for c in (name or "").replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return printable[:_NAME_CHARACTERS] or UNNAMED


async def save_body(request: Request, path: Path) -> int:
    """Write a body to a file as it comes; return its size in bytes."""
    size, pending = 0, bytearray()
    with path.open("wb") as file:
        async for chunk in request.stream():
            pending += chunk
            size += len(chunk)
            if len(pending) >= WRITE_BYTES:
                # A slow disk must not hold up every other request.
                await asyncio.to_thread(file.write, bytes(pending))
                pending.clear()
        file.write(pending)
    return size


async def _json(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_BYTES:
            message = f"the body is more than {JSON_BYTES} bytes of JSON: send fewer or shorter texts"
            raise UploadTooLargeError(message)
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error


async def _form(request: Request, path: Path) -> Upload:
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        fields: dict[str, Any] = {}
        upload: UploadFile | None = None
        for key, value in form.multi_items():
            if isinstance(value, UploadFile):
                upload = value
            else:
                fields.setdefault(key, []).append(value)
        fields = {key: values[0] if len(values) == 1 else values for key, values in fields.items()}
        if upload is None:
            return Upload(UNNAMED, None, fields)
        name = safe_name(upload.filename)
        await asyncio.to_thread(_copy, upload, path)
    return Upload(name, path, fields)


def _copy(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, WRITE_BYTES)
