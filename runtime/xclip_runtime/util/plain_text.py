"""Text that users give: files of it, its lines, names in it, and arguments of commands."""

from __future__ import annotations

import codecs
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLANKS = " \t"
"""Characters that are no part of a name at its ends. Others that Python strips, such as U+2028, are."""


def printable(name: str) -> str:
    """Quote a name that would not be one line of text."""
    return name if name.isprintable() else ascii(name)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def lines(text: str) -> list[str]:
    r"""Split text at \n, \r\n and \r only: other characters that end a line in Unicode may be part of a name."""
    return re.split(r"\r\n|\r|\n", text)


def decoded(content: bytes, errors: str = "strict") -> str:
    """Decode UTF-8 with or without a byte order mark, or UTF-16 with one; else it is a UnicodeDecodeError."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig", "strict" if utf16 else errors)


def read_text(path: Path, refuse: Callable[[str], Exception], *, content: str, layout: str) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark, or of UTF-16 text with one.

    A file that cannot be read or is neither raises the exception that ``refuse`` makes of a message, which names the
    ``content``, such as "labels", and the ``layout``, such as "one label a line".
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        message = f"cannot read {content} from {path} ({error.strerror or error}): check the path and its permissions"
        raise refuse(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: save it as UTF-8, {layout}"
        raise refuse(message) from error
    if "\0" in text:
        # UTF-16 and UTF-32 of ASCII text are valid UTF-8.
        message = f"{path} holds NUL characters, as UTF-16 and binary files do: save it as UTF-8, {layout}"
        raise refuse(message)
    return text


def text_of(given: str) -> str:
    """Decode a text of the command line, or of a file name, as UTF-8, also where the locale has Python take ASCII."""
    try:
        return os.fsencode(given).decode()
    except UnicodeError:
        return given
