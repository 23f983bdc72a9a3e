"""What the boxes of an MP4 file (ISO/IEC 14496-12) tell of its pictures, before any packet is read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# Time scales of a thousandth of a second are common for the list, whatever that of the pictures.
_ROUNDING = 0.002
_BOXES_WITH_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")


class _Box(NamedTuple):
    path: bytes
    """The kinds from the outermost on, parted by dots; a track has its number."""
    content: bytes


class Part(NamedTuple):
    """What an edit list shows, milliseconds from the first picture that is stored."""

    begin: float
    end: float


EVERYTHING = Part(0.0, float("inf"))
_NOT_UNDERSTOOD = (KeyError, ValueError, RecursionError, ArithmeticError, struct.error)


def shown_part(path: str) -> Part | None:
    """The part that the edit list of a picture track shows where it leaves pictures out; None where it does not.

    Trimming on a phone makes such lists (8.6.6). FFmpeg shows what they show; a list of packets, as OpenCV gives it,
    does not tell. Only an estimate: of a list with several entries, or one that cannot be understood, it is everything.
    """
    try:
        boxes, tracks = _read(path)
        return next((part for part in (_part(boxes, track) for track in tracks) if part), None)
    except _NOT_UNDERSTOOD:
        return EVERYTHING


def is_one_run(path: str) -> bool:
    """Whether the picture track of an MP4 file has one keyframe and shows all pictures in stored order.

    By 8.6.2 and 8.6.1.3. Then each picture depends on the one before in all but rare encodings. False where the file
    does not say.
    """
    try:
        boxes, tracks = _read(path)
        tables = [track + b".mdia.minf.stbl" for track in tracks]
        return bool(tables) and all(
            table + b".ctts" not in boxes and struct.unpack_from(">I", boxes[table + b".stss"], 4) == (1,)
            for table in tables
        )
    except _NOT_UNDERSTOOD:
        return False


def _read(path: str) -> tuple[dict[bytes, bytes], list[bytes]]:
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
        if kind in _BOXES_WITH_BOXES:
            yield from _boxes(file, path, min(place + size, end), begin)
        elif kind in (b"mvhd", b"elst", b"hdlr", b"mdhd", b"stts", b"ctts", b"stss"):
            yield _Box(path, file.read(min(place + size, end) - begin))
        number += 1
        place += size


def _part(boxes: dict[bytes, bytes], track: bytes) -> Part | None:
    entries = _edits(boxes.get(track + b".edts.elst", b"\0" * 8))
    shown = [entry for entry in entries if entry[1] >= 0]
    if len(shown) != 1:
        return EVERYTHING if entries else None
    (length, begin), *_ = shown
    _, movie_scale = _length_and_scale(boxes[b".moov.mvhd"])
    _, scale = _length_and_scale(boxes[track + b".mdia.mdhd"])
    durations = boxes[track + b".mdia.minf.stbl.stts"]
    first = _first_shown(durations, boxes.get(track + b".mdia.minf.stbl.ctts"))
    runs = _table(durations, ">II")
    whole, last = sum(repeat * step for repeat, step in runs), runs[-1][1] if runs else 0
    late = (begin - first) / scale
    if late <= _ROUNDING and length / movie_scale >= (whole - last / 2) / scale:
        return None
    return Part(1e3 * (late - _ROUNDING), 1e3 * (late + length / movie_scale - _ROUNDING))


def _edits(content: bytes) -> list[tuple[int, int]]:
    """Length in the scale of the movie and begin in that of the track, -1 for a pause."""
    layout = ">qqi" if content[0] == 1 else ">iii"
    (count,) = struct.unpack_from(">I", content, 4)
    return [struct.unpack_from(layout, content, 8 + entry * struct.calcsize(layout))[:2] for entry in range(count)]


def _length_and_scale(header: bytes) -> tuple[int, int]:
    scale, length = struct.unpack_from(">IQ", header, 20) if header[0] == 1 else struct.unpack_from(">II", header, 12)
    return length, scale


def _first_shown(durations: bytes, offsets: bytes | None, among: int = 64) -> int:
    """The earliest time at which one of the first pictures is shown, in the scale of the track."""
    if offsets is None:
        return 0
    decoded, shifts = _runs(durations, ">II", among), _runs(offsets, ">Ii", among)
    time, first = 0, 1 << 62
    for step, shift in zip(decoded, shifts, strict=False):
        first = min(first, time + shift)
        time += step
    return first


def _runs(table: bytes, layout: str, most: int) -> list[int]:
    values: list[int] = []
    for repeat, value in _table(table, layout):
        values += [value] * min(repeat, most - len(values))
    return values


def _table(content: bytes, layout: str) -> list[tuple[int, int]]:
    (count,) = struct.unpack_from(">I", content, 4)
    return [struct.unpack_from(layout, content, 8 + 8 * entry) for entry in range(count)]
