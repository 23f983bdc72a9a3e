"""Compare ways to run X-CLIP ViT-B/16 with 32 frames on a CPU, interleaved in one run.

    python benchmarks/peers.py --cache runs/peers --prepare-only                 # for hours, beside other work
    python benchmarks/peers.py --cache runs/peers --resume --json benchmarks/results/peers/zen-4.json    # quiet
    python benchmarks/peers.py --quick                                           # 8 frames, 2 layers

The first part times the vision tower and MIT alone, 99 % of the work: torch eager and compiled, a plain export in ONNX
Runtime, the same after ONNX Runtime's own tools, OpenVINO, and the graphs of this project, which OpenVINO runs too: by
its plugin, as device openvino does on Intel's processors, and by itself on any. The second goes from an encoded file to
labels, against transformers with PyAV and its processor, as its documentation shows.

In every round each arm runs in a process of its own, with no other arm alive: it loads, runs once, and then twice more,
of which the faster counts. Figures are medians over rounds, of an arm's times and of their ratios to ours in the same
round. One warm-up round, which fills the caches of files and compilers, is not counted; nor are rounds in which other
processes took more than a tenth of a clip's time, while three others remain. The roofline of each precision is the
fastest large matrix product of that precision in the same round. A peer that cannot run has a row with the reason.
Weights are seeded, so no download is needed; speed does not depend on them.

Finished rounds are saved in ``--cache``; ``--resume`` continues after the last, and exits with an error if versions,
machine, options or exporter have changed. ``--prepare-only`` does all that needs no quiet machine: files, warm-up round
and errors of logits.

A record stands for a kind of processor, which its file is named after; docs/benchmarks.md shows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import processes
import records
import vision_arms
from peer_arms import (
    END_TO_END,
    OURS,
    PEERS,
    PRODUCTS,
    Peer,
    installed_mb,
    load,
    missing,
    prepare,
    prepare_end_to_end,
    say,
)
from peer_tables import end_to_end_table, heading, vision_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEADY = 2
"""Runs after the first, in every process."""


def take_turns(
    names: dict[str, Peer], folder: Path, options: argparse.Namespace, clip: Path, kept: Path
) -> list[dict[str, Any]]:
    """Run every arm in every round and return all but the warm-up; rounds in ``kept`` are not run again."""
    kept.touch()
    rounds: list[dict[str, Any]] = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    while len(rounds) <= options.rounds:
        failed = {name: turn for name, turn in (rounds[0] if rounds else {}).items() if "missing" in turn}
        runs = 1 + STEADY if rounds else 1
        rounds.append(
            {
                name: failed.get(name) or take_turn(name, peer, folder, options, clip, runs=runs)
                for name, peer in names.items()
            }
        )
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounds[-1]) + "\n")
        others = max(turn.get("others", 0.0) for turn in rounds[-1].values())
        say(f"{kept.stem}: round {len(rounds) - 1} of {options.rounds}; others took up to {others:.0%} of a clip")
    return rounds[1:]


def take_turn(
    name: str, peer: Peer, folder: Path, options: argparse.Namespace, clip: Path, *, runs: int
) -> dict[str, Any]:
    """Start, load and run one arm, and return its figures or, as ``missing``, the reason why it cannot run.

    Nothing is told of a warm-up, which is a single run.
    """
    reason = missing(peer)
    if reason:
        return {"missing": reason}
    try:
        arm = processes.Arm(name, folder, options, __file__)
        for _ in range(runs):
            arm.turn(clip)
        arm.close()
    except RuntimeError as error:
        return {"missing": str(error)}
    if not arm.seconds:
        return {}
    turn = {
        "seconds": min(arm.seconds),
        "others": arm.others[arm.seconds.index(min(arm.seconds))],
        "load_s": arm.load_s,
        "start_to_first_answer_s": arm.start_to_loaded_s + (arm.first_s or 0.0),
        "peak_mb": arm.peak_mb,
    }
    say(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in turn.items()))
    return turn


def table_of(names: dict[str, Peer], rounds: list[dict[str, Any]], ours: tuple[str, ...]) -> dict[str, Any]:
    """Summarise every arm over the rounds that count."""
    counted, quiet = processes.quiet_rounds(
        [max(turn.get("others", 0.0) for turn in turns.values()) for turns in rounds]
    )
    rounds = [rounds[i] for i in counted]
    return {
        "rounds_counted": len(counted),
        "quiet": quiet,
        "arms": {name: row(name, peer, rounds, ours) for name, peer in names.items()},
    }


def row(name: str, peer: Peer, rounds: list[dict[str, Any]], ours: tuple[str, ...]) -> dict[str, Any]:
    """Summarise one arm; an arm that failed once has no figures."""
    reason = next((turns[name]["missing"] for turns in rounds if "missing" in turns[name]), None)
    if reason:
        return {"what": peer.what, "precision": peer.precision, "missing": reason}
    seconds = [turns[name]["seconds"] for turns in rounds]
    return {
        "what": peer.what,
        "precision": peer.precision,
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds": seconds,
        "ratio_to": {
            other: statistics.median(turns[name]["seconds"] / turns[other]["seconds"] for turns in rounds)
            for other in ours
            if all("seconds" in turns[other] for turns in rounds)
        },
        **{
            key: statistics.median(turns[name][key] for turns in rounds)
            for key in ("load_s", "start_to_first_answer_s", "peak_mb")
        },
        "installed_mb": installed_mb(peer.packages, ours="ours" in name),
    }


def vision_turns(options: argparse.Namespace, folder: Path, names: dict[str, Peer], kept: Path) -> list[dict[str, Any]]:
    """Run the vision tower of all arms and the matrix products, interleaved."""
    clip = folder / "clip.npy"
    np.save(clip, vision_arms.evaluation_clips(options.frames, 224, 1)[0])
    return take_turns({**names, **PRODUCTS}, folder, options, clip, kept / "vision.jsonl")


def measure_vision(options: argparse.Namespace, folder: Path, names: dict[str, Peer], kept: Path) -> dict[str, Any]:
    """Time the vision tower of all arms."""
    found = table_of({**names, **PRODUCTS}, vision_turns(options, folder, names, kept), OURS)
    products = {name: found["arms"].pop(name) for name in PRODUCTS}
    product_gflop, gflop = vision_arms.gemm_flops(options) / 1e9, vision_arms.clip_flops(options) / 1e9
    rates: dict[str, list[float]] = {}
    for product in products.values():
        if "seconds" in product:
            reached = [product_gflop / seconds for seconds in product["seconds"]]
            fastest = rates.setdefault(product["precision"], reached)
            rates[product["precision"]] = [max(pair) for pair in zip(fastest, reached, strict=True)]
    for arm in found["arms"].values():
        if "seconds" in arm:
            roof = rates.get(arm["precision"], [])
            shares = [gflop / seconds / rate for seconds, rate in zip(arm["seconds"], roof, strict=False)]
            arm["of_gemm_rate"] = statistics.median(shares) if shares else None
    return {
        "clip_gflop": gflop,
        "gemm_gflops": {precision: statistics.median(values) for precision, values in rates.items()},
        "gemms": {
            name: {key: product[key] for key in ("what", "precision", "seconds", "missing") if key in product}
            for name, product in products.items()
        },
        "rounds": options.rounds,
        **found,
    }


def measure_accuracy(options: argparse.Namespace, folder: Path, names: dict[str, Peer], kept: Path) -> dict[str, Any]:
    """Measure logit errors and top-1 agreement against transformers in fp32, on clips unseen by calibration."""
    clips, labels = vision_arms.evaluation_clips(options.frames, 224, options.clips), vision_arms.Labels(options)
    path = folder / "clip.npy"

    def logits(name: str) -> NDArray[np.float32]:
        file = kept / f"logits-{name}.npy"
        if not file.exists():
            arm, given = processes.Arm(name, folder, options, __file__), []
            for clip in clips:
                np.save(path, clip)
                given.append(labels(arm.turn(path)))
            arm.close()
            np.save(file, np.array(given))
        made: NDArray[np.float32] = np.load(file)
        return made

    expected, found = logits("torch-fp32"), {}
    for name, peer in names.items():
        if missing(peer) or name == "torch-fp32":
            continue
        try:
            actual = logits(name)
        except RuntimeError as error:
            found[name] = {"missing": str(error)}
            continue
        errors = np.abs(actual - expected)
        found[name] = {
            "p50": float(np.median(errors)),
            "p99": float(np.quantile(errors, 0.99)),
            "max": float(errors.max()),
            "top1_agreement": float((actual.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        }
        say(f"{name}: {found[name]}")
    return {"frames": options.frames, "clips": len(clips), "logit_std": float(expected.std()), "arms": found}


def end_to_end_turns(options: argparse.Namespace, folder: Path, kept: Path) -> list[dict[str, Any]]:
    """Run all arms from an encoded file to labels, interleaved."""
    return take_turns(END_TO_END, folder, options, video_of(options), kept / "end-to-end.jsonl")


def video_of(options: argparse.Namespace) -> Path:
    """Path of the video of the end-to-end part."""
    from xclip_runtime.demo import DEMO_VIDEO

    return Path(options.video or DEMO_VIDEO).resolve()


def measure_end_to_end(options: argparse.Namespace, folder: Path, kept: Path) -> dict[str, Any]:
    """Time all arms from an encoded file to labels."""
    rounds = end_to_end_turns(options, folder, kept)
    return {
        "video": video_of(options).name,
        "labels": len(json.loads((folder / "bundle/labels.json").read_text("utf-8"))["names"]),
        "rounds": options.rounds,
        **table_of(END_TO_END, rounds, tuple(name for name in END_TO_END if "ours" in name)),
    }


def rounds_folder(root: Path, settings: dict[str, Any], *, resume: bool) -> Path:
    """Return the folder of finished rounds, emptied unless a run with the same settings is resumed.

    Raises:
        SystemExit: The run to resume had other settings.
    """
    kept, settings = root / "rounds", {**settings, "machine": records.machine(), "exporter": records.exporter_digest()}
    written = kept / "settings.json"
    if resume and written.exists():
        if json.loads(written.read_text("utf-8")) != settings:
            sys.exit(f"{kept} was begun with other versions, options or another exporter: leave out --resume")
        return kept
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    written.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return kept


def save(result: dict[str, Any], path: Path | None) -> None:
    """Write the result so far; each part takes minutes."""
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    made.add_argument("--frames", type=int, default=32)
    made.add_argument("--patch", type=int, default=16)
    made.add_argument("--layers", type=int, default=12)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument(
        "--clips", type=int, default=32, help="clips of the accuracy part, which uses 8 frames; 0 skips it"
    )
    made.add_argument("--arm", action="append", choices=PEERS, help="run only this arm and ours; may be repeated")
    made.add_argument("--video", help="video of the end-to-end part; default: the demo's")
    made.add_argument("--no-end-to-end", action="store_true")
    made.add_argument("--quick", action="store_true", help="8 frames, 2 layers, 3 rounds, 4 clips: a smoke test")
    made.add_argument("--cache", type=Path, help="folder to keep the arms' files and the rounds")
    made.add_argument("--resume", action="store_true", help="continue after the rounds in --cache")
    made.add_argument("--prepare-only", action="store_true", help="fill the cache with all that needs no quiet machine")
    made.add_argument("--json", type=Path, help="write the result to this file")
    made.add_argument("--worker", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    made.add_argument("--prepare", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Parse the command line and run."""
    arguments = parser()
    options = arguments.parse_args()
    if options.worker:
        processes.work(options.worker[0], Path(options.worker[1]), options, load)
        return
    if options.prepare:
        made = prepare if options.prepare[0] == "vision" else prepare_end_to_end
        made(options, Path(options.prepare[1]))
        return
    if options.quick:
        options.frames, options.layers, options.rounds, options.clips = 8, 2, 3, 4
    if options.resume and not options.cache:
        arguments.error("--resume needs --cache")
    names = {name: peer for name, peer in PEERS.items() if not options.arm or name in (*options.arm, *OURS)}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.cache or Path(temporary)).resolve()
        short = argparse.Namespace(**{**vars(options), "frames": 8})

        def folder(shape: argparse.Namespace, kind: str) -> Path:
            made = root / f"b{shape.patch}-{shape.frames}-{shape.layers}-{kind}"
            made.mkdir(parents=True, exist_ok=True)
            # In a child process, whose memory is released before measuring.
            command = [sys.executable, __file__, "--prepare", kind, str(made), *processes.forwarded(shape)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return made

        shape = {name: getattr(options, name) for name in ("frames", "patch", "layers", "threads")}
        kept = rounds_folder(root, {"options": shape, "arms": list(names)}, resume=options.resume)
        if options.prepare_only:
            options.rounds = 0
            vision_turns(options, folder(options, "vision"), names, kept)
            end_to_end_turns(options, folder(options, "end-to-end"), kept)
            measure_accuracy(short, folder(short, "vision"), names, kept)
            return
        result: dict[str, Any] = {
            **records.record(),
            "lscpu": records.lscpu(),
            "options": shape,
            "vision": measure_vision(options, folder(options, "vision"), names, kept),
        }
        save(result, options.json)
        if options.clips:
            result["accuracy"] = measure_accuracy(short, folder(short, "vision"), names, kept)
            save(result, options.json)
        if not options.no_end_to_end:
            result["end_to_end"] = measure_end_to_end(options, folder(options, "end-to-end"), kept)
            save(result, options.json)
    print(heading(result), vision_table(result), sep="\n\n")
    if "end_to_end" in result:
        print("", end_to_end_table(result), sep="\n")


if __name__ == "__main__":
    main()
