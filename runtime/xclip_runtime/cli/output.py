"""Text and JSON on standard output and error lines on standard error, in the encodings that these have."""

from __future__ import annotations

import codecs
import json
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xclip_runtime.util.addresses import without_passwords
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

FALLBACK = "xclip-onnx-fallback"
"""Name of the error handler that writes what an encoding lacks in other characters."""

_SUBSTITUTES = {
    **{ord(c): "-" for c in "\u2013\u2014\u2501\u2578\u257a"},  # dashes, progress bars
    **str.maketrans({"█": "#", "·": "|", "…": "...", "Δ": "d", "≤": "<=", "≥": ">=", "→": "->", "\u00d7": "x"}),
}


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_SUBSTITUTES)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def prepare_streams() -> None:
    """Let standard output and error take any text: what their encoding lacks becomes ASCII, or else an escape."""
    codecs.register_error(FALLBACK, _substitute)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=FALLBACK)


def log_to_stderr() -> None:
    """Log warnings as lines like those of errors, without passwords."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line("%(source)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Without a home folder it would warn about its cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        library = record.name.partition(".")[0]
        record.source = "xclip-onnx" if library in ("xclip_runtime", "xclip_export") else library
        return without_passwords(super().format(record))


def echo(text: str) -> None:
    """Print a line of text on standard output."""
    _write(_standard_output(), text)


def json_text(document: Mapping[str, Any], indent: int | None = None, *, ascii_only: bool = False) -> str:
    """Serialise as readable Unicode; bytes of file names that are not UTF-8 become escapes."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    return text.encode(errors="backslashreplace").decode()


def print_json(document: Mapping[str, Any], indent: int | None = None) -> None:
    """Print a document on standard output, on one line unless ``indent`` is given; in ASCII where that is not UTF-8."""
    encoding = getattr(_standard_output(), "encoding", None) or "utf-8"
    echo(json_text(document, indent, ascii_only=codecs.lookup(encoding).name != "utf-8"))


def print_error(error: object) -> None:
    """Print one line on standard error, without passwords; one that nobody can read is left out."""
    with suppress(OSError):
        _write(sys.stderr, f"xclip-onnx: {without_passwords(str(error))}")


def finish_output() -> None:
    """Write what is left for standard output, or discard it where that fails: the interpreter would try again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # ValueError: it is closed; AttributeError: it never was open.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _standard_output() -> TextIO | None:
    """Return standard output itself, which a progress bar on standard error stands in for."""
    stream: TextIO | None = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    return stream


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # None where the process was started without it.
        with naming("standard output"):
            stream.write(f"{text}\n")
            stream.flush()
