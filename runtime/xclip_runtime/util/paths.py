"""Which files of a folder are videos."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""What a folder is searched for. A file that is named itself may be called anything."""


def videos_in(folder: str) -> Iterator[str]:
    """Every video in a folder and the folders in it, sorted within each; hidden ones are left out."""
    for parent, folders, files in os.walk(folder):
        # Sorted in place, which is how os.walk is told where to go next. Names with a dot are hidden, or a Mac's notes.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)  # noqa: PTH118 - keeps the spelling of the folder
