"""Video files, and folders of them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from xclip_runtime.errors import VideoDecodeError, VideoNotFoundError
from xclip_runtime.util.addresses import is_address, without_passwords
from xclip_runtime.util.inputs import path_of
from xclip_runtime.util.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Files that a search of a folder takes. A file given by its own name may have any suffix."""


def folders_in(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder from the given one down, with the sorted names of its files, except hidden ones.

    Links are followed, and each folder comes once, by its first name. A folder that cannot be listed is
    yielded with [""], so that reading it raises its error.
    """
    seen = set()
    pending = [folder]
    while pending:
        parent = pending.pop()
        try:
            status = os.stat(parent)  # noqa: PTH116 - keeps the spelling of the folder
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                # macOS leaves "._clip.mp4" beside "clip.mp4" on foreign file systems.
                shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield parent, [""]
            continue
        yield parent, [entry.name for entry in shown if not _is_folder(entry)]
        pending += [os.path.join(parent, entry.name) for entry in reversed(shown) if _is_folder(entry)]  # noqa: PTH118


def videos_in(folder: str) -> Iterator[str]:
    """Yield every video in a folder and its subfolders, sorted within each, except hidden files and folders.

    Links are followed. A folder that cannot be listed is yielded itself: it fails when it is read, with the cause.
    """
    for parent, files in folders_in(folder):
        for name in files:
            if not name:
                yield parent
            elif name.lower().endswith(VIDEO_SUFFIXES):
                yield os.path.join(parent, name)  # noqa: PTH118 - keeps the spelling of the folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link in a circle, or to where it may not be looked.
        return False


def regular_file(path: object) -> str:
    """Return the name of a file that is there, can be read and is not empty.

    Raises:
        VideoTypeError: It is not a path.
        VideoNotFoundError: It is not there, is an address, or may not be read.
        VideoDecodeError: It is empty, a folder or a device.
    """
    name = path_of(path, "a path, the bytes of a file or a binary file")
    shown = printable(without_passwords(name))
    try:
        status = os.stat(name)  # noqa: PTH116 - Path would change the name that the messages quote
        if stat.S_ISDIR(status.st_mode):
            os.scandir(name).close()
        elif stat.S_ISREG(status.st_mode):
            os.close(os.open(name, os.O_RDONLY))
    except (FileNotFoundError, NotADirectoryError):
        if is_address(name):
            message = f"{shown} is an address, not a file: download it, or watch it with `xclip-onnx stream`"
        else:
            message = f"no such file: {shown}: check the path"
        raise VideoNotFoundError(message) from None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        message = f"{shown} cannot be read ({cause}): check the path and its permissions"
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


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, or None for an address and the like."""
    with suppress(OSError, ValueError):
        status = os.stat(path)  # noqa: PTH116 - the name as it is spelt
        return status.st_dev, status.st_ino
    return None
