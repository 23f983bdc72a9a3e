"""The decode worker: reads videos for the server in a process that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from xclip_runtime.errors import FramesError, VideoDecodeError, XClipError
from xclip_runtime.serve.decode.ipc import pack, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
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
    """Run jobs until the server closes the pipe; the first argument is the pool's configuration as JSON."""
    config = json.loads(sys.argv[1])
    requests, responses = sys.stdin.buffer, _take_stdout()
    # Terminals and service managers signal every process, but the server ends its workers itself, after the admitted
    # requests are answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _be_killed_first()
    jobs = _jobs(config)
    _limit_resources(config["memory"])
    responses.write(pack({"ready": True}))
    responses.flush()
    with suppress(BrokenPipeError):
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
    _set_alarm(0)
    responses.write(pack(header, 0 if frames is None else frames.nbytes))
    if frames is not None:
        responses.write(frames.data.cast("B"))
    responses.flush()


@contextmanager
def _heartbeat(responses: IO[bytes]) -> Iterator[None]:
    """Send the server regular signs of life: a silent process is stopped or starved, not slow."""
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
    import cv2  # noqa: PLC0415 - loaded once a worker runs
    import numpy as np  # noqa: PLC0415

    from xclip_runtime.video import FrameTransform, Views  # noqa: PLC0415
    from xclip_runtime.video.load import Reading, read_video  # noqa: PLC0415

    # There is one worker per CPU already.
    cv2.setNumThreads(1)

    def read_clip(job: Job, _: bytes) -> Response:
        transform = FrameTransform(job["profile"], job["image_size"])
        limits = {name: job[name] for name in ("start", "end", "track", "time_limit", "max_pixels", "max_duration")}
        reading = Reading(Views(job["positions"], job["crops"]), **limits)
        clip = read_video(job["path"], job["num_frames"], transform, reading)
        frames = np.ascontiguousarray(clip.frames)
        facts = ("indices", "decoded", "total", "decode_ms", "prepare_ms", "decoder", "codec", "fps", "method", "notes")
        return {"shape": frames.shape, **{name: getattr(clip, name) for name in facts}}, frames

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
    """Move the pipe to the server off stdout, where native code may print."""
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


def _set_alarm(seconds: float) -> None:
    """End this process after twice `seconds`, in case the server is gone and cannot kill it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _limit_resources(memory: int) -> None:
    """Limit the address space to `memory` bytes; forbid writing files and core dumps."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - not on Windows

        for kind, limit in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
            with suppress(ValueError, OSError):
                resource.setrlimit(getattr(resource, kind), (limit, limit))
