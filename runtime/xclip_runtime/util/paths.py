"""Video files in a folder, and text files of users."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from xclip_runtime.errors import VideoDecodeError, VideoNotFoundError
from xclip_runtime.util.inputs import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Files that a search of a folder takes. A file given by its own name may have any suffix."""


def videos_in(folder: str) -> Iterator[str]:
    """Yield every video in a folder and its subfolders, sorted within each, except hidden files and folders."""
    for parent, folders, files in os.walk(folder):
        # os.walk descends into what is left in the list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # macOS leaves "._clip.mp4" beside "clip.mp4" on foreign file systems.
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)  # noqa: PTH118 - keeps the spelling of the folder


def printable(name: str) -> str:
    """Quote a name that would not be one line of text."""
    return name if name.isprintable() else ascii(name)


def regular_file(path: object) -> str:
    """Return the name of a file that is there and not empty.

    Raises:
        VideoTypeError: It is not a path.
        VideoNotFoundError: It is not there, or may not be read.
        VideoDecodeError: It is empty, a folder or a device.
    """
    name = path_of(path, "a path, the bytes of a file or a binary file")
    shown = printable(name)
    try:
        status = os.stat(name)  # noqa: PTH116 - Path would change the name that the messages quote
    except FileNotFoundError:
        message = f"no such file: {shown}: check the path"
        raise VideoNotFoundError(message) from None
    except (OSError, ValueError) as error:
        message = f"{name!r} cannot be read ({error}): check the path and its permissions"
        raise VideoNotFoundError(message) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        message = f"{shown} is {kind}: pass a video file"
        if stat.S_ISDIR(status.st_mode):
            message += ", or to the command a folder with files such as .mp4, .mkv or .webm in it"
        raise VideoDecodeError(message)
    if status.st_size == 0:
        message = f"{shown} is empty (0 bytes): copy or download it again"
        raise VideoDecodeError(message)
    return name


def read_text(path: Path, refuse: Callable[[str], Exception], *, content: str, layout: str) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark.

    A file that cannot be read or is not UTF-8 raises the exception that ``refuse`` makes of a message, which names the
    ``content``, such as "labels", and the ``layout``, such as "one label a line".
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        message = f"cannot read {content} from {path} ({error.strerror or error}): check the path and its permissions"
        raise refuse(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: save it as UTF-8, {layout}"
        raise refuse(message) from error
    if "\0" in text:
        # UTF-16 and UTF-32 of ASCII text are valid UTF-8.
        message = f"{path} holds NUL characters, as UTF-16 and binary files do: save it as UTF-8, {layout}"
        raise refuse(message)
    return text


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, or None for an address and the like."""
    with suppress(OSError, ValueError):
        status = os.stat(path)  # noqa: PTH116 - the name as it is spelt
        return status.st_dev, status.st_ino
    return None
