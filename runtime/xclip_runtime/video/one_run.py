"""Whether a file tells, before its packets are listed, that none of its pictures can be left out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from xclip_runtime.video.boxes import NOT_UNDERSTOOD, read_boxes
from xclip_runtime.video.edits import shown_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# RFC 9559: the elements that are read, or entered.
_SEGMENT, _CLUSTER, _GROUP, _TRACKS, _TRACK = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B, 0xAE
_TRACK_NUMBER, _TRACK_TYPE, _TIMESTAMP, _SIMPLE_BLOCK, _BLOCK, _REFERENCE = 0xD7, 0x83, 0xE7, 0xA3, 0xA1, 0xFB
_ENTERED = (_SEGMENT, _CLUSTER, _GROUP, _TRACKS, _TRACK)
_READ = (_TRACK_NUMBER, _TRACK_TYPE, _TIMESTAMP, _SIMPLE_BLOCK, _BLOCK, _REFERENCE)
# Of a block no more is needed than its track, its time and its flags.
_BYTES_READ = 12
# A hostile file may consist of nothing else.
_MOST_ELEMENTS = 100_000
# Of a transport stream.
_BYTES_OF_PACKET = 188
_PACKETS_AT_ONCE = 512


class _Picture(NamedTuple):
    time: int
    key: bool


def is_one_run(path: str, patience: float) -> bool:
    """Whether a video has one keyframe, and shows its pictures in the order in which they are stored.

    Then each picture depends on the one before, in all but rare encodings. False where the file does not say; MP4,
    Matroska with WebM, and MPEG transport streams may.

    Args:
        path: A file.
        patience: Pictures after which a run counts as one whatever follows, see `index.list_packets`.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(4)
            file.seek(0)
            if head == b"\x1a\x45\xdf\xa3":
                return _is_run(_pictures_of_matroska(file), patience)
            if head[:1] == b"\x47":
                return _is_run(_pictures_of_transport_stream(file), patience)
        return _is_run_in_boxes(path) and shown_part(path) is None
    except (*NOT_UNDERSTOOD, IndexError, OSError):
        return False


def _is_run(pictures: Iterable[_Picture], patience: float) -> bool:
    last, number = None, 0
    for number, picture in enumerate(pictures, 1):
        if picture.key != (number == 1) or (last is not None and picture.time <= last):
            return False
        if number > patience:
            return True
        last = picture.time
    return number > 0


def _is_run_in_boxes(path: str) -> bool:
    """By ISO/IEC 14496-12 8.6.2 and 8.6.1.3: one sync sample, and no time of showing beside that of decoding."""
    boxes, tracks = read_boxes(path)
    tables = [track + b".mdia.minf.stbl" for track in tracks]
    return bool(tables) and all(
        table + b".ctts" not in boxes and struct.unpack_from(">I", boxes[table + b".stss"], 4) == (1,)
        for table in tables
    )


def _pictures_of_matroska(file: BinaryIO) -> Iterator[_Picture]:
    number, track, cluster = 0, 0, 0
    held: list[_Picture] = []
    for kind, content in _elements(file):
        if kind == _TRACK_NUMBER:
            number = int.from_bytes(content, "big")
        elif kind == _TRACK_TYPE and content == b"\1":
            track = track or number
        elif kind == _TIMESTAMP:
            cluster = int.from_bytes(content, "big")
        elif kind == _REFERENCE and held:
            held = [held[0]._replace(key=False)]
        elif kind in (_SIMPLE_BLOCK, _BLOCK):
            yield from held
            # Tracks of higher numbers than 127 take more bytes, and are none that is looked for.
            late, flags = struct.unpack_from(">hB", content, 1)
            key = kind == _BLOCK or bool(flags & 0x80)
            held = [_Picture(cluster + late, key)] if content[0] == 0x80 | track else []
    yield from held


def _elements(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Kind and first bytes of the elements that are read, those within others after them."""
    for _ in range(_MOST_ELEMENTS):
        if not (head := file.read(12)):
            return
        width = 9 - head[0].bit_length()
        kind = int.from_bytes(head[:width], "big")
        size_width = 9 - head[width].bit_length()
        begin = file.tell() - len(head) + width + size_width
        file.seek(begin)
        if kind in _ENTERED:
            continue
        size = int.from_bytes(head[width : width + size_width], "big") ^ 1 << 7 * size_width
        if kind in _READ:
            yield kind, file.read(min(size, _BYTES_READ))
        file.seek(begin + size)
    raise ValueError


def _pictures_of_transport_stream(file: BinaryIO) -> Iterator[_Picture]:
    """By ISO/IEC 13818-1 2.4.3: a picture begins where a packet of its track begins a unit."""
    track = None
    for packet in _beginnings_of_units(file):
        adaptation = packet[4] + 1 if packet[3] & 0x20 else 0
        unit = packet[4 + adaptation :]
        identity = packet[1] & 0x1F, packet[2]
        if unit[:3] != b"\0\0\1" or unit[3] & 0xF0 != 0xE0 or identity != (track or identity):
            continue
        track = identity
        if not unit[7] & 0x80:
            raise ValueError
        # 33 bits in groups of 3, 15 and 15, each followed by a marker.
        high, middle, low = struct.unpack_from(">BHH", unit, 9)
        time = (high >> 1 & 7) << 30 | middle >> 1 << 15 | low >> 1
        yield _Picture(time, key=adaptation > 1 and bool(packet[5] & 0x40))


def _beginnings_of_units(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_PACKETS_AT_ONCE * _BYTES_OF_PACKET):
        whole = len(data) // _BYTES_OF_PACKET * _BYTES_OF_PACKET
        packets = np.frombuffer(data[:whole], np.uint8).reshape(-1, _BYTES_OF_PACKET)
        if not np.all(packets[:, 0] == 0x47):
            raise ValueError
        yield from map(bytes, packets[(packets[:, 1] & 0x40) > 0])
