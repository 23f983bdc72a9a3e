"""Request bodies: from the socket to a temporary file."""

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

    from xclip_runtime.serve.upload_dir import UploadDir

WRITE_BYTES = 1 << 20
MAX_JSON_BYTES = 2 << 20
UNNAMED = "the video"
_MAX_NAME_LENGTH = 100
_MAX_FIELDS = 2000


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


async def save_body(request: Request, path: Path) -> int:
    """Write a body to a file as it arrives; return its size in bytes."""
    size, pending = 0, bytearray()
    with path.open("wb") as file:
        async for chunk in request.stream():
            pending += chunk
            size += len(chunk)
            if len(pending) >= WRITE_BYTES:
                # A slow disk must not block the event loop.
                await asyncio.to_thread(file.write, bytes(pending))
                pending.clear()
        file.write(pending)
    return size


async def _read_json(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            message = f"JSON body exceeds {MAX_JSON_BYTES} bytes: send fewer or shorter texts"
            raise UploadTooLargeError(message)
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from error


async def _read_form(request: Request, path: Path) -> Upload:
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
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
