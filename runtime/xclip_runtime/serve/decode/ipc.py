"""Length-prefixed IPC framing: a JSON header and a payload of bytes.

Nothing is unpickled, so a worker that a malicious video has compromised can send wrong pixels, but cannot run code in
the server.
"""

from __future__ import annotations

import json
import struct
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTHS = struct.Struct(">II")
"""Lengths of header and payload, bytes."""


def pack(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """Return a message without its payload, which the caller writes after it."""
    encoded = json.dumps(header).encode()
    return LENGTHS.pack(len(encoded), payload_bytes) + encoded


def read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read the next message of a pipe; None at its end."""
    lengths = pipe.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    header_bytes, payload_bytes = LENGTHS.unpack(lengths)
    return json.loads(pipe.read(header_bytes)), pipe.read(payload_bytes)
