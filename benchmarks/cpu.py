"""Compare ways to run X-CLIP's vision tower on a CPU: transformers, a plain export, OpenVINO and this project's graphs.

    python benchmarks/cpu.py                     # ViT-B/16, 32 frames; about 20 minutes
    python benchmarks/cpu.py --quick             # 8 frames; a few minutes
    python benchmarks/cpu.py --json results.json

Every arm has a process of its own, loaded once. Arms are interleaved, round by round, so that clock drift affects all
alike; the figure is the median over rounds of an arm's time divided by the reference's time of the same round. A large
fp32 matrix product runs in the same rounds and gives the roofline. CPU time of other processes during a clip is
recorded, and rounds where it exceeds a tenth are left out while three others remain.

Weights are seeded and well scaled (``xclip_export.seeded``), so no download is needed; speed does not depend on them.
OpenVINO's arms appear when ``openvino`` and ``nncf`` are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from processes import Arm, forwarded, take_turns, work
from records import record
from vision_arms import (
    GEMMS,
    LABELS,
    Labels,
    clip_flops,
    evaluation_clips,
    gemm_flops,
    has_openvino,
    load,
    prepare,
)

ARMS = {
    "transformers": "transformers, torch eager",
    "plain": "plain torch.onnx export, ONNX Runtime",
    "openvino-fp32": "the same, OpenVINO fp32",
    "openvino-int8": "the same, OpenVINO int8 (NNCF, static, transformer model type)",
    "ours-fp32": "vision_model_cpu.onnx, ONNX Runtime",
    "ours-int8": "vision_model_int8.onnx, ONNX Runtime",
}
REFERENCE = "plain"


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time all arms, interleaved."""
    names = [arm for arm in ARMS if has_openvino() or not arm.startswith("openvino")]
    clip = folder / "clip.npy"
    np.save(clip, evaluation_clips(options.frames, 224, 1)[0])
    arms = {}
    for name in [*names, *GEMMS]:
        arms[name] = Arm(name, folder, options, __file__)
        arms[name].turn(clip)
        print(f"{name}: loaded in {arms[name].load_s:.1f} s", file=sys.stderr)
    rounds, quiet = take_turns(arms.values(), clip, options.rounds)

    def ratio(name: str, to: str) -> float:
        return statistics.median(arms[name].seconds[i] / arms[to].seconds[i] for i in rounds)

    roof = [max(gemm_flops(options) / arms[gemm].seconds[i] for gemm in GEMMS) for i in rounds]
    result = {
        "gemm_gflops": statistics.median(roof) / 1e9,
        "clip_gflop": clip_flops(options) / 1e9,
        "rounds": options.rounds,
        "rounds_counted": len(rounds),
        "quiet": quiet,
        "arms": {},
    }
    for name in names:
        arm = arms[name]
        of_roof = [clip_flops(options) / arm.seconds[i] / rate for i, rate in zip(rounds, roof, strict=True)]
        result["arms"][name] = {
            "what": ARMS[name],
            "seconds_median": statistics.median(arm.seconds[i] for i in rounds),
            "seconds_min": min(arm.seconds[i] for i in rounds),
            "to_plain": ratio(name, REFERENCE),
            "to_openvino": ratio(name, f"openvino-{'int8' if name.endswith('int8') else 'fp32'}")
            if "openvino-fp32" in arms
            else None,
            "of_gemm_rate": statistics.median(of_roof),
            "load_s": arm.load_s,
            "start_to_loaded_s": arm.start_to_loaded_s,
            "first_clip_s": arm.first_s,
            "peak_mb": arm.peak_mb,
            "others_median": statistics.median(arm.others),
        }
    return result


def accuracy(options: argparse.Namespace, folder: Path, twin: Path) -> dict[str, Any]:
    """Measure logit errors against transformers; the twin computes the same function, so both share one reference."""
    clips = evaluation_clips(options.frames, 224, options.clips)
    labels, path = Labels(options), folder / "clip.npy"
    reference = Arm("transformers", folder, options, __file__)
    expected = []
    for clip in clips:
        np.save(path, clip)
        expected.append(labels(reference.turn(path)))
    reference.close()
    result = {"clips": len(clips), "logit_std": float(np.std(expected)), "arms": {}}
    names = [arm for arm in ARMS if arm != "transformers" and (has_openvino() or not arm.startswith("openvino"))]
    for source, suffix in ((folder, ""), (twin, " on the outlier twin")):
        for name in names if source == folder else [n for n in names if "int8" in n or n == "ours-fp32"]:
            arm, actual = Arm(name, source, options, __file__), []
            for clip in clips:
                np.save(path, clip)
                actual.append(labels(arm.turn(path)))
            arm.close()
            errors = np.abs(np.subtract(actual, expected))
            agreement = np.equal(np.argmax(actual, axis=1), np.argmax(expected, axis=1)).mean()
            result["arms"][name + suffix] = {
                "p50": float(np.median(errors)),
                "p99": float(np.quantile(errors, 0.99)),
                "max": float(errors.max()),
                "top1_agreement": float(agreement),
            }
            print(f"{name}{suffix}: {result['arms'][name + suffix]}", file=sys.stderr)
    return result


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown."""
    speed = result["speed"]
    lines = [
        f"Large fp32 GEMM: {speed['gemm_gflops']:.0f} GFLOP/s; one clip: {speed['clip_gflop']:.0f} GFLOP. "
        f"{speed['rounds_counted']} of {speed['rounds']} rounds counted"
        + ("." if speed["quiet"] else "; the machine was not quiet."),
        "",
        "| arm | s/clip | / plain | / OpenVINO | of GEMM rate | start to answer s | load s | first clip s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in speed["arms"].values():
        to_openvino = "" if arm["to_openvino"] is None else f"{arm['to_openvino']:.2f}"
        lines.append(
            f"| {arm['what']} | {arm['seconds_median']:.2f} | {arm['to_plain']:.2f} | {to_openvino} "
            f"| {arm['of_gemm_rate']:.0%} | {arm['start_to_loaded_s'] + arm['first_clip_s']:.1f} "
            f"| {arm['load_s']:.1f} | {arm['first_clip_s']:.2f} | {arm['peak_mb']:.0f} |"
        )
    if "accuracy" in result:
        found = result["accuracy"]
        lines += [
            "",
            f"{found['clips']} clips, {LABELS} seeded labels; the logits have a deviation of {found['logit_std']:.1f}.",
            "",
            "| arm | abs. logit error p50 | p99 | max | top-1 agreement |",
            "|---|---|---|---|---|",
        ]
        for name, arm in found["arms"].items():
            lines.append(
                f"| {name} | {arm['p50']:.4f} | {arm['p99']:.4f} | {arm['max']:.4f} | {arm['top1_agreement']:.1%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--clips", type=int, default=64, help="clips of the accuracy part, which uses 8 frames; 0 skips it"
    )
    parser.add_argument("--quick", action="store_true", help="8 frames, 3 rounds, 8 clips")
    parser.add_argument("--cache", type=Path, help="folder to keep the arms' files")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--worker", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]), options, load)
        return
    if options.prepare:
        prepare(options, Path(options.prepare[1]), outliers=options.prepare[0] == "twin")
        return
    if options.quick:
        options.frames, options.rounds, options.clips = 8, 3, 8
    with tempfile.TemporaryDirectory() as temporary:
        root = options.cache or Path(temporary)
        short = argparse.Namespace(**{**vars(options), "frames": 8})

        def folder(shape: argparse.Namespace, kind: str) -> Path:
            made = root / f"b{shape.patch}-{shape.frames}-{shape.layers}-{kind}"
            # In a child process, whose memory is released before measuring.
            command = [sys.executable, __file__, "--prepare", kind, str(made), *forwarded(shape)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return made

        result: dict[str, Any] = {**record(), "options": vars(options)}
        result["speed"] = measure(options, folder(options, "seeded"))
        if options.clips:
            result["accuracy"] = accuracy(short, folder(short, "seeded"), folder(short, "twin"))
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
