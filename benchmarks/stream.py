"""Measure the gain of overlapping windows that share decoded and resized frames.

    python benchmarks/stream.py --json results/stream.json

"shared" cuts the windows from one stream, as `XClip.stream` does; "anew" reads every window as a video of its own with
`read_clip`, which skips frames that a single window does not need. Times are milliseconds a window, without the model;
a round runs both arms for every hop, and the table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from decode import FRAMES, TRANSFORM
from records import record
from samples import Sample

from xclip_runtime.streaming.sources import open_source
from xclip_runtime.streaming.windows import StreamWindow
from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.video import read_clip

WINDOW = 4.0
HOPS = (4.0, 2.0, 1.0, 0.5)
LONG = Sample("stream.mp4", "libx264", 1280, 720, 60, 30)
SHORT = Sample("window.mp4", "libx264", 1280, 720, WINDOW, 30)


def shared(path: Path, hop: float) -> int:
    """Cut a stream into windows and return their number."""
    source = open_source(path)
    windows = StreamWindow(WINDOW, hop, num_frames=FRAMES, transform=TRANSFORM, fps=source.fps)
    cut = 0
    for frame in source:
        done = windows.advance(frame.time, lambda frame=frame: TRANSFORM(frame.to_rgb()))  # type: ignore[misc]
        cut += sum(len(window.frames) > 0 for window in done)
    return cut


def measure(folder: Path, rounds: int) -> dict[float, dict[str, float]]:
    """Measure the median milliseconds of a window, by hop and arm."""
    long, short = LONG.encode(folder), SHORT.encode(folder)
    taken: dict[float, dict[str, list[float]]] = {hop: {"shared": [], "anew": []} for hop in HOPS}
    for _ in range(rounds):
        for hop, arms in taken.items():
            started = time.perf_counter()
            windows = shared(long, hop)
            arms["shared"].append((time.perf_counter() - started) * 1e3 / windows)
            started = time.perf_counter()
            read_clip(short, num_frames=FRAMES, transform=TRANSFORM)
            arms["anew"].append((time.perf_counter() - started) * 1e3)
    return {hop: {arm: statistics.median(times) for arm, times in arms.items()} for hop, arms in taken.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.rounds)
    print(f"720p, windows of {WINDOW:g} s, {FRAMES} frames each, ms a window\n{'hop':>6} {'shared':>8} {'anew':>8}")
    for hop, arms in figures.items():
        print(f"{hop:4g} s {arms['shared']:8.0f} {arms['anew']:8.0f} {arms['anew'] / arms['shared']:6.1f} x")
    if options.json:
        facts = {
            **record(),
            "cpus": available_cpus(),
            "window_s": WINDOW,
            "frames": FRAMES,
            "ms_by_hop": figures,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
