"""Time reading a video file to uint8 frames (32, 224, 224, 3), beside other readers, interleaved in one run.

    python benchmarks/decode.py --json results/decode.json

Every arm reads the same 32 uniformly sampled frames and preprocesses them: "ours" with `read_clip`; "opencv" grabs
every frame and retrieves the sampled ones; "opencv read" reads every frame; "pyav" and "decord" as their documentation
shows, all four with `cv2.resize` and a crop; "transformers" passes the frames of "pyav" to the image processor of the
checkpoints. A round runs every arm once, in random order; short videos are measured for a minute each, since they need
more rounds for a stable median. The tables give medians over rounds and ratios to ours, of elapsed time and of
processor time, which other processes disturb less. For short videos they also count the frames of an arm that differ
from a full decode.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import records
from samples import LONG, MEMORY, SHORT, Sample

from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.video import FrameTransform, prepare_frames, read_clip, uniform_indices

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FRAMES = 32
TRANSFORM = FrameTransform("videox")
PACKAGES = {"opencv-python-headless": "cv2", "av": "av", "decord": "decord", "transformers": "transformers"}


def ours(path: Path) -> NDArray[np.uint8]:
    """Read with the defaults of `read_clip`."""
    return read_clip(path, num_frames=FRAMES, transform=TRANSFORM).frames


def _resize_crop(frame: Any) -> Any:
    height, width = TRANSFORM.resized(*frame.shape[:2])
    top, left = (height - TRANSFORM.size) // 2, (width - TRANSFORM.size) // 2
    resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized[top : top + TRANSFORM.size, left : left + TRANSFORM.size]


def plain_opencv(path: Path) -> NDArray[np.uint8]:
    """Grab every frame and retrieve the sampled ones."""
    capture = cv2.VideoCapture(str(path))
    wanted = set(uniform_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), FRAMES).tolist())
    kept = []
    position = 0
    while position <= max(wanted) and capture.grab():
        if position in wanted:
            kept.append(cv2.cvtColor(_resize_crop(capture.retrieve()[1]), cv2.COLOR_BGR2RGB))
        position += 1
    return np.stack(kept)


def opencv_read(path: Path) -> NDArray[np.uint8]:
    """Read every frame and keep the sampled ones."""
    capture = cv2.VideoCapture(str(path))
    wanted = set(uniform_indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), FRAMES).tolist())
    kept = []
    position = 0
    while position <= max(wanted):
        ok, frame = capture.read()
        if not ok:
            break
        if position in wanted:
            kept.append(cv2.cvtColor(_resize_crop(frame), cv2.COLOR_BGR2RGB))
        position += 1
    return np.stack(kept)


def _pyav_frames(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        total = stream.frames or round(float(container.duration or 0) / 1e6 * float(stream.average_rate or 30))
        wanted = set(uniform_indices(total, FRAMES).tolist())
        frames = []
        for position, frame in enumerate(container.decode(stream)):
            if position in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if position >= max(wanted):
                break
    return frames


def plain_pyav(path: Path) -> NDArray[np.uint8]:
    """Decode every frame and convert the sampled ones."""
    return np.stack([_resize_crop(frame) for frame in _pyav_frames(path)])


def plain_decord(path: Path) -> NDArray[np.uint8]:
    """Read with `get_batch`."""
    import decord

    reader = decord.VideoReader(str(path))
    frames = reader.get_batch(uniform_indices(len(reader), FRAMES)).asnumpy()
    return np.stack([_resize_crop(frame) for frame in frames])


def _processor() -> Any:
    from transformers import VideoMAEImageProcessor

    return VideoMAEImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})


def with_transformers(path: Path) -> NDArray[np.uint8]:
    """Preprocess the frames of PyAV with the image processor of the checkpoints."""
    return np.asarray(_processor()(_pyav_frames(path), return_tensors="np")["pixel_values"])


def arms(names: list[str] | None = None) -> dict[str, Callable[[Path], Any]]:
    """Select the arms whose packages are installed."""
    every: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "ours": ("av", ours),
        "opencv": ("cv2", plain_opencv),
        "opencv read": ("cv2", opencv_read),
        "pyav": ("av", plain_pyav),
        "decord": ("decord", plain_decord),
        "transformers": ("transformers", with_transformers),
    }
    return {
        name: arm for name, (package, arm) in every.items() if find_spec(package) and (names is None or name in names)
    }


def wrong_frames(path: Path, chosen: dict[str, Callable[[Path], Any]]) -> dict[str, float]:
    """Count the frames of each arm that differ from a full decode at the sampled indices; NaN if it fails."""
    with av.open(str(path)) as container:
        shown = [_resize_crop(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    truth = np.stack([shown[index] for index in uniform_indices(len(shown), FRAMES)]).astype(np.int16)
    wrong: dict[str, float] = {}
    for name in [name for name in chosen if name != "transformers"]:  # Its frames are those of "pyav", normalised.
        try:
            frames = chosen[name](path)
        except Exception:  # noqa: BLE001 - `interleave` reports it
            wrong[name] = math.nan
        else:
            wrong[name] = float(np.sum(np.abs(truth - frames).mean(axis=(1, 2, 3)) > 1))
    return wrong


@dataclass(frozen=True)
class Bench:
    """Number of rounds and duration of a measurement."""

    rounds: int
    """Minimum number of measured rounds."""
    seconds: float = 0
    """Minimum duration, seconds."""
    warm_up: int = 1
    """Unmeasured rounds before the others, for caches and imports."""

    def wants(self, done: int, begun: float) -> bool:
        """Return True if another round is due."""
        return done < self.warm_up + self.rounds or time.perf_counter() < begun + self.seconds


class Times(NamedTuple):
    """Milliseconds of each arm; NaN if it fails."""

    elapsed: dict[str, float]
    processor: dict[str, float]


def interleave(path: Path, chosen: dict[str, Callable[[Path], Any]], bench: Bench) -> Times:
    """Run the arms in random order, round by round, and return medians."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    failed = set[str]()
    rounds, begun = count(), time.perf_counter()
    while bench.wants(next(rounds), begun):
        for name in random.sample([name for name in chosen if name not in failed], len(chosen) - len(failed)):
            elapsed, processor = time.perf_counter(), time.process_time()
            try:
                chosen[name](path)
            except Exception as error:  # noqa: BLE001 - a failing peer is a result
                print(f"{name} fails on {path.name}: {str(error).splitlines()[0]}", file=sys.stderr)
                failed.add(name)
            taken[name].append(((time.perf_counter() - elapsed) * 1e3, (time.process_time() - processor) * 1e3))

    def medians(clock: int) -> dict[str, float]:
        return {
            name: float("nan") if name in failed else statistics.median(row[clock] for row in rows[bench.warm_up :])
            for name, rows in taken.items()
        }

    return Times(medians(0), medians(1))


def prepare_1080p(bench: Bench) -> Times:
    """Time preprocessing of 32 frames of 1080p in memory."""
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 1080, 1920, 3), np.uint8)
    chosen: dict[str, Callable[[Any], Any]] = {
        "ours, videox": lambda _: prepare_frames(frames, FrameTransform("videox")),
        "ours, hf": lambda _: prepare_frames(frames, FrameTransform("hf")),
    }
    if find_spec("transformers"):
        processor = _processor()
        chosen["transformers"] = lambda _: processor(list(frames), return_tensors="np")
    return interleave(Path(), chosen, bench)


def memory(path: Path) -> float:
    """Measure the peak resident memory (Linux), MiB, of reading a video, above that of importing the package."""
    script = (
        "import sys\n"
        "from xclip_runtime.video import FrameTransform, read_clip\n"
        "if len(sys.argv) > 1: read_clip(sys.argv[1], num_frames=32, transform=FrameTransform('videox'))\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['VmHWM'].split()[0]) / 1024)\n"
    )

    def peak(*arguments: str) -> float:
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return peak(str(path)) - peak()


def table(title: str, rows: dict[str, dict[str, float]], unit: str = "ms") -> None:
    """Print the figures, each with its ratio to the row's first arm."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':32}" + "".join(f"{name:>18}" for name in columns))
    for name, row in rows.items():
        first = next(iter(row.values()))
        cells = (
            "fails" if np.isnan(row[column]) else f"{row[column]:.0f} {unit} ({row[column] / first:.2f})"
            for column in columns
        )
        print(f"{name:32}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    """Encode the videos, run the arms, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="minimum rounds of the short videos")
    parser.add_argument(
        "--seconds", type=float, default=60, help="minimum duration for a short video and for preprocessing"
    )
    parser.add_argument("--long-rounds", type=int, default=1, help="minimum rounds of the ten-minute videos")
    parser.add_argument("--only", default="", help="regular expression: measure the samples that it finds")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="arms to measure; default: all")
    parser.add_argument("--folder", type=Path, help="folder to keep the encoded videos")
    parser.add_argument("--json", type=Path, help="merge the figures into this file")
    options = parser.parse_args()
    chosen = re.compile(options.only)
    figures: dict[str, Any] = {"clock": "wall"}

    def record(title: str, name: str, rows: dict[str, Times]) -> None:
        for clock in Times._fields if rows else ():
            by_clock = {row: getattr(times, clock) for row, times in rows.items()}
            table(f"{title}: {clock}", by_clock)
            figures[f"{name}_ms" if clock == "elapsed" else f"{name}_{clock}_ms"] = by_clock

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)

        def measure(samples: list[Sample], of: dict[str, Callable[[Path], Any]], bench: Bench) -> dict[str, Times]:
            found = [sample for sample in samples if chosen.search(sample.name)]
            return {sample.name: interleave(sample.encode(folder), of, bench) for sample in found}

        short = Bench(options.rounds, options.seconds)
        record("A short video to 32 preprocessed frames", "short", measure(SHORT, arms(options.arms), short))
        found = [sample for sample in SHORT if chosen.search(sample.name)]
        if wrong := {sample.name: wrong_frames(sample.encode(folder), arms(options.arms)) for sample in found}:
            print("\nFrames of", FRAMES, "that differ from a full decode:")
            for name, row in wrong.items():
                print(f"{name:32}", ", ".join(f"{arm} {frames:.0f}" for arm, frames in row.items() if frames) or "none")
            figures["wrong_frames"] = wrong
        long_arms = arms(options.arms or ["ours", "opencv", "opencv read", "decord"])
        long = measure(LONG, long_arms, Bench(options.long_rounds, warm_up=0))
        record("A ten-minute video to 32 preprocessed frames", "long", long)
        if chosen.search("prepare"):
            prepared = {"1080p": prepare_1080p(short)}
            record("32 frames of 1080p in memory, preprocessed", "prepare", prepared)
        if peaks := {sample.name: memory(sample.encode(folder)) for sample in MEMORY if chosen.search(sample.name)}:
            table("Peak memory above an idle process", {"4k": peaks}, "MiB")
            figures["peak_mib"] = {"4k": peaks}
    if options.json:
        _write(options.json, figures)


def _write(path: Path, figures: dict[str, Any]) -> None:
    """Merge figures into those of an earlier run with other samples."""
    written = json.loads(path.read_text()) if path.exists() else {}
    for title, rows in figures.items():
        written[title] = {**written.get(title, {}), **rows} if isinstance(rows, dict) else rows
    head = records.record()
    written["date"] = head["date"]
    written["machine"] = {
        "cpu": head["machine"]["cpu"],
        "architecture": platform.machine(),
        "cpus": available_cpus(),
        **{package: version(package) for package in PACKAGES if find_spec(PACKAGES[package])},
    }
    written["samples"] = [asdict(sample) for sample in (*SHORT, *LONG, *MEMORY)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
