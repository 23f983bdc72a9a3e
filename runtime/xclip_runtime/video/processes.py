"""Reading of several videos at once: in threads, and in processes where the GIL limits these."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from xclip_runtime.errors import DecoderCrashedError
from xclip_runtime.util.arguments import check_count
from xclip_runtime.util.cpus import default_workers
from xclip_runtime.util.plain_text import printable
from xclip_runtime.util.prefetch import pipelined_or_errors
from xclip_runtime.video.ipc import clip_job, clip_of, error_of, pack, read, worker_command
from xclip_runtime.video.load import read_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from typing_extensions import Self

    from xclip_runtime.errors import XClipError
    from xclip_runtime.video import Clip, FrameTransform
    from xclip_runtime.video.load import Reading, Video

    ReadVideo: TypeAlias = Callable[[Video, int, FrameTransform, Reading], Clip]
    """`load.read_video`, in whatever thread or process."""

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

ENOUGH_THREADS = 4
"""Threads beyond which processes read faster: Python's lock is held for 30 % of the work at 320x240, 5 % at 720p."""

PER_CPU = "one per CPU"
_OF_THIS_PROCESS = ("/dev/", "/proc/")


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Item, ReadVideo], Prepared],
    finish: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result]],
    *,
    workers: int | None,
    batch: int = 1,
) -> Iterator[Result | XClipError]:
    """Run `pipelined_or_errors` on items that ``read`` makes clips of, with the function that it gets.

    ``workers`` None takes `default_workers`.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    check_count("workers", workers, PER_CPU)
    threads = workers or default_workers()

    def results() -> Iterator[Result | XClipError]:
        with VideoReaders(threads) as read_video:
            yield from pipelined_or_errors(
                items, lambda item: read(item, read_video), finish, workers=threads, batch=batch
            )

    return results()


class VideoReaders:
    """Reads videos for a number of threads, each call like `load.read_video`; leaving the context ends the processes.

    Up to `ENOUGH_THREADS` threads read by themselves. Of more, each reads its first video by itself, so that short
    lists start no process, and the others in a process, where a file that crashes its decoder harms no other. Videos in
    memory are read in this process.
    """

    def __init__(self, threads: int) -> None:
        # A frozen application would start itself again.
        startable = bool(sys.executable) and not getattr(sys, "frozen", False)
        self._by_threads: float = threads if startable and threads > ENOUGH_THREADS else float("inf")
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            processes, self._processes, self._idle = self._processes, set(), []
        for process in processes:
            process.kill()

    def __call__(self, video: Video, num_frames: int, transform: FrameTransform, reading: Reading) -> Clip:
        """Read a video; raises what `load.read_video` does, and DecoderCrashedError where a process dies."""
        if not isinstance(video, (str, os.PathLike)) or reading.policy is not None:
            return read_video(video, num_frames, transform, reading)
        path = os.fsdecode(video)
        with self._process() as process:
            if process is None or path.startswith(_OF_THIS_PROCESS):
                return read_video(video, num_frames, transform, reading)
            return process.read(clip_job(path, num_frames, transform, reading))

    @contextmanager
    def _process(self) -> Iterator[_Process | None]:
        """Lend an idle process, or a new one; none while threads suffice, or where no process starts."""
        with self._lock:
            self._by_threads -= 1
            by_thread = self._by_threads >= 0 or self._closed
            process = None if by_thread or not self._idle else self._idle.pop()
        if process is None and not by_thread:
            process = self._start()
        try:
            yield process
        finally:
            if process is not None:
                self._give_back(process)

    def _start(self) -> _Process | None:
        try:
            process = _Process()
        except (OSError, EOFError):
            self._by_threads = float("inf")
            return None
        with self._lock:
            if not self._closed:
                self._processes.add(process)
                return process
        process.kill()
        return None

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if process.alive and not self._closed:
                self._idle.append(process)
                return
            self._processes.discard(process)
        process.kill()


class _Process:
    """A process that reads one video after the other, and its pipes."""

    def __init__(self) -> None:
        command, environment = worker_command(memory=None, max_pixels=None, cpus=1)
        # In a session of its own, Ctrl-C does not reach it, not even while Python starts; it ends with the pipe.
        self._process = subprocess.Popen(  # noqa: S603 - this Python
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.alive = True
        try:
            self._receive()
        except EOFError:
            self.kill()
            raise

    def read(self, job: dict[str, Any]) -> Clip:
        try:
            self._requests.write(pack(job))
            self._requests.flush()
            header, payload = self._receive()
        except (OSError, ValueError, EOFError):
            self.alive = False
            message = f"the decoder crashed on {printable(job['path'])}: convert it to MP4 (H.264)"
            raise DecoderCrashedError(message) from None
        if "error" in header:
            raise error_of(header)
        return clip_of(job, header, payload)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        # A thread that still waits for an answer holds the pipe's lock until it has seen the end.
        for pipe in (self._requests, self._responses):
            with suppress(OSError):
                pipe.close()

    @property
    def _requests(self) -> Any:
        return self._process.stdin

    @property
    def _responses(self) -> Any:
        return self._process.stdout

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        header: dict[str, Any] = {"alive": True}
        while "alive" in header:
            message = read(self._responses)
            if message is None:
                raise EOFError
            header, payload = message
        return header, payload
