"""Check a bundle on a GPU, then time it.

    xclip-onnx export microsoft/xclip-base-patch16-hmdb-2-shot --labels-file hmdb51 --precision fp32 fp16 -o hmdb51
    python benchmarks/gpu.py --bundle hmdb51 --json gpu.json
    python benchmarks/gpu.py --bundle hmdb51 --device tensorrt --precisions fp16

    python benchmarks/gpu.py --all --cache runs/gpu

``--all`` makes a seeded ViT-B/16 in the cache and runs, one after the other, the checks with the times of model and
files, the peers with the graph's earlier form among them, and the server. Each stage is a process with a limit of its
own; its record is in ``--results`` as soon as it is finished, and one that fails does not stop the next. ``--quick``
runs the same stages on the CPU with a tiny model, to test the flow.

Otherwise the checks run first, for every precision: the self-test against the checkpoint's logits, placement of every
node on the GPU (the session raises otherwise), logits of a clip alone and in a batch, and replayed CUDA graphs against
plain runs.
A failed check ends the run with exit code 1 and no figures.

Then every batch size, precision and CUDA graphs on and off are timed, interleaved round by round: "model" is from uint8
frames on the host to logits on the host, "files" is from a video file to labels. ``--device cpu``, without CUDA graphs,
serves to test this script.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xclip_runtime import XClip
from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import XClipError
from xclip_runtime.inference.installation import cuda_version, gpus, onnxruntime_version
from xclip_runtime.selftest import TOLERANCE, golden_clip, self_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# A graph replays the kernels of a plain run, but its capture may select other algorithms.
GRAPH_TOLERANCE = {"fp32": 1e-3, "fp16": 0.02}


HERE = Path(__file__).parent
TINY = "--frames 4 --patch 32 --layers 2"


class Stage(NamedTuple):
    """One process of ``--all``."""

    name: str
    limit_s: int
    script: str
    arguments: str
    quick: str
    """Arguments instead of ``arguments`` with ``--quick``."""
    record: str | None = None


# 600 seconds together.
STAGES = (
    Stage("prepare", 260, "gpu_peers.py", "--cache {cache} --prepare-only", f"--cache {{cache}} --prepare-only {TINY}"),
    Stage(
        "model and files",
        100,
        "gpu.py",
        "--bundle {cache}/bundle --batches 1 8 16 --rounds 3 --runs 10",
        "--bundle {cache}/bundle --device cpu --precisions fp32 --batches 1 2 --rounds 1 --runs 1 --videos 2",
        "gpu.json",
    ),
    Stage(
        "peers",
        150,
        "gpu_peers.py",
        "--cache {cache} --rounds 3",
        f"--cache {{cache}} --device cpu --arms eager-fp32 ours-fp32 --batches 2 --rounds 1 --runs 1 {TINY}",
        "gpu-peers.json",
    ),
    Stage(
        "serve",
        90,
        "gpu_serve.py",
        "--bundle {cache}/bundle",
        "--bundle {cache}/bundle --device cpu --precision fp32 --clients 1 2 --requests 4 --batch-size 2",
        "gpu-serve.json",
    ),
)


def run_all(options: argparse.Namespace, stages: tuple[Stage, ...] = STAGES) -> list[str]:
    """Run every stage within its limit; return those that failed."""
    failed = []
    options.results.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        given = (stage.quick if options.quick else stage.arguments).format(cache=options.cache).split()
        given += ["--json", str(options.results / stage.record)] if stage.record else []
        begun = time.perf_counter()
        try:
            command = [sys.executable, str(HERE / stage.script), *given]
            limit = None if options.quick else stage.limit_s
            code = str(subprocess.run(command, timeout=limit, check=False).returncode)
        except subprocess.TimeoutExpired:
            code = f"stopped at its limit of {stage.limit_s} s"
        if code != "0":
            failed.append(stage.name)
        print(f"{stage.name}: {'ok' if code == '0' else f'FAIL ({code})'}, {time.perf_counter() - begun:.0f} s")
    return failed


class Arm(NamedTuple):
    """One way to run the model."""

    precision: str
    cuda_graph: bool | None
    batch: int


def open_model(options: argparse.Namespace, arm: Arm) -> XClip:
    """Load and warm up the model of an arm."""
    given = {} if arm.cuda_graph is None else {"enable_cuda_graph": str(int(arm.cuda_graph))}
    return XClip(
        options.bundle,
        options.device,
        arm.precision,
        batch_size=arm.batch,
        provider_options=given,
        optimize_for="latency",
    )


def sample_clips(model: XClip, count: int) -> NDArray[np.uint8]:
    """Make noise that differs from clip to clip, uint8 (count, T, size, size, 3)."""
    clip = golden_clip(model.bundle.num_frames, model.bundle.image_size)
    return np.stack([np.roll(clip, number, axis=1) ^ np.uint8(number) for number in range(count)])


def checks(
    options: argparse.Namespace, precision: str, batch: int, graphs: list[bool | None]
) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each check listed in the module's docstring."""
    tolerance = GRAPH_TOLERANCE.get(precision, TOLERANCE.get(precision, 0.1))
    answers = []
    for cuda_graph in graphs:
        model = open_model(options, Arm(precision, cuda_graph, batch))
        result = self_test(model)
        yield {
            "check": f"{precision}: self-test, CUDA graphs {cuda_graph}",
            "ok": result.passed,
            "max_abs_logit": result.max_abs_logit,
            "tolerance": result.tolerance,
            "provider": model.provider,
        }
        clips = sample_clips(model, batch)
        together = model.logits_batch(clips)
        apart = np.concatenate([model.logits_batch(clip[None]) for clip in clips])
        off = float(np.abs(together - apart).max())
        yield {"check": f"{precision}: a clip alone and in a batch", "ok": off <= tolerance, "max_abs_logit": off}
        # The first run captures the graph; the second replays it.
        answers.append(model.logits_batch(clips))
    if len(answers) == 2:
        off = float(np.abs(answers[0] - answers[1]).max())
        yield {"check": f"{precision}: CUDA graphs on and off", "ok": off <= tolerance, "max_abs_logit": off}


def spread(seconds: list[float], clips: int) -> dict[str, Any]:
    """Summarise runs of `clips` clips: quantiles in milliseconds, and clips a second at the median."""
    low, middle, high = (float(np.percentile(seconds, q)) for q in (10, 50, 90))
    return {
        "n": len(seconds),
        "ms_p10": 1000 * low,
        "ms_p50": 1000 * middle,
        "ms_p90": 1000 * high,
        "clips_per_second": clips / middle,
    }


def timed(work: Any) -> float:
    """Time a call, seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sweep(options: argparse.Namespace, arms: list[Arm]) -> Iterator[dict[str, Any]]:
    """Time every arm; arms of one precision share rounds, so that clocks and temperature affect them alike."""
    for precision, group in itertools.groupby(arms, key=lambda arm: arm.precision):
        models = {arm: open_model(options, arm) for arm in group}
        runs: dict[Arm, list[float]] = {arm: [] for arm in models}
        files: dict[Arm, list[float]] = {arm: [] for arm in models}
        for _ in range(options.rounds):
            for arm, model in models.items():
                clips = sample_clips(model, arm.batch)
                runs[arm] += [timed(lambda m=model, c=clips: m.logits_batch(c)) for _ in range(options.runs)]
                videos = [options.video] * max(arm.batch, options.videos)
                files[arm].append(timed(lambda m=model, v=videos: list(m.classify_each(v))) / len(videos))
        for arm, model in models.items():
            yield {
                "precision": precision,
                "batch": arm.batch,
                "cuda_graph": arm.cuda_graph,
                "provider": model.provider,
                "warmup_ms": model.info["warmup_ms"],
                "model": spread(runs[arm], arm.batch),
                "files": {"n": len(files[arm]), "clips_per_second": 1 / statistics.median(files[arm])},
            }


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """Date, software versions and hardware of the run."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime_version(),
        "cuda": cuda_version(),
        "gpus": [gpu._asdict() for gpu in gpus() or ()],
        "device": options.device,
        "bundle": Bundle.open(options.bundle).manifest["source"],
        "video": options.video.name,
        "command": " ".join(sys.argv),
    }


def main() -> None:
    """Run the checks and the sweep, print and write the result."""
    options = parse()
    if options.all:
        sys.exit(1 if run_all(options) else 0)
    graphs: list[bool | None] = [True, False] if options.device == "cuda" else [None]
    found: list[dict[str, Any]] = []
    for precision in options.precisions:
        try:
            for outcome in checks(options, precision, max(options.batches), graphs):
                found.append(outcome)
                print(
                    f"{'ok  ' if outcome['ok'] else 'FAIL'} {outcome['check']}: |Δlogit| {outcome['max_abs_logit']:.2g}"
                )
        except XClipError as error:
            found.append({"check": precision, "ok": False, "error": str(error)})
            print(f"FAIL {precision}: {error}")
    document: dict[str, Any] = {"environment": environment(options), "checks": found, "sweep": []}
    sound = all(outcome["ok"] for outcome in found)
    if sound:
        for row in sweep(
            options, [Arm(*arm) for arm in itertools.product(options.precisions, graphs, options.batches)]
        ):
            document["sweep"].append(row)
            model, files = row["model"], row["files"]
            print(
                f"{row['precision']} batch {row['batch']:<3} CUDA graphs {row['cuda_graph']!s:<5} model "
                f"{model['ms_p50']:8.2f} ms ({model['clips_per_second']:.1f} clips/s, n {model['n']}), "
                f"files {files['clips_per_second']:.1f} clips/s"
            )
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(0 if sound else 1)


def parse() -> argparse.Namespace:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE)
    parser.add_argument("--device", choices=["cuda", "tensorrt", "openvino", "cpu"], default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"], choices=["fp32", "fp16", "bf16", "int8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of all arms of a precision")
    parser.add_argument("--runs", type=int, default=20, help="runs of the model in a round")
    parser.add_argument("--videos", type=int, default=32, help="files classified in a round")
    parser.add_argument("--video", type=Path, default=DEMO_VIDEO)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--all", action="store_true", help="run every stage on a seeded ViT-B/16 and write its record")
    parser.add_argument("--quick", action="store_true", help="with --all: a tiny model on the CPU")
    parser.add_argument("--cache", type=Path, default=Path("runs/gpu"), help="with --all: folder of the model")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="with --all: folder of the records")
    return parser.parse_args()


if __name__ == "__main__":
    main()
