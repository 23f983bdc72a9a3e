"""Streaming parser of multipart forms: the file leaves as it arrives, only fields are held in memory."""

from __future__ import annotations

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from xclip_runtime.errors import UploadTooLargeError

MAX_FIELDS = 2000
MAX_FIELD_BYTES = 2 << 20
"""Maximum size of all headers and fields together, bytes."""


class FormParser:
    """Splits a form into its fields and at most one file.

    Args:
        content_type: Header of the request, which names the boundary.

    Raises:
        HTTPException: The header names no boundary.
    """

    def __init__(self, content_type: str) -> None:
        self.fields: dict[str, Any] = {}
        """Fields that have ended; repeated ones are lists."""
        self.file_name: str | None = None
        """The client's name of the file, or None without a file."""
        self._left = MAX_FIELD_BYTES
        self._count = 0
        self._header, self._value, self._field = bytearray(), bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._in_file = False
        self._complete = False
        self._file_bytes = bytearray()
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise HTTPException(400, "the form has no boundary: send it as multipart/form-data; boundary=…")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._extend(self._header, data[start:end]),
                    "on_header_value": lambda data, start, end: self._extend(self._value, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _invalid(error) from error

    def feed(self, chunk: bytes) -> bytes:
        """Parse the next part of a body; return the bytes of the file in it.

        Raises:
            HTTPException: The form is invalid.
            UploadTooLargeError: Its fields are over a limit.
        """
        self._file_bytes = bytearray()
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _invalid(error) from error
        return bytes(self._file_bytes)

    def finish(self) -> None:
        """End the body.

        Raises:
            HTTPException: The form is cut short.
        """
        if not self._complete:
            raise HTTPException(400, "the form is cut short: send it whole, up to its last boundary")

    def _extend(self, part: bytearray, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            message = f"the form's fields exceed {MAX_FIELD_BYTES} bytes: send fewer or shorter texts"
            raise UploadTooLargeError(message)
        part += data

    def _begin_part(self) -> None:
        self._disposition = b""
        self._field.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise HTTPException(400, "a part of the form has no name: send Content-Disposition: form-data; name=…")
        self._name = _text(options[b"name"])
        self._in_file = b"filename" in options
        if self._in_file:
            if self.file_name is not None:
                raise HTTPException(400, "the form has several files: send one video")
            self.file_name = options[b"filename"].decode(errors="replace")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file_bytes += data[start:end]
        else:
            self._extend(self._field, data[start:end])

    def _end(self) -> None:
        self._complete = True

    def _end_part(self) -> None:
        self._count += 1
        if self._count > MAX_FIELDS:
            message = f"the form has more than {MAX_FIELDS} fields: send texts as lines of one field"
            raise UploadTooLargeError(message)
        if self._in_file:
            return
        value = _text(self._field)
        known = self.fields.get(self._name)
        if known is None:
            self.fields[self._name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            self.fields[self._name] = [known, value]


def _text(data: bytes | bytearray) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, "a field of the form is not UTF-8: encode it as UTF-8") from error


def _invalid(error: FormParserError) -> HTTPException:
    return HTTPException(400, f"the form is not valid multipart/form-data: {error}")
