"""Addresses of videos, which may hold passwords."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "***"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# A password may hold "/" as typed by hand, and what begins like a port is none. Lengths are bounded, since the text may
# be hostile, and every letter before "://" may begin a scheme.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,31}://[^\s/:@]{0,256}):(?:[^\s/]{0,256}|(?!\d*/)[^\s'\"]{0,256})@")
# Cameras and object stores take secrets as parameters.
_PARAMETER = re.compile(
    r"([?&](?:[\w-]*(?:password|passwd|pwd|token|secret|signature|api[-_]?key)|pass|key|sig|auth)=)[^\s&#'\"]+",
    re.IGNORECASE,
)


def is_address(name: str) -> bool:
    """Return True for an address, such as rtsp://..., False for the path of a file."""
    return _SCHEME.match(name) is not None


def without_passwords(text: str) -> str:
    """Replace the passwords of all addresses in a text by ``***``."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1:{HIDDEN}@", text))


def located(folder: Path, video: str) -> str:
    """Return the path of a video that a list in a folder names; of an address, the password is hidden."""
    return without_passwords(video) if is_address(video) else str(folder / video)
