"""Does reading ahead hide the shorter of decoding and inference? Interleaved in one run.

    python benchmarks/pipeline.py clips --bundle bundle --json results/pipeline.json

A round takes, in turn and in random order: only reading every video, only running the model on clips in memory, one
video after the other, and `classify_each` with several numbers of workers. The table gives medians over the rounds, and
each as a ratio to the longer of the first two, the least that any schedule can reach where there are cores for both.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime import XClip
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cpus import available_cpus
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable


def arms(model: XClip, videos: list[str], workers: list[int]) -> dict[str, Callable[[], object]]:
    """What a round measures."""
    read = partial(read_clip, num_frames=model.bundle.num_frames, transform=model.transform)
    clips = [read(video) for video in videos]
    return {
        "decode": lambda: [read(video) for video in videos],
        "inference": lambda: [model.classify(clip) for clip in clips],
        "in turn": lambda: [model.classify(video) for video in videos],
        **{
            f"{n} workers": lambda n=n: deque(model.classify_each(videos, workers=n), maxlen=0)  # type: ignore[misc]
            for n in workers
        },
    }


def measure(to_measure: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each arm."""
    seconds: dict[str, list[float]] = {name: [] for name in to_measure}
    for _ in range(rounds):
        for name in random.sample(list(to_measure), len(to_measure)):
            start = time.perf_counter()
            to_measure[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("videos", nargs="+", help="files, folders or patterns")
    parser.add_argument("--bundle", default=str(DEMO_BUNDLE), help="default: the embedded motion-demo")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, help="intra-op threads of the model; default: all CPUs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    videos = list(expand(options.videos))
    model = XClip(options.bundle, device="cpu", intra_op_threads=options.threads)
    seconds = measure(arms(model, videos, options.workers), options.rounds)
    bound = max(seconds["decode"], seconds["inference"])
    print(f"{len(videos)} videos, {available_cpus()} CPUs, {model.info['intra_op_threads']} intra-op threads")
    for name, value in seconds.items():
        print(f"{name:>10} {value:8.2f} s {value / bound:6.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"videos": len(videos), "cpus": available_cpus(), "model": dict(model.info), "seconds": seconds}
        options.json.write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
