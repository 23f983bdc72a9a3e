"""The boxes of an MP4 file (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_UNDERSTOOD = (KeyError, ValueError, RecursionError, ArithmeticError, struct.error)
"""What reading the boxes of a damaged file raises."""
_WITH_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_READ = (b"mvhd", b"elst", b"hdlr", b"mdhd", b"stts", b"ctts", b"stss")


class _Box(NamedTuple):
    path: bytes
    """The kinds from the outermost on, parted by dots; a track has its number."""
    content: bytes


def read_boxes(path: str) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The boxes by their paths, and the paths of the picture tracks; none of a file that is no MP4."""
    with open(path, "rb") as file:  # noqa: PTH123
        if file.read(8)[4:] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            return {}, []
        boxes = {box.path: box.content for box in _boxes(file, b"", file.seek(0, 2), 0)}
    tracks = {path[: path.index(b".mdia")] for path in boxes if path.endswith(b".mdia.hdlr")}
    return boxes, sorted(track for track in tracks if boxes[track + b".mdia.hdlr"][8:12] == b"vide")


def _boxes(file: BinaryIO, parent: bytes, end: int, place: int) -> Iterator[_Box]:
    number = 0
    while place + 8 <= end:
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        begin = place + 8
        if size == 1:
            size, begin = struct.unpack(">Q", file.read(8))[0], place + 16
        size = size or end - place
        if size < begin - place:
            raise ValueError
        name = kind + (b"%d" % number if kind == b"trak" else b"")
        path = parent + b"." + name
        if kind in _WITH_BOXES:
            yield from _boxes(file, path, min(place + size, end), begin)
        elif kind in _READ:
            yield _Box(path, file.read(min(place + size, end) - begin))
        number += 1
        place += size
