"""Ray actor that reads groups of videos and writes their rows."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import fsspec
import numpy as np
import ray

from xclip_runtime.errors import VideoNotFoundError, XClipError
from xclip_runtime.integrations.ray_cluster.shards import CLASSIFICATIONS, EMBEDDINGS, Shards
from xclip_runtime.integrations.ray_cluster.store import ResultStore
from xclip_runtime.model import XClip
from xclip_runtime.util.addresses import is_address, without_passwords
from xclip_runtime.util.system_errors import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xclip_runtime.results import Classification, VideoFeatures

Task = Literal["classify", "embed"]

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EROFS,
    errno.ESTALE,
}
_TEMPORARY = "xclip-onnx-bulk-"
# Between the creation of a temporary folder and its lock.
_UNLOCKED_S = 60.0
_LONGEST_PAUSE_S = 60.0
# More than any ordinary video takes.
_ROOM_BYTES = 1 << 30


class BulkWorker:
    """Ray actor with a model, which is loaded for the first group."""

    def __init__(self, bundle: str, output: str, run: str, task: Task, top_k: int, **model_options: Any) -> None:
        self._bundle, self._options = bundle, model_options
        self._output, self._run = output, run
        self._task = task
        self._top_k = top_k
        self._troubles = 0

    def __call__(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Write the shard of a group; return the counts, videos that this machine does not reach, and its trouble.

        Trouble of the machine is no fault of the videos: then nothing is written, and the pause before the answer
        grows, so that a machine on which everything fails does not draw most of the work.
        """
        node = ray.util.get_node_ip_address()
        answer = {
            "number": int(group["number"]),
            "node": ray.get_runtime_context().get_node_id(),
            "machine": f"{socket.gethostname()} ({node})",
        }
        nothing = {"done": 0, "failed": 0, "unreached": "", "trouble": ""}
        try:
            found = self._write([str(video) for video in group["videos"]], sure=bool(group["sure"]))
        except Exception as error:  # noqa: BLE001 - the driver decides where the group goes
            found = {"trouble": _in_one_line(error)}
        answer = {**answer, **nothing, **found}
        if answer["done"] or answer["failed"]:
            self._troubles = 0
        else:
            time.sleep(min(_LONGEST_PAUSE_S, 2.0**self._troubles))
            self._troubles += 1
        return answer

    @cached_property
    def _model(self) -> XClip:
        return XClip(self._bundle, **self._options)

    @cached_property
    def _shards(self) -> Shards:
        return Shards(ResultStore(self._output), self._run)

    def _write(self, videos: list[str], *, sure: bool) -> dict[str, Any]:
        rows, unreached = [], []
        with _temporary_folder() as folder:
            files = _LocalFiles(folder)
            local = map(files.fetch, videos)
            threads = self._options.get("threads") or 1
            results: Iterator[Classification | VideoFeatures | XClipError]
            if self._task == "classify":
                schema = CLASSIFICATIONS
                results = self._model.classify_each(local, top_k=self._top_k, workers=threads)
            else:
                schema = EMBEDDINGS
                results = self._model.features_each(local, workers=threads)
            for video, result in zip(videos, results, strict=True):
                outcome = files.errors.get(video, result)
                if isinstance(outcome, XClipError):
                    if _is_of_the_machine(outcome):
                        raise outcome
                    _check_room()
                if isinstance(outcome, VideoNotFoundError) and not (sure or video in files.missing):
                    unreached.append(video)
                else:
                    rows.append(self._row(video, outcome))
                files.drop(video)
        if rows:
            self._shards.write(schema, videos, rows)
        failed = sum("error_type" in row for row in rows)
        # Not a list, of which Ray would have to guess the type where it is empty.
        return {"done": len(rows) - failed, "failed": failed, "unreached": "\0".join(unreached)}

    def _row(self, video: str, result: Any) -> dict[str, Any]:
        video = without_passwords(video)
        if isinstance(result, XClipError):
            return {"video": video, "error_type": type(result).__name__, "error": str(result)}
        row = {"video": video, "provider": self._model.provider, "precision": self._model.precision}
        if self._task == "embed":
            return {**row, "embedding": result.unit_embeds.tolist()}
        timings = result.to_dict()["timings_ms"]
        return {
            **row,
            "labels": [label.label for label in result.labels],
            "probs": [label.prob for label in result.labels],
            "logits": [label.logit for label in result.labels],
            "frames_total": result.frames.total,
            **{f"{stage}_ms": ms for stage, ms in timings.items()},
        }


class _LocalFiles:
    """Local paths of videos; remote ones are copied to a temporary folder and dropped after use."""

    def __init__(self, folder: Path) -> None:
        self.errors: dict[str, XClipError] = {}
        self.missing: set[str] = set()
        """Videos of which their store says that it has none."""
        self._folder = folder
        self._copies: dict[str, Path] = {}

    def fetch(self, video: str) -> str:
        if not is_address(video):
            return video
        # The last part of an address need not be a valid file name; decoders need the suffix alone.
        copy = self._copies[video] = self._folder / f"{len(self._copies)}{Path(video).suffix[:10]}"
        copy.touch()
        try:
            fs, path = fsspec.core.url_to_fs(video)
            fs.get_file(path, str(copy))
        except Exception as error:
            if isinstance(error, MemoryError) or _is_of_the_machine(error):
                raise
            message = f"{video} cannot be fetched ({type(error).__name__}: {error}): check the address"
            self.errors[video] = VideoNotFoundError(without_passwords(message))
            if is_fault_of_video(error):
                self.missing.add(video)
        return str(copy)

    def drop(self, video: str) -> None:
        if video in self._copies:
            self._copies[video].unlink(missing_ok=True)


def is_fault_of_video(error: Exception) -> bool:
    """Return True for errors that every machine would get: a missing video or an invalid address."""
    gone = getattr(error, "status", None) in {400, 404, 410, 414, 451}
    return gone or isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError))


def _is_of_the_machine(error: BaseException | None) -> bool:
    while error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_room() -> None:
    """Raise a MemoryError if a video may have failed for want of memory or threads.

    The video's error does not tell: FFmpeg calls videos damaged for which it has too little, and files that are made to
    ask for gigabytes fail with "Cannot allocate memory" on every machine.
    """
    try:
        np.empty(_ROOM_BYTES, np.uint8)  # Reserved, but not used.
        threading.Thread(target=int).start()
    except RuntimeError as error:
        raise MemoryError from error


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, XClipError):
        return without_passwords(explain(error))
    if isinstance(error, MemoryError):
        return "out of memory or threads: give its workers fewer CPUs, or the machine more memory"
    name = "" if isinstance(error, XClipError) else f"{type(error).__name__}: "
    return without_passwords(" ".join(f"{name}{error}".split()))


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end, or by another worker of the machine after this one was killed."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_TEMPORARY}*"):
        _remove_if_left(left)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=root) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime < _UNLOCKED_S:
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
