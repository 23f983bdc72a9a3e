"""Engine of a candidate: its worker process, asked one clip at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

_START = "from xclip_runtime.tuning.worker import main; main()"
_LAST_LINE = 300


class EngineError(DeviceError):
    """A candidate that cannot be loaded, or whose process died."""


class EngineTimeoutError(EngineError):
    """A candidate that did not answer in time."""


class EngineProcess:
    """Worker process of a candidate.

    Args:
        model: Arguments of `XClip`.
        clips: File of the calibration clips, NumPy's.
        seconds: Time to load and to run a first clip.

    Attributes:
        facts: Its first answer: what was loaded, load time, memory and peak, and the result of clip 0.

    Raises:
        EngineError: The model cannot be loaded, or the process died.
    """

    def __init__(self, model: Mapping[str, Any], clips: str, seconds: float) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._unread = b""
        # A session of its own: Ctrl-C is for this process, which ends its workers.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _START, json.dumps({"model": dict(model), "clips": clips})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # What it leaves when it is killed is deleted with the folder of the clips.
            env={**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": os.path.dirname(clips)},  # noqa: PTH120 - a string
            start_new_session=True,
        )
        try:
            self.facts: Mapping[str, Any] = self._receive(seconds)
        except BaseException:
            self.close()
            raise

    def run(self, clip: int, seconds: float) -> dict[str, Any]:
        """Run a clip, and return its ``seconds`` and ``logits``.

        Raises:
            EngineError: The process died, or did not answer within ``seconds``.
        """
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - set by PIPE
        try:
            pipe.write(f"{clip}\n".encode())
            pipe.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self._receive(seconds)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _receive(self, seconds: float) -> dict[str, Any]:
        pipe, end = self._process.stdout, time.monotonic() + seconds
        assert pipe is not None  # noqa: S101 - set by PIPE
        while b"\n" not in self._unread:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                message = f"no answer within its {seconds:.0f} s of the budget: give a larger --budget"
                raise EngineTimeoutError(message)
            chunk = os.read(pipe.fileno(), 1 << 16)
            if not chunk:
                raise self._death()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def _death(self) -> EngineError:
        code = self._process.wait()
        if code < 0:
            killed = " (out of memory?)" if -code == signal.SIGKILL else ""
            return EngineError(f"its process was ended by {signal.Signals(-code).name}{killed}: leave this engine out")
        self._errors.seek(0)
        lines = self._errors.read()[-_LAST_LINE:].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        return EngineError(f"its process ended ({last}): reinstall the engine, or leave it out")
