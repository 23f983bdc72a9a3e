"""Inputs that are read as a video, and their distinction from lists of videos."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeGuard

import numpy as np

from xclip_runtime.errors import FramesError, VideoDecodeError, VideoError, VideoTypeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Image(Protocol):
    """An image that numpy reads, such as PIL's."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Description of its memory for numpy."""


VideoFile = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, or the content of a video file as bytes or as a binary file, which is read from its start."""

Frames = np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any] | Image]
"""Frames in memory: uint8 RGB of shape (T, H, W, 3), any T ≥ 1, or a list of images."""

ACCEPTED = "a path, the bytes of a file, a binary file, frames as uint8 RGB (T, H, W, 3) or a list of images, or a Clip"
CHUNK = 1 << 20
IN_MEMORY = "the video in memory"


def is_several(videos: object) -> bool:
    """Return True for an iterable of videos, False for one video and for anything else.

    A list is one video if its first item is an image, which has at most three axes, and several videos otherwise. An
    array of five axes, (N, T, H, W, 3), is several videos.
    """
    if isinstance(videos, np.ndarray):
        return videos.ndim == 5
    if isinstance(videos, (str, os.PathLike, Mapping)) or is_file_content(videos) or _is_array(videos):
        return False
    if isinstance(videos, Sequence) and len(videos) > 0 and _is_array(videos[0]):
        return np.ndim(videos[0]) > 3
    return isinstance(videos, Iterable)


def check_several(videos: object) -> None:
    """Refuse anything but an iterable of videos.

    Raises:
        VideoTypeError: It is one video, or no video at all.
    """
    if not is_several(videos):
        images = isinstance(videos, Sequence) and not isinstance(videos, (str, bytes, bytearray, memoryview))
        given = "a list of images is one video" if images else f"{_kind(videos)} is not a list of videos"
        message = f"{given}: put it into a list, each item being {ACCEPTED}"
        raise VideoTypeError(message)


def is_file_content(video: object) -> TypeGuard[bytes | bytearray | memoryview | BinaryIO]:
    """Return True for bytes and for objects to read bytes from."""
    return isinstance(video, (bytes, bytearray, memoryview)) or hasattr(video, "read")


def name_of(video: object) -> str | None:
    """Return the path as given, or None for a video in memory."""
    return os.fspath(video) if isinstance(video, (str, os.PathLike)) else None


def path_of(video: object, accepted: str) -> str:
    """Return the path as given, or raise a VideoTypeError that names what is ``accepted``."""
    if not isinstance(video, (str, os.PathLike)):
        message = f"cannot read {_kind(video)} as a video: give {accepted}"
        raise VideoTypeError(message)
    return os.fsdecode(video)


def frames_of(video: object) -> NDArray[Any]:
    """Return frames in memory as one array.

    Raises:
        FramesError: The images differ in size or kind.
        VideoTypeError: The object holds no frames.
    """
    if _is_array(video):
        return np.asarray(video)
    if not isinstance(video, Sequence) or not video or not all(map(_is_array, video)):
        message = f"cannot read {_kind(video)} as a video: give {ACCEPTED}"
        raise VideoTypeError(message)
    frames = [np.asarray(frame) for frame in video]
    kinds = {(frame.shape, str(frame.dtype)) for frame in frames}
    if len(kinds) > 1:
        shown = " and ".join(f"{dtype} {shape}" for shape, dtype in sorted(kinds)[:2])
        message = f"the frames of the list differ ({shown}): give images of one size as uint8 RGB (H, W, 3)"
        raise FramesError(message)
    return np.stack(frames)


@contextmanager
def as_file(video: bytes | bytearray | memoryview | BinaryIO) -> Iterator[Path]:
    """Yield a temporary file with the content of a video, which may be of any container.

    Raises:
        VideoTypeError: A file is open in text mode.
        VideoDecodeError: A file cannot be read.
        VideoError: The temporary file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="xclip-onnx-") as folder:
        path = Path(folder) / "video"
        chunks = (video,) if isinstance(video, (bytes, bytearray, memoryview)) else _chunks(video)
        try:
            with path.open("wb") as file:
                file.writelines(chunks)
        except OSError as error:
            message = f"cannot write a temporary file in {folder} ({error.strerror}): free space, or set TMPDIR"
            raise VideoError(message) from error
        try:
            yield path
        except VideoError as error:
            error.args = (str(error).replace(repr(str(path)), IN_MEMORY).replace(str(path), IN_MEMORY),)
            raise


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        while chunk := file.read(CHUNK):
            if not isinstance(chunk, (bytes, bytearray, memoryview)):
                message = f"reading the file gives {_kind(chunk)}, not bytes: open it with mode 'rb'"
                raise VideoTypeError(message)
            yield chunk
    except (OSError, ValueError, TypeError, AttributeError) as error:  # ValueError: it is closed
        if isinstance(error, VideoError):
            raise
        message = f"cannot read the file object ({error}): give a readable binary file"
        raise VideoDecodeError(message) from error


def _is_array(item: object) -> bool:
    return isinstance(item, np.ndarray) or hasattr(item, "__array_interface__") or hasattr(item, "__array__")


def _kind(item: object) -> str:
    return "None" if item is None else f"an object of type {type(item).__name__}"
