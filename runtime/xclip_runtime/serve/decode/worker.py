"""The decode worker: a process that reads videos for the server and may be killed at any time."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from xclip_runtime.errors import FramesError, VideoDecodeError, XClipError
from xclip_runtime.serve.decode.ipc import pack, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    Job = Mapping[str, Any]
    Answer = tuple[dict[str, Any], NDArray[np.uint8] | None]

PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


def main() -> None:
    """Answer the server until it closes the pipe; the first argument is the pool's configuration as JSON."""
    config = json.loads(sys.argv[1])
    requests, answers = sys.stdin.buffer, _take_standard_output()
    # A terminal's Ctrl-C and a service manager's SIGTERM go to every process; the server ends its workers itself, when
    # the requests that it has accepted are answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    jobs = _jobs(config)
    _confine(config["memory"])
    answers.write(pack({"ready": True}))
    answers.flush()
    with suppress(BrokenPipeError):
        while (message := read(requests)) is not None:
            _answer(jobs, *message, answers)


def _answer(jobs: Mapping[str, Callable[[Job, bytes], Answer]], job: Job, payload: bytes, answers: IO[bytes]) -> None:
    _alarm(job["time_limit"])
    frames: NDArray[np.uint8] | None = None
    try:
        header, frames = jobs[job["do"]](job, payload)
    except XClipError as error:
        # The client sent a name, or none; the path of the temporary file is none of its business.
        header = {"error": type(error).__name__, "message": str(error).replace(job["path"], job["name"])}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file causes is about that file
        reason = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        message = f"{job['name']} cannot be decoded ({reason}): convert it to MP4 (H.264)"
        header = {"error": VideoDecodeError.__name__, "message": message}
    _alarm(0)
    answers.write(pack(header, 0 if frames is None else frames.nbytes))
    if frames is not None:
        answers.write(frames.data.cast("B"))
    answers.flush()


def _jobs(config: Mapping[str, Any]) -> Mapping[str, Callable[[Job, bytes], Answer]]:
    import cv2  # noqa: PLC0415 - loaded once a worker runs
    import numpy as np  # noqa: PLC0415

    from xclip_runtime.video import FrameTransform, Views  # noqa: PLC0415
    from xclip_runtime.video.load import Reading, read_video  # noqa: PLC0415

    # There is a worker for each CPU already.
    cv2.setNumThreads(1)
    transform = FrameTransform(config["profile"], config["image_size"])

    def read_clip(job: Job, _: bytes) -> Answer:
        limits = {name: job[name] for name in ("start", "end", "time_limit", "max_pixels", "max_duration")}
        reading = Reading(Views(job["clips"], job["crops"]), **limits)
        clip = read_video(job["path"], config["num_frames"], transform, reading)
        frames = np.ascontiguousarray(clip.frames)
        facts = ("indices", "decoded", "total", "decode_ms", "prepare_ms", "decoder", "codec", "fps", "method", "notes")
        return {"shape": frames.shape, **{name: getattr(clip, name) for name in facts}}, frames

    def read_image(job: Job, payload: bytes) -> Answer:
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            message = f"{job['name']} is no image: send JPEG, PNG or WebP"
            raise FramesError(message)
        return {"shape": image.shape}, np.ascontiguousarray(image)

    return {"clip": read_clip, "image": read_image}


def _take_standard_output() -> IO[bytes]:
    """The pipe to the server, out of the reach of native code that prints."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(pipe, "wb")


def _alarm(seconds: float) -> None:
    """End this process after so many seconds, wherever it is; the server does so, too, unless it is gone itself."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _confine(memory: int) -> None:
    """No more memory than this, no files written, no core dumps of other people's videos."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - not on Windows

        for kind, limit in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
            with suppress(ValueError, OSError):
                resource.setrlimit(getattr(resource, kind), (limit, limit))
