"""What the edit list of an MP4 file (ISO/IEC 14496-12 8.6.6) shows, before any packet is read."""

from __future__ import annotations

import struct
from typing import NamedTuple

from xclip_runtime.video.boxes import NOT_UNDERSTOOD, read_boxes

# Time scales of a thousandth of a second are common for the list, whatever that of the pictures.
_ROUNDING = 0.002


class Part(NamedTuple):
    """What an edit list shows, milliseconds from the first picture that is stored."""

    begin: float
    end: float


EVERYTHING = Part(0.0, float("inf"))


def shown_part(path: str) -> Part | None:
    """The part that the edit list of a picture track shows where it leaves pictures out; None where it does not.

    Trimming on a phone makes such lists (8.6.6). FFmpeg shows what they show; a list of packets, as OpenCV gives it,
    does not tell. Only an estimate: of a list with several entries, or one that cannot be understood, it is everything.
    """
    try:
        boxes, tracks = read_boxes(path)
        return next((part for part in (_part(boxes, track) for track in tracks) if part), None)
    except NOT_UNDERSTOOD:
        return EVERYTHING


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
