"""Pool of decode workers: a malicious file costs one request, not the server."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from xclip_runtime.errors import DecoderCrashedError, OverloadedError, VideoTimeoutError
from xclip_runtime.video.ipc import LENGTHS, clip_job, clip_of, error_of, pack, pixels_of, worker_command
from xclip_runtime.video.load import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from xclip_runtime.serve.settings import Limits
    from xclip_runtime.video import Clip, FrameTransform, Views

logger = logging.getLogger(__name__)

_START_SECONDS = 120.0
# Larger than a clip, so that flow control does not pause the reader every 64 KiB.
_PIPE_BYTES = 8 << 20
# A worker stops by itself at the time limit, with a better message; it is killed if it does not.
_GRACE_SECONDS = 1.0
# A worker that says nothing for so long has been stopped, or gets no CPU.
_SILENCE_SECONDS = 5.0
_ATTEMPTS = 2
# A frame of a camera takes milliseconds; one that is made to take long must not keep a worker for the time of a video.
_IMAGE_SECONDS = 5.0
# A worker whose caller has left may finish so long: replacing it costs more than most files.
_SETTLE_SECONDS = 1.0


class _StalledError(Exception):
    """A worker does not answer, through no fault of the file."""


class _DecodeProcess:
    """A worker process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lengths: tuple[int, int] | None = None
        self._header: dict[str, Any] | None = None
        self.busy = False

    @classmethod
    async def start(cls, config: Mapping[str, Any]) -> _DecodeProcess:
        command, environment = worker_command(**config)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_PIPE_BYTES,
            env=environment,
        )
        worker = cls(process)
        try:
            with anyio.fail_after(_START_SECONDS):
                await worker.receive()
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> None:
        await self._process.wait()

    async def send(self, header: Mapping[str, Any], payload: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - opened by start()
        pipe.write(pack(header, len(payload)))
        pipe.write(payload)
        await pipe.drain()

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """Read the next message; if this is cancelled, the next call goes on where it stopped."""
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - opened by start()
        if self._lengths is None:
            self._lengths = LENGTHS.unpack(await pipe.readexactly(LENGTHS.size))
        header_bytes, payload_bytes = self._lengths
        if self._header is None:
            self._header = json.loads(await pipe.readexactly(header_bytes))
        payload = await pipe.readexactly(payload_bytes)
        header, self._header, self._lengths = self._header, None, None
        return header, payload

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        # Closes the pipes: an open transport warns when it is garbage-collected.
        await self._process.communicate()


class DecodePool:
    """Decode processes; each is replaced when it crashes or is killed.

    Args:
        workers: Number of processes.
        limits: Resource limits.
        on_restart: Called with one of `metrics.WORKER_LOSSES` when a worker is replaced.
    """

    def __init__(
        self,
        *,
        workers: int,
        limits: Limits,
        on_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = {"memory": limits.decode_memory, "max_pixels": limits.pixels, "cpus": None}
        self._limits = limits
        self._count = workers
        self._on_restart = on_restart
        self._idle: asyncio.Queue[_DecodeProcess] = asyncio.Queue()
        self._workers: set[_DecodeProcess] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False
        self.waiting = 0
        """Number of queued jobs."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the running workers."""
        return tuple(worker.pid for worker in self._workers if worker.alive)

    async def start(self) -> None:
        """Start the workers and wait until all of them are ready.

        Raises:
            DecoderCrashedError: A worker does not start.
        """
        tasks = [asyncio.ensure_future(self._add_worker()) for _ in range(self._count)]
        self._starting.update(tasks)
        try:
            await asyncio.gather(*tasks)
        except (OSError, asyncio.IncompleteReadError) as error:
            message = "a decode worker does not start: see its message above and run `xclip-onnx doctor`"
            raise DecoderCrashedError(message) from error
        finally:
            self._starting.difference_update(tasks)

    async def close(self) -> None:
        """Kill every worker."""
        self._closed = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers))
        self._workers.clear()

    async def clip(
        self,
        path: Path,
        name: str,
        *,
        num_frames: int,
        transform: FrameTransform,
        views: Views,
        start: float = 0.0,
        end: float | None = None,
        track: int | None = None,
    ) -> Clip:
        """Sample and prepare the frames of a video file.

        Args:
            path: The file.
            name: Name of the video for messages.
            num_frames: Frames of a clip.
            transform: Preprocessing of the frames.
            views: Temporal clips and crops.
            start: Seconds from the first frame.
            end: Seconds; None for the end of the video.
            track: Number of the video track, from 0; None for FFmpeg's best.

        Returns:
            A clip with frames uint8 RGB (V, T, size, size, 3).

        Raises:
            VideoError: It cannot be read, is over a limit, or takes too long.
            DecoderCrashedError: The worker died; the next request gets another.
            OverloadedError: No worker answers.
        """
        reading = Reading(
            views,
            start=start,
            end=end,
            track=track,
            max_pixels=self._limits.pixels,
            max_duration=self._limits.duration,
            time_limit=self._limits.time_limit,
        )
        job = {**clip_job(str(path), num_frames, transform, reading), "name": name}
        return clip_of(job, *await self._run(job, b"", self._limits.time_limit))

    async def image(self, encoded: bytes, name: str) -> NDArray[np.uint8]:
        """Decode one JPEG, PNG or WebP to uint8 RGB (H, W, 3).

        Raises:
            FramesError: It is not an image.
            VideoTimeoutError: Decoding exceeds the time limit.
            DecoderCrashedError: The worker crashed.
            OverloadedError: No worker answers.
        """
        job = {"do": "image", "path": name, "name": name}
        header, payload = await self._run(job, encoded, min(_IMAGE_SECONDS, self._limits.time_limit))
        height, width, channels = header["shape"]
        return pixels_of(payload, (int(height), int(width), int(channels)))

    async def _run(self, job: dict[str, Any], payload: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        for _ in range(_ATTEMPTS):
            with suppress(_StalledError):
                return await self._run_once(job, payload, seconds)
        message = "the decode workers do not answer: try again later"
        raise OverloadedError(message)

    async def _run_once(self, job: dict[str, Any], payload: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        worker = await self._take()
        lost: str | None = "cancelled"
        give_up = time.perf_counter() + seconds + _GRACE_SECONDS
        silence = min(_SILENCE_SECONDS, (seconds + _GRACE_SECONDS) / 2)
        try:
            with anyio.fail_after(silence):
                await worker.send({**job, "time_limit": seconds}, payload)
            header = {"alive": True}
            while "alive" in header:
                with anyio.fail_after(max(0.0, min(silence, give_up - time.perf_counter()))):
                    header, answer = await worker.receive()
            lost = None
        except TimeoutError:
            if time.perf_counter() < give_up:
                lost = "stalled"
                raise _StalledError from None
            lost = "timeout"
            message = f"{job['name']} takes longer than {seconds:g} s to decode: send a shorter or smaller one"
            raise VideoTimeoutError(message) from None
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            lost = "crashed"
            message = f"the decoder crashed on {job['name']}: try again, or convert it to MP4 (H.264)"
            raise DecoderCrashedError(message) from None
        finally:
            if lost is None:
                self._put(worker)
            elif lost == "cancelled":
                self._start(self._settle(worker))
            else:
                self._replace(worker, lost)
        if "error" in header:
            raise error_of(header)
        return header, answer

    async def _take(self) -> _DecodeProcess:
        self.waiting += 1
        try:
            while True:
                worker = await self._idle.get()
                # One that died while idle is replaced by its watcher, and no request is lost.
                if worker.alive:
                    worker.busy = True
                    return worker
        finally:
            self.waiting -= 1

    async def _settle(self, worker: _DecodeProcess) -> None:
        """Wait until a worker has done what nobody awaits any more; replace it if that takes long."""
        try:
            with anyio.fail_after(_SETTLE_SECONDS):
                while "alive" in (await worker.receive())[0]:
                    pass
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, ValueError):
            self._replace(worker, "cancelled")
        else:
            self._put(worker)

    def _put(self, worker: _DecodeProcess) -> None:
        if worker.alive:
            worker.busy = False
            self._idle.put_nowait(worker)
        else:
            self._replace(worker, "idle")

    async def _watch(self, worker: _DecodeProcess) -> None:
        """Replace a worker that dies while it is idle, so that no request finds it dead."""
        await worker.wait()
        if not worker.busy:
            self._replace(worker, "idle")

    def _replace(self, worker: _DecodeProcess, reason: str) -> None:
        logger.warning("a decode worker is replaced", extra={"fields": {"reason": reason, "pid": worker.pid}})
        self._on_restart(reason)
        self._start(self._start_again(worker))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start_again(self, dead: _DecodeProcess) -> None:
        await dead.kill()
        self._workers.discard(dead)
        pause = 0.1
        while not self._closed:
            try:
                await self._add_worker()
            except (OSError, asyncio.IncompleteReadError):
                logger.exception("a decode worker does not start, trying again")
                await asyncio.sleep(pause)
                pause = min(2 * pause, 10.0)
            else:
                return

    async def _add_worker(self) -> None:
        worker = await _DecodeProcess.start(self._config)
        self._workers.add(worker)
        self._idle.put_nowait(worker)
        self._start(self._watch(worker))
