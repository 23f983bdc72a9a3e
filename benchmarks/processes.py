"""Arms in processes of their own, interleaved round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bench.machine import busy_seconds
from xclip_runtime.util.memory import peak_rss_mb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
    Load = Callable[[str, Path, argparse.Namespace], Run]

# Seconds. Thread pools spin for a while after a clip: without a pause an arm would pay for the one before it.
PAUSE = 0.3


def work(arm: str, folder: Path, options: argparse.Namespace, load: Load) -> None:
    """Run an arm's process: load, then print one JSON line for each path read from stdin.

    A .npy file is loaded as a clip; any other path is passed to the arm as it is.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps output of libraries out of the answers
    started = time.perf_counter()
    try:
        run = load(arm, folder, options)
        print(json.dumps({"load_s": time.perf_counter() - started}), file=answers)
        for line in sys.stdin:
            print(json.dumps(answer(run, line.strip(), folder / f"{arm}.npz")), file=answers)
    except Exception as error:  # any error of a peer goes to its row of the table
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]}), file=answers)
        raise


def answer(run: Run, name: str, output: Path) -> dict[str, Any]:
    """Run a clip or a file, save the outputs, and return time and peak memory."""
    clip = np.load(name) if name.endswith(".npy") else name
    others, own, started = busy_seconds(), time.process_time(), time.perf_counter()
    video_embeds, img_features = run(clip)
    seconds = time.perf_counter() - started
    others = busy_seconds() - others - (time.process_time() - own)
    np.savez(output, video_embeds=video_embeds, img_features=img_features)
    return {
        "seconds": seconds,
        "others": max(0.0, others) / seconds,
        "peak_mb": peak_rss_mb(),
        "output": str(output),
    }


class Arm:
    """Process of one arm."""

    def __init__(self, name: str, folder: Path, options: argparse.Namespace, script: str) -> None:
        started = time.perf_counter()
        self.name, self.seconds, self.others, self.peak_mb = name, list[float](), list[float](), 0.0
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", name, str(folder), *forwarded(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.load_s = self._answer()["load_s"]
        self.start_to_loaded_s = time.perf_counter() - started
        self.first_s: float | None = None

    def turn(self, clip: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run one clip; the first run is recorded apart from the others."""
        assert self.process.stdin is not None
        time.sleep(PAUSE)
        print(clip, file=self.process.stdin, flush=True)
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        if self.first_s is None:
            self.first_s = answer["seconds"]
        else:
            self.seconds.append(answer["seconds"])
            self.others.append(answer["others"])
        with np.load(answer["output"]) as outputs:
            return outputs["video_embeds"], outputs["img_features"]

    def close(self) -> None:
        """Close stdin and wait for the process to exit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            message = f"the process of arm {self.name} ended with status {self.process.wait()}"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def forwarded(options: argparse.Namespace) -> list[str]:
    """Format the options that give a child process the same configuration."""
    return [
        f"--{name}={getattr(options, name)}" for name in ("frames", "patch", "layers", "threads", "rounds", "clips")
    ]


def take_turns(arms: Collection[Arm], clip: Path, rounds: int) -> tuple[list[int], bool]:
    """Run all arms, round by round, then close them.

    Returns:
        Rounds that count; True if other processes took at most a tenth of every clip's time in them.
    """
    for index in range(rounds):
        for arm in arms:
            arm.turn(clip)
        others = max(arm.others[-1] for arm in arms)
        print(f"round {index + 1} of {rounds}; others took up to {others:.0%} of a clip", file=sys.stderr)
    for arm in arms:
        arm.close()
    return quiet_rounds([max(arm.others[i] for arm in arms) for i in range(rounds)])


def quiet_rounds(others: Sequence[float]) -> tuple[list[int], bool]:
    """Select rounds by the share of a clip's time that other processes took; True if all selected are at most 0.1."""
    quiet = [i for i, share in enumerate(others) if share <= 0.1]
    return (quiet, True) if len(quiet) >= min(3, len(others)) else (list(range(len(others))), False)
