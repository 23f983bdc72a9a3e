"""Tell whether files were opened, by inotify, and whether an address was called."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IN_OPEN = 0x20
_IN_NONBLOCK = 0o4000
_EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(*paths: Path) -> Iterator[set[str]]:
    """The names of those files that are opened while this lasts; filled at its end."""
    if not sys.platform.startswith("linux"):
        pytest.skip("inotify is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(_IN_NONBLOCK)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    watched = {libc.inotify_add_watch(queue, os.fsencode(path), _IN_OPEN): path.name for path in paths}
    opened: set[str] = set()
    try:
        yield opened
        while True:
            try:
                events = os.read(queue, 65536)
            except BlockingIOError:
                break
            place = 0
            while place < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, place)
                opened.add(watched[watch])
                place += _EVENT.size + length
    finally:
        os.close(queue)


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and the callers that it has had; filled at the end."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1], callers
        while True:
            try:
                connection, caller = server.accept()
            except BlockingIOError:
                break
            connection.close()
            callers.append(caller)
