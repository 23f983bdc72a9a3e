"""Packets in the least of Matroska that FFmpeg's demuxer takes (RFC 9559), to hand a decoder a choice of packets."""

from __future__ import annotations

CODEC_IDS = {
    "h264": "V_MPEG4/ISO/AVC",
    "hevc": "V_MPEGH/ISO/HEVC",
    "mjpeg": "V_MJPEG",
    "mpeg1video": "V_MPEG1",
    "mpeg2video": "V_MPEG2",
    "mpeg4": "V_MPEG4/ISO/ASP",
    "vp8": "V_VP8",
    "vp9": "V_VP9",
}
"""The names of the codecs that are stored packet by packet as a capture gives them."""

_UNKNOWN_SIZE = b"\x01\xff\xff\xff\xff\xff\xff\xff"


def header(codec: str, width: int, height: int, private: bytes) -> bytes:
    """What comes before the packets of a video track whose times are counted in milliseconds.

    Args:
        codec: A key of `CODEC_IDS`.
        width: Of the stored picture.
        height: Of the stored picture.
        private: What the decoder needs to know beforehand; empty where the packets tell.
    """
    ebml = _element(0x4282, b"matroska") + _element(0x4287, b"\x04") + _element(0x4285, b"\x02")
    picture = _element(0xB0, _number(width)) + _element(0xBA, _number(height))
    track = _element(0xD7, b"\x01") + _element(0x73C5, b"\x01") + _element(0x83, b"\x01")
    track += _element(0x86, CODEC_IDS[codec].encode()) + _element(0xE0, picture)
    if private:
        track += _element(0x63A2, private)
    info = _element(0x1549A966, _element(0x2AD7B1, _number(1_000_000)))
    segment = 0x18538067.to_bytes(4, "big") + _UNKNOWN_SIZE
    return _element(0x1A45DFA3, ebml) + segment + info + _element(0x1654AE6B, _element(0xAE, track))


def cluster(time: int, data: bytes, *, key: bool) -> bytes:
    """One packet, shown at `time`, milliseconds."""
    block = b"\x81\0\0" + (b"\x80" if key else b"\0") + data
    return _element(0x1F43B675, _element(0xE7, _number(time)) + _element(0xA3, block))


def _element(name: int, content: bytes) -> bytes:
    size = (len(content) | 1 << 56).to_bytes(8, "big")
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + size + content


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")
