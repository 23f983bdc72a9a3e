"""Flip and truncate bytes of real clips: reading must end in a result or a named error, never in a crash or a hang.

    python tests/helpers/fuzz.py --cases 5000 --seed 1

Reading happens in a worker process, so that a crash of native code is seen, told and survived.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, in processes of its own

from helpers.numbered_clips import Recipe

SEEDS = [
    Recipe("h264.mp4", frames=48, size=(96, 80)),
    Recipe("h264.mkv", frames=48, size=(96, 80)),
    Recipe("h264.ts", frames=48, size=(96, 80)),
    Recipe("fragmented.mp4", frames=48, size=(96, 80), muxing={"movflags": "frag_keyframe+empty_moov"}),
    Recipe("hevc.mp4", "libx265", frames=48, size=(96, 80), options={"x265-params": "log-level=none"}),
    Recipe("vp9.webm", "libvpx-vp9", frames=48, size=(96, 80), options={"deadline": "realtime", "cpu-used": "8"}),
    Recipe("mpeg4.avi", "mpeg4", frames=48, size=(96, 80), options={"bf": "2"}),
    Recipe("mpeg2.mpg", "mpeg2video", frames=48, size=(96, 80), options={"bf": "2"}),
    Recipe("mjpeg.avi", "mjpeg", frames=24, size=(96, 80), pix_fmt="yuvj420p"),
    Recipe("av1.mp4", "libsvtav1", frames=48, size=(96, 80), options={"svtav1-params": "preset=12"}),
    Recipe("interlaced.ts", "mpeg2video", frames=48, size=(96, 80), options={"flags": "+ildct+ilme", "bf": "2"}),
    Recipe("turned.mov", frames=48, size=(96, 80), rotation=90),
    Recipe("gif.gif", "gif", frames=24, size=(96, 80), pix_fmt="rgb8"),
    # Enough frames to leave some out.
    Recipe("long.mp4", frames=160, size=(96, 80), gop=12),
]
WAYS = [({}, 1 << 40), ({"h264": 1 << 40, "hevc": 1 << 40, "vp9": 1 << 40}, 1 << 40), ({}, 1)]
"""Of `ThreadPolicy`: sizes of small frames, and pixels of a part."""
PATIENCE = 60.0
"""Seconds without an answer after which the worker is taken to hang."""


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bytes anywhere or in the headers, cut the end off, cut a piece out, or repeat one."""
    changed = bytearray(data)
    way = rng.integers(6)
    if way in (0, 1, 2):
        reach = len(data) if way == 0 else min(1500, len(data))
        start = len(data) - reach if way == 2 else 0
        for place in rng.integers(start, start + reach, rng.integers(1, 40)):
            changed[place] = rng.integers(256)
    else:
        start, end = np.sort(rng.integers(0, len(data), 2)).tolist()
        if way == 3:
            del changed[end:]
        elif way == 4:
            del changed[start : min(end, start + 4000)]
        else:
            changed[start:start] = data[start : min(end, start + 4000)]
    return bytes(changed)


def work(folder: Path, seed: int, first: int, last: int) -> None:
    """Read the cases from `first` to `last` and print one line of JSON for each."""
    from xclip_runtime.errors import VideoError
    from xclip_runtime.video import FrameTransform, pyav, read_clip
    from xclip_runtime.video.threads import ThreadPolicy

    transform = FrameTransform("videox", 32)
    # The clips are small; rounds of them are decoded with several threads, as large ones are, and in parts.
    policies = [ThreadPolicy(cpus=3, small=small, small_otherwise=0, pixels_of_a_part=pixels) for small, pixels in WAYS]
    for case in range(first, last):
        source = folder / SEEDS[case % len(SEEDS)].name
        turn = case // len(SEEDS)
        # Of every other pair of rounds packets are read a second time, and sought.
        pyav.BYTES_TO_HOLD, pyav.BYTES_TO_SEEK = (0, 0) if turn // len(WAYS) % 2 else (1 << 24, 1 << 20)
        path = folder / f"case-{seed}-{case}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), np.random.default_rng([seed, case])))
        try:
            policy = policies[turn % len(WAYS)]
            clip = read_clip(path, num_frames=4, transform=transform, time_limit=20, policy=policy)
        except VideoError as error:
            outcome = type(error).__name__ if "\n" not in str(error) else "an error of several lines"
        else:
            assert clip.frames.shape == (4, 32, 32, 3)
            assert 0 <= clip.indices[0] <= clip.indices[-1] < clip.total
            outcome = clip.method
        path.unlink()
        print(json.dumps({"case": case, "outcomes": [outcome]}), flush=True)  # noqa: T201


def fuzz(folder: Path, cases: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run the cases in worker processes.

    Returns:
        How often each outcome came, and the failures, one line each.
    """
    for recipe in SEEDS:
        recipe.encode(folder)
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    case = 0
    while case < cases:
        command = [sys.executable, __file__, "--work", str(folder), str(seed), str(case), str(cases)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            answered = threading.Event()
            silence = threading.Thread(target=_kill_when_silent, args=(worker, answered))
            silence.start()
            for line in worker.stdout or ():
                outcomes.update(json.loads(line)["outcomes"])
                case = json.loads(line)["case"] + 1
                answered.set()
            worker.wait()
            answered.set()
            silence.join()
            noise = (worker.stderr.read() if worker.stderr else "").strip().splitlines()
        if case < cases:
            reason = f"signal {-worker.returncode}" if worker.returncode < 0 else (noise or ["no traceback"])[-1]
            failures.append(f"seed {seed} case {case} ({SEEDS[case % len(SEEDS)].name}): {reason}")
            case += 1
        elif noise:
            failures.append(f"stderr: {noise[-1]}")
    return outcomes, failures


def _kill_when_silent(worker: subprocess.Popen[str], answered: threading.Event) -> None:
    while worker.poll() is None:
        if not answered.wait(PATIENCE):
            worker.kill()
        answered.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        folder, seed, first, last = options.work
        work(Path(folder), int(seed), int(first), int(last))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = fuzz(Path(folder), options.cases, options.seed)
    report = {"cases": options.cases, "seed": options.seed, "outcomes": outcomes, "failures": failures}
    print(json.dumps(report, indent=2))  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
