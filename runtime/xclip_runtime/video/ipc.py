"""Messages between a process that reads videos and the one that asks it: a JSON header and a payload of bytes.

Nothing is unpickled, so a worker that a malicious video has compromised can send wrong pixels, but cannot run code in
the process that asks.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from xclip_runtime import errors
from xclip_runtime.errors import DecoderCrashedError, FramesError, VideoDecodeError, VideoError
from xclip_runtime.video import Clip, FrameTransform, Views
from xclip_runtime.video.load import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xclip_runtime.errors import XClipError

# Ctrl-C in a terminal is for the process that asks, from the start.
_CODE = """import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from xclip_runtime.video.worker import main
main()"""

LENGTHS = struct.Struct(">II")
"""Lengths of header and payload, bytes."""

_OPTIONS = ("start", "end", "track", "square_pixels", "max_pixels", "max_duration", "time_limit", "decoder")
_FACTS = ("indices", "decoded", "total", "decode_ms", "prepare_ms", "decoder", "codec", "fps", "method", "notes")


def worker_command(**config: object) -> tuple[list[str], dict[str, str]]:
    """Return the command line of a worker and its environment.

    Args:
        config: ``memory``, bytes of its address space, and ``max_pixels`` of an image; None for any.
    """
    environment = {
        **os.environ,
        "OPENCV_LOG_LEVEL": "SILENT",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
    }
    if config.get("max_pixels"):
        environment["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(config["max_pixels"])
    return [sys.executable, "-c", _CODE, json.dumps(config)], environment


def pack(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """Return a message without its payload, which the caller writes after it."""
    encoded = json.dumps(header).encode()
    return LENGTHS.pack(len(encoded), payload_bytes) + encoded


def read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read the next message of a pipe; None at its end, even within a message."""
    lengths = pipe.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    header_bytes, payload_bytes = LENGTHS.unpack(lengths)
    header, payload = pipe.read(header_bytes), pipe.read(payload_bytes)
    if len(header) < header_bytes or len(payload) < payload_bytes:
        return None
    return json.loads(header), payload


def clip_job(path: str, num_frames: int, transform: FrameTransform, reading: Reading) -> dict[str, Any]:
    """Describe the reading of a file for `reading_of`."""
    return {
        "do": "clip",
        "path": path,
        "name": path,
        "num_frames": num_frames,
        "transform": [transform.profile, transform.size],
        "views": [reading.views.positions, reading.views.crops],
        "options": {name: getattr(reading, name) for name in _OPTIONS},
        "time_limit": reading.time_limit,
    }


def reading_of(job: Mapping[str, Any]) -> tuple[str, int, FrameTransform, Reading]:
    """Return the arguments of `load.read_video` that a job describes."""
    reading = Reading(Views(*job["views"]), **job["options"])
    return job["path"], job["num_frames"], FrameTransform(*job["transform"]), reading


def header_of(clip: Clip) -> dict[str, Any]:
    """Describe a clip without its pixels."""
    return {"shape": clip.frames.shape, **{name: getattr(clip, name) for name in _FACTS}}


def clip_of(job: Mapping[str, Any], header: Mapping[str, Any], payload: bytes) -> Clip:
    """Restore the clip that a job asked for, frames uint8 RGB (V, T, size, size, 3).

    Raises:
        DecoderCrashedError: These are not its pixels.
    """
    size, (positions, crops) = job["transform"][1], job["views"]
    return Clip(
        frames=pixels_of(payload, (positions * crops, job["num_frames"], size, size, 3)),
        indices=tuple(int(index) for index in header["indices"]),
        decoded=int(header["decoded"]),
        total=int(header["total"]),
        decode_ms=float(header["decode_ms"]),
        prepare_ms=float(header["prepare_ms"]),
        decoder=str(header["decoder"]),
        codec=str(header["codec"]),
        fps=None if header["fps"] is None else float(header["fps"]),
        method=header["method"],
        notes=tuple(map(str, header["notes"])),
    )


def pixels_of(payload: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """View a payload as uint8 pixels of a shape.

    Raises:
        DecoderCrashedError: It has another size.
    """
    if len(payload) != int(np.prod(shape)):
        message = "the decoder sent an unexpected number of pixels: try again"
        raise DecoderCrashedError(message)
    return np.frombuffer(payload, np.uint8).reshape(shape)


def error_of(header: Mapping[str, Any]) -> XClipError:
    """Restore the error of a worker."""
    kind = getattr(errors, str(header["error"]), VideoDecodeError)
    known = isinstance(kind, type) and issubclass(kind, (VideoError, FramesError))
    return (kind if known else VideoDecodeError)(str(header["message"]))
