"""Measure windows from cached frames against exact ones: accuracy on motion-demo streams, and latency at full size.

    python benchmarks/stream_cache.py accuracy --cache runs/stream-cache --json benchmarks/results/stream-cache.json
    python benchmarks/stream_cache.py latency --cache runs/stream-cache --json benchmarks/results/stream-latency.json

"accuracy" cuts unseen clips of motion-demo together into one encoded file, so that the label changes every few seconds,
and compares, by the code of `xclip-onnx eval-stream`, each window of 32 frames exactly and from cached frames with 16,
8, 4 and 2 new ones: without any refresh, as a bound, and with the default policy. 96 clips are 2,289 windows of 2 new
frames and take half an hour for both precisions; ``--clips 4`` tries it in a minute.

"latency" runs a seeded ViT-B/16 of 32 frames, in int8 or on CUDA in fp16: milliseconds from prepared frames to logits,
median over rounds that take turns. Exporting the bundle takes ten minutes and is kept in ``--cache``; the measurement
takes two.

"cuts" measures the difference of the colours of neighbouring sampled frames by which a scene cut is known: within the
clips of the stream, and from one clip to the next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from records import ROOT, is_current, mark_current, record
from rich.console import Console
from rich.progress import track

from motion_demo.labels import LABELS
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene
from xclip_export import export_bundle
from xclip_runtime import Reuse, XClip
from xclip_runtime.evaluation.datasets import Sample
from xclip_runtime.evaluation.streams import ComparedStream, compared, summarise, timed_logits
from xclip_runtime.inference.cached_frames import CachedPart, difference
from xclip_runtime.streaming.sources import earliest_end, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.evaluation.streams import ComparedWindow
    from xclip_runtime.inference.cached_frames import WindowEncoder
    from xclip_runtime.streaming.windows import Window

FPS = 25
FRAMES = 32
WINDOW = 64 / FPS
"""Seconds: two thirds of a clip, of which every second frame is sampled."""
CLIP_FRAMES = 96
NEW_FRAMES = (16, 8, 4, 2)
STEP = min(NEW_FRAMES)
SIZE = 256
POLICIES = {"never refreshed": Reuse(refresh=0, cut=1.0), "default policy": Reuse()}
PRECISIONS = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}


def write_stream(path: Path, clips: int) -> list[str]:
    """Encode clips of unseen seeds and changing labels as one file; return their labels, in order."""
    rng = np.random.default_rng(2)
    labels = [LABELS[i] for i in rng.permutation(np.arange(clips) % len(LABELS))]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "23"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number, label in enumerate(track(labels, description="clips", console=Console(stderr=True))):
            scene = sample_scene(EVALUATION_SEEDS.start + 50_000 + number, label)
            for frame in render(scene, frame_times(CLIP_FRAMES), size=(SIZE, SIZE), scale=1.0):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return [label.text for label in labels]


def windows_of(model: XClip, path: Path) -> Iterator[Window]:
    """Cut the stream into windows, one every `STEP` sampled frames."""
    source = open_source(path)
    windows = model.windows(WINDOW, STEP * WINDOW / FRAMES, fps=FPS, ends_after=earliest_end(source), reuse=True)
    for frame in source:
        yield from windows.advance(frame.time, lambda frame=frame: model.transform(frame.to_rgb()))  # type: ignore[misc]


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Compare every number of new frames and policy with exact windows, in every precision."""
    path = options.cache / f"stream-{options.clips}.mp4"
    texts = write_stream(path, options.clips)
    bundle = exported(ROOT / "export/motion_demo/checkpoint", options.cache / "motion-demo", None, options.device)
    models = {precision: XClip(bundle, options.device, precision) for precision in PRECISIONS[options.device]}  # type: ignore[arg-type]
    return {precision: _accuracy(model, path, texts) for precision, model in models.items()}


def _accuracy(model: XClip, path: Path, texts: list[str]) -> dict[str, Any]:
    arms: dict[tuple[str, int], WindowEncoder] = {
        (policy, new): model.window_encoder(reuse) for policy, reuse in POLICIES.items() for new in NEW_FRAMES
    }
    found: dict[tuple[str, int], list[ComparedWindow]] = {arm: [] for arm in arms}
    for number, window in enumerate(windows_of(model, path)):
        exact, ms = timed_logits(model, window)
        for arm, encoder in arms.items():
            if number * STEP % arm[1] == 0:
                found[arm].append(compared(model, encoder, window, exact, ms))
    seconds = CLIP_FRAMES / FPS
    segments = [Sample(str(path), text, i * seconds, (i + 1) * seconds) for i, text in enumerate(texts)]
    return {policy: {new: _row(model, found[policy, new], segments) for new in NEW_FRAMES} for policy in POLICIES}


def _row(model: XClip, windows: list[ComparedWindow], segments: list[Sample]) -> dict[str, Any]:
    row = summarise([ComparedStream(windows, segments)], model.labels).to_dict()
    # All arms share a machine, whose times are those of "latency".
    return {name: value for name, value in row.items() if not name.endswith("_ms")}


def cuts(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the difference of neighbouring sampled frames within clips and at cuts."""
    path = options.cache / f"stream-{options.clips}.mp4"
    write_stream(path, options.clips)
    model = XClip("motion-demo", options.device)
    found: dict[bool, dict[int, float]] = {False: {}, True: {}}
    for window in windows_of(model, path):
        pairs = zip(window.sampled, window.sampled[1:], window.prepared, window.prepared[1:], strict=False)
        for number, following, frame, next_frame in pairs:
            is_cut = number // CLIP_FRAMES != following // CLIP_FRAMES
            found[is_cut][number] = difference(frame, next_frame)
    return {
        name: {
            "n": len(values),
            **dict(zip(("min", "p50", "p99", "max"), np.quantile(values, (0, 0.5, 0.99, 1)), strict=True)),
        }
        for name, values in (("within_a_clip", list(found[False].values())), ("at_cuts", list(found[True].values())))
    }


def latency(options: argparse.Namespace) -> dict[str, Any]:
    """Measure an exact window against windows of few new frames, at full size."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.checkpoints import write_seeded_checkpoint

    checkpoint = options.cache / "seeded-checkpoint"
    if not checkpoint.exists():
        write_seeded_checkpoint(checkpoint)
    bundle = exported(checkpoint, options.cache / "seeded", "hmdb51", options.device)
    precision = PRECISIONS[options.device][-1]
    model = XClip(bundle, options.device, precision)  # type: ignore[arg-type]
    size = model.bundle.image_size
    frames = list(np.random.default_rng(0).integers(0, 256, (FRAMES, size, size, 3), np.uint8))
    tower = model.window_encoder().tower  # without the policy, whose refreshes are exact windows
    cache, number = tower.cache(), 0
    times: dict[str, list[float]] = {"exact": [], **{f"{new} new": [] for new in (4, 2, 1)}}
    for _ in track(range(options.rounds + 1), description="rounds", console=Console(stderr=True)):
        for arm, taken in times.items():
            new = FRAMES if arm == "exact" else int(arm.split()[0])
            number += new
            start = time.perf_counter()
            if arm == "exact":
                model.logits(np.stack(frames))
                taken.append(time.perf_counter() - start)
                tower.encode([CachedPart(cache, range(number, number + FRAMES), frames)])
            else:
                ((features, computed),) = tower.encode([CachedPart(cache, range(number, number + FRAMES), frames)])
                model.label_logits(features)
                taken.append(time.perf_counter() - start)
                assert computed == new, computed
    # The first round warms up.
    medians = {arm: 1000 * statistics.median(taken[1:]) for arm, taken in times.items()}
    return {
        "device": options.device,
        "precision": precision,
        "threads": model.info["threads"],
        "rounds": options.rounds,
        "ms": medians,
        "share_of_exact": {arm: ms / medians["exact"] for arm, ms in medians.items()},
        "windows_a_second": {arm: 1000 / ms for arm, ms in medians.items()},
        "cache_mb_a_stream": cache.nbytes / 1e6,
    }


def exported(checkpoint: Path, bundle: Path, labels: str | None, device: str) -> Path:
    """Export a checkpoint with the stream graphs of a device, unless that is done already."""
    bundle = bundle.with_name(f"{bundle.name}-{device}")
    if not is_current(bundle):
        export_bundle(
            str(checkpoint), bundle, labels_file=labels, precisions=PRECISIONS[device], stream=True, overwrite=True,
            progress=lambda stage: print(stage, file=sys.stderr),
        )  # fmt: skip
        mark_current(bundle)
    return bundle


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("part", choices=["accuracy", "latency", "cuts"])
    parser.add_argument("--cache", type=Path, required=True, help="folder to keep bundles and the stream")
    parser.add_argument("--clips", type=int, default=96, help="clips of the stream (accuracy)")
    parser.add_argument("--device", choices=list(PRECISIONS), default="cpu", help="device")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (latency)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    found = {"accuracy": accuracy, "latency": latency, "cuts": cuts}[options.part](options)
    document = json.dumps({**record(), "clips": options.clips, options.part: found}, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
