"""Structured logs with the id of the request."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Literal

from xclip_runtime.util.addresses import without_passwords

LogFormat = Literal["auto", "json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra={"fields": {...}}`` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its traceback if it has one."""
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **({"request_id": rid} if (rid := request_id.get()) else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return without_passwords(json.dumps(document))


class TextFormatter(logging.Formatter):
    """One line of text for terminals; fields follow the message. Nothing that a client sends can end or hide a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its traceback indented below if it has one."""
        fields = "".join(f" {name}={_quote(str(value))}" for name, value in getattr(record, "fields", {}).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        lines = [f"{clock} {_escape(record.getMessage())}{fields}"]
        if record.exc_info:
            lines += [f"    {_escape(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return without_passwords("\n".join(lines))


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _quote(value: str) -> str:
    escaped = _escape(value)
    # A value with a space could look like another field.
    return '"{}"'.format(escaped.replace('"', '\\"')) if re.search(r'[ ="]', escaped) else escaped


def log_to_stderr(log_format: LogFormat, level: str = "info") -> None:
    """Log to stderr from a level on; "auto" is text on a terminal and JSON elsewhere."""
    if log_format == "auto":
        log_format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Start and stop are logged by the server itself, and what clients do wrong is counted.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
