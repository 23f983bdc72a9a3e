"""Which uploads are videos at all, by their first bytes.

FFmpeg also reads playlists, in which one file names others, on this machine or elsewhere. None of them begins like one
of these, so an upload cannot make the server open anything but itself.
"""

from __future__ import annotations

HEAD_BYTES = 400
"""How much of a file :func:`container` looks at."""

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_STARTS = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpeg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"FLV\x01": "flv",
    b"OggS": "ogg",
    b"GIF8": "gif",
}
_TS_SYNC = 0x47
# MPEG-TS comes bare, and with a timestamp of four bytes before each packet.
_TS_PACKETS = ((188, 0), (192, 4))


def container(head: bytes) -> str | None:
    """Name of the container that a file begins like, or None where it is no video.

    Args:
        head: The first :data:`HEAD_BYTES` of the file.
    """
    if head[4:8] in _MP4_BOXES:
        return "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for size, offset in _TS_PACKETS:
        syncs = head[offset::size]
        if len(head) > size + offset and all(byte == _TS_SYNC for byte in syncs):
            return "mpegts"
    return next((name for start, name in _STARTS.items() if head.startswith(start)), None)
