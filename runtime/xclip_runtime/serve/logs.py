"""Structured logs with the id of the request."""

from __future__ import annotations

import json
import logging
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
        return without_passwords(json.dumps(document, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """One line of text for terminals; fields follow the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its traceback below if it has one."""
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.getMessage()} {fields}".rstrip()
        return without_passwords(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


def log_to_stderr(log_format: LogFormat) -> None:
    """Log to stderr; "auto" is text on a terminal and JSON elsewhere."""
    if log_format == "auto":
        log_format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Start and stop are logged by the server itself.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
