"""What server and decode worker say to each other over a pipe: a JSON header and bytes.

Nothing is unpickled: a worker that a hostile video has taken over can send wrong pixels, and nothing worse.
"""

from __future__ import annotations

import json
import struct
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTHS = struct.Struct(">II")
"""Bytes of the header and of the payload."""


def pack(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """A message up to its payload, which follows."""
    encoded = json.dumps(header).encode()
    return LENGTHS.pack(len(encoded), payload_bytes) + encoded


def read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a pipe, or None at its end."""
    lengths = pipe.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    header_bytes, payload_bytes = LENGTHS.unpack(lengths)
    return json.loads(pipe.read(header_bytes)), pipe.read(payload_bytes)
