"""What the first bytes of a packet tell of the picture in it: whether decoding can start there, who depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = 4096
"""Bytes of a packet that are looked at: parameter sets and messages come before the picture."""
START_CODE = b"\0\0\1"


class Role(NamedTuple):
    """What a picture is to the others."""

    entry: bool
    """Decoding can start here."""
    instant: bool
    """An entry at which a decoder forgets all that went before, without being told."""
    droppable: bool
    """No other picture of its temporal layer or a lower one depends on it."""
    layer: int = 0
    """Its temporal layer."""


@dataclass(frozen=True)
class PacketReader:
    """Reads the packets of one video track.

    Args:
        codec: FFmpeg's name.
        length_size: Bytes of the length before each unit of H.264 and HEVC; 0 where start codes part them.
    """

    codec: str
    length_size: int = 0

    def role(self, data: bytes, *, key: bool) -> Role:
        """The role of a picture, from the beginning of its packet and the container's word on keyframes."""
        if self.codec == "h264":
            return self._role_in_h264(data, key=key)
        if self.codec == "hevc":
            return self._role_in_hevc(data, key=key)
        return Role(entry=key, instant=key, droppable=_is_b_picture(self.codec, data))

    def is_shown(self, data: bytes) -> bool:
        """Whether the picture is to be shown; the others only help to decode those that follow."""
        # RFC 6386 9.1: show_frame. VP9 and AV1 put such pictures into the packet of one that is shown.
        return self.codec != "vp8" or not data or bool(data[0] & 0x10)

    def units(self, data: bytes) -> Iterator[bytes]:
        """The NAL units of a packet, the last of them cut where `data` is."""
        place = 0
        while self.length_size and place + self.length_size < len(data):
            begin = place + self.length_size
            place = begin + int.from_bytes(data[place:begin], "big")
            if begin < place:
                yield data[begin:place]
        if not self.length_size:
            yield from (unit for unit in data.split(START_CODE)[1:] if unit)

    def parameter_sets(self, data: bytes) -> bytes:
        """The parameter sets of H.264 in a packet, with start codes; empty where it has none."""
        held = [unit for unit in self.units(data) if unit[0] & 31 in (7, 8)] if self.codec == "h264" else []
        return b"".join(START_CODE + unit for unit in held)

    def _role_in_h264(self, data: bytes, *, key: bool) -> Role:
        # ITU-T H.264 7.3.1, 7.4.1: nal_ref_idc is 0 for a picture that none refers to; types 1 to 5 are slices.
        unit = next((unit for unit in self.units(data) if 1 <= unit[0] & 31 <= 5), b"")
        if len(unit) < 2:
            return Role(entry=False, instant=False, droppable=False)
        instant = unit[0] & 31 == 5
        # 7.3.3: first_mb_in_slice 0 and slice_type 2 or 7, an I slice, as Exp-Golomb codes. A picture at which a
        # gradual refresh begins is called a key by some containers, yet what follows depends on earlier ones.
        intra = unit[1] >> 4 == 0b1011 or unit[1] == 0b10001000
        return Role(entry=key and (instant or intra), instant=instant, droppable=unit[0] & 0x60 == 0)

    def _role_in_hevc(self, data: bytes, *, key: bool) -> Role:
        # ITU-T H.265 table 7-1: even types below 16 are referred to by no picture of their own temporal layer. Types
        # 16 to 23 are entries, 21 is the one that leading pictures of the past may follow.
        unit = next((unit for unit in self.units(data) if unit[0] >> 1 < 32), b"")
        if len(unit) < 2:
            return Role(entry=False, instant=False, droppable=False)
        kind = unit[0] >> 1
        return Role(key and 16 <= kind <= 23, 16 <= kind <= 20, kind in range(0, 15, 2), layer=(unit[1] & 7) - 1)


def _is_b_picture(codec: str, data: bytes) -> bool:
    if codec == "mpeg4":
        # ISO/IEC 14496-2 6.2.5: vop_coding_type 2 in the first two bits of a VOP.
        place = data.find(START_CODE + b"\xb6")
        return 0 <= place < len(data) - 4 and data[place + 4] >> 6 == 2
    if codec in ("mpeg1video", "mpeg2video"):
        # ITU-T H.262 6.2.3: picture_coding_type 3 after the ten bits of temporal_reference.
        place = data.find(START_CODE + b"\0")
        return 0 <= place < len(data) - 5 and data[place + 5] >> 3 & 7 == 3
    return False
