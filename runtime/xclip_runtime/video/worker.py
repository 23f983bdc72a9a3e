"""The decode worker: a process that reads videos for another one, and that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cv2
import numpy as np

from xclip_runtime.errors import FramesError, VideoDecodeError, XClipError
from xclip_runtime.video.ipc import header_of, pack, read, reading_of
from xclip_runtime.video.load import read_video
from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    Job = Mapping[str, Any]
    Response = tuple[dict[str, Any], NDArray[np.uint8] | None]

PIPE_BYTES = 1 << 20
HEARTBEAT_SECONDS = 0.25
_F_SETPIPE_SZ = 1031
# The first bytes of the images that are read; OpenCV knows many more formats.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_WEBP = (b"RIFF", b"WEBP")


def main() -> None:
    """Run jobs until the pipe is closed; the first argument is `ipc.worker_command`'s configuration as JSON."""
    config = json.loads(sys.argv[1])
    requests, responses = sys.stdin.buffer, _take_stdout()
    # Terminals and service managers signal every process, but a server ends its workers itself, after the admitted
    # requests are answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _be_killed_first()
    # There is one worker per CPU already.
    cv2.setNumThreads(1)
    jobs = _jobs(config)
    _limit_resources(config["memory"])
    with suppress(BrokenPipeError):
        responses.write(pack({"ready": True}))
        responses.flush()
        while (message := read(requests)) is not None:
            _run_job(jobs, *message, responses)


def _run_job(
    jobs: Mapping[str, Callable[[Job, bytes], Response]], job: Job, payload: bytes, responses: IO[bytes]
) -> None:
    _set_alarm(job["time_limit"])
    frames: NDArray[np.uint8] | None = None
    try:
        with _heartbeat(responses):
            header, frames = jobs[job["do"]](job, payload)
    except XClipError as error:
        # Clients know the name that they sent, not the path of the temporary file.
        header = {"error": type(error).__name__, "message": str(error).replace(job["path"], job["name"])}
    except Exception as error:  # noqa: BLE001 - any failure is blamed on the file
        reason = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        message = f"{job['name']} cannot be decoded ({reason}): convert it to MP4 (H.264)"
        header = {"error": VideoDecodeError.__name__, "message": message}
    _set_alarm(None)
    responses.write(pack(header, 0 if frames is None else frames.nbytes))
    if frames is not None:
        responses.write(frames.data.cast("B"))
    responses.flush()


@contextmanager
def _heartbeat(responses: IO[bytes]) -> Iterator[None]:
    """Send the other process regular signs of life: a silent process is stopped or starved, not slow."""
    ended = threading.Event()

    def beat() -> None:
        with suppress(OSError):
            while not ended.wait(HEARTBEAT_SECONDS):
                responses.write(pack({"alive": True}))
                responses.flush()

    thread = threading.Thread(target=beat, name="xclip-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _jobs(config: Mapping[str, Any]) -> Mapping[str, Callable[[Job, bytes], Response]]:
    policy = ThreadPolicy(config["cpus"]) if config["cpus"] else None

    def read_clip(job: Job, _: bytes) -> Response:
        path, num_frames, transform, reading = reading_of(job)
        clip = read_video(path, num_frames, transform, replace(reading, policy=policy))
        return header_of(clip), np.ascontiguousarray(clip.frames)

    def read_image(job: Job, payload: bytes) -> Response:
        image = None
        if payload.startswith(_IMAGES) or (payload[:4], payload[8:12]) == _WEBP:
            try:
                image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR_RGB)
            except cv2.error as error:
                message = f"{job['name']} is damaged, or exceeds the limit of {config['max_pixels']} pixels: send less"
                raise FramesError(message) from error
        if image is None:
            message = f"{job['name']} is not an image: send JPEG, PNG or WebP"
            raise FramesError(message)
        return {"shape": image.shape}, np.ascontiguousarray(image)

    return {"clip": read_clip, "image": read_image}


def _take_stdout() -> IO[bytes]:
    """Move the pipe to the other process off stdout, where native code may print."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(pipe, "wb")


def _be_killed_first() -> None:
    """Make this process the first that the kernel kills when memory runs out: the server replaces it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _set_alarm(seconds: float | None) -> None:
    """End this process after twice `seconds`, in case the other one is gone and cannot kill it; None ends an alarm."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 2 * (seconds or 0))


def _limit_resources(memory: int | None) -> None:
    """Limit the address space to `memory` bytes, if any; forbid writing files and core dumps."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - not on Windows

        space = resource.RLIM_INFINITY if memory is None else memory
        for kind, limit in (("RLIMIT_AS", space), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
            with suppress(ValueError, OSError):
                resource.setrlimit(getattr(resource, kind), (limit, limit))
