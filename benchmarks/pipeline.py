"""Measure the overlap of decoding and inference when reading ahead, interleaved in one run.

    python benchmarks/pipeline.py short mixed --threads 2 1 --json results/pipeline.json

Each folder is measured by itself. A round runs, in random order: reading every video, running the model on clips in
memory, classifying one video after the other, and `classify_each` with several numbers of workers. The table gives
medians over the rounds, and the ratio of each to the longer of the first two, the lower bound of any schedule if there
are cores for both. If both use all cores, the lower bound is the processor time of the two, spread evenly over the
cores; the table has that bound, too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from records import record

from xclip_runtime import XClip
from xclip_runtime.cli.inputs import expand
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable


def arms(model: XClip, videos: list[str], workers: list[int]) -> dict[str, Callable[[], object]]:
    """Build the arms of a round."""
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


def measure(to_measure: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Measure the median seconds of each arm, elapsed and processor time."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in to_measure}
    for _ in range(rounds):
        for name in random.sample(list(to_measure), len(to_measure)):
            elapsed, processor = time.perf_counter(), time.process_time()
            to_measure[name]()
            taken[name].append((time.perf_counter() - elapsed, time.process_time() - processor))
    medians = {name: [statistics.median(times) for times in zip(*rows, strict=True)] for name, rows in taken.items()}
    return {name: {"elapsed": elapsed, "processor": processor} for name, (elapsed, processor) in medians.items()}


def with_threads(threads: int, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a folder with `threads` intra-op threads, and print the table."""
    videos = list(expand([folder]))
    model = XClip(options.bundle, device="cpu", threads=threads)
    seconds = measure(arms(model, videos, options.workers), options.rounds)
    alone = seconds["decode"], seconds["inference"]
    slower = max(arm["elapsed"] for arm in alone)
    bound = max(slower, sum(arm["processor"] for arm in alone) / available_cpus())
    facts = {**model.info, "bundle": Path(options.bundle).name}
    counted = {"clips": Path(folder).name, "videos": len(videos)}
    print(f"\n{folder}: {len(videos)} videos, {available_cpus()} CPUs, {facts['threads']} intra-op threads")
    print(f"{'':>10} {'elapsed':>10} {'processor':>10} {'/ slower':>9} {'/ bound':>9}")
    for name, arm in seconds.items():
        elapsed, processor = arm["elapsed"], arm["processor"]
        ratios = f"{elapsed / slower:9.2f} {elapsed / bound:9.2f}"
        print(f"{name:>10} {elapsed:8.2f} s {processor:8.2f} s {ratios}")
    return {**counted, "model": facts, "seconds": seconds, "slower_stage_s": slower, "bound_s": bound}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", help="folders of videos, files or patterns")
    parser.add_argument("--bundle", default=str(DEMO_BUNDLE), help="default: the embedded motion-demo")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[available_cpus()], help="intra-op threads of the model"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    runs = [with_threads(threads, folder, options) for folder in options.folders for threads in options.threads]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {**record(), "cpus": available_cpus(), "runs": runs}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
