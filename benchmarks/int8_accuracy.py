"""Measure the accuracy of int8 against fp32: motion-demo and its outlier twin on the same video files.

    python benchmarks/int8_accuracy.py --cache runs/int8-accuracy --json benchmarks/results/int8-accuracy.json
    python benchmarks/int8_accuracy.py --openvino                # the portable int8 graph on OpenVINO

The twin multiplies LayerNorm gains of a few channels by 60 and divides the weights that read them: the same function in
fp32, and as hard for a quantiser as a network with outlier channels. Clips are rendered from seeds unseen in training,
those of ``python -m motion_demo.dataset``, and read from encoded files. The portable int8 graph, "qdq", runs on ONNX
Runtime's CPU provider, which computes the same codes as other engines, or with ``--openvino`` on that device.

A thousand clips take about ten minutes. Finished work is kept in ``--cache``, and the same command continues an
interrupted run; if the exporter has changed, it starts over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import ROOT, exporter_digest, record
from rich.console import Console
from rich.progress import track

from motion_demo.dataset import write_clip
from motion_demo.labels import HELD_OUT, SEEN
from motion_demo.scenes import EVALUATION_SEEDS
from xclip_export import export_bundle
from xclip_export.checkpoint import load_checkpoint
from xclip_export.seeded import outlier_twin
from xclip_runtime import Bundle, XClip
from xclip_runtime.evaluation.intervals import wilson
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session
from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKPOINT = ROOT / "export/motion_demo/checkpoint"
MODELS = ("motion-demo", "outlier twin")
PRECISIONS = ("fp32", "int8")
GAIN = 60.0


def bundles(folder: Path) -> dict[str, Path]:
    """Export the bundles of both models, unless they exist."""
    made = {name: folder / name.replace(" ", "-") for name in MODELS}
    twin = folder / "twin-checkpoint"
    if not twin.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            copy = Path(shutil.copytree(CHECKPOINT, Path(scratch) / "checkpoint"))
            outlier_twin(load_checkpoint(str(CHECKPOINT)).model, gain=GAIN).save_pretrained(copy)
            copy.rename(twin)
    for name, source in zip(MODELS, (CHECKPOINT, twin), strict=True):
        if not made[name].exists():
            export_bundle(str(source), made[name], precisions=PRECISIONS)
    return made


class PortableInt8:
    """The portable int8 graph of a bundle on ONNX Runtime's CPU provider, which no device of `XClip` chooses."""

    def __init__(self, path: Path) -> None:
        bundle = Bundle.open(path)
        names = "vision_model_qdq", "prompt_model"
        graphs = (next(graph for graph in bundle.graphs if graph.name == name) for name in names)
        self._vision, self._prompt = (Session(bundle.checked_graph(graph), SessionOptions("cpu")) for graph in graphs)
        self._text_embeds = bundle.text_embeds

    def logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits of one clip (T, H, W, 3), float32 (labels,)."""
        found = self._vision.run({"pixel_values": frames[None]})
        return self._prompt.run({**found, "text_embeds": self._text_embeds})["logits_per_video"][0]


def logits_of(models: list[Any], n: int, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compute the logits of every model for ``n`` clips of seen pairs and ``n`` of held-out ones.

    Returns:
        float32 (2n, models, labels), and the right label's index (2n,).
    """
    folder.mkdir(exist_ok=True)
    pairs = [SEEN[i % len(SEEN)] for i in range(n)] + [HELD_OUT[i % len(HELD_OUT)] for i in range(n)]
    found = []
    for index, label in enumerate(track(pairs, description="clips", console=Console(stderr=True))):
        seed = EVALUATION_SEEDS.start + index
        kept = folder / f"{seed} {label.text}.npy"
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                video = write_clip(Path(scratch) / "clip", seed, label)
                frames = read_video(video, models[0].bundle.num_frames, models[0].transform, Reading()).frames[0]
                np.save(Path(scratch) / "logits.npy", np.stack([model.logits(frames) for model in models]))
                (Path(scratch) / "logits.npy").rename(kept)
        found.append(np.load(kept))
    return np.stack(found), np.array([models[0].labels.index(label.text) for label in pairs])


def summary(fp32: NDArray[np.float32], int8: NDArray[np.float32], right: NDArray[np.int64]) -> dict[str, Any]:
    """Compute the accuracy of both precisions on both halves, and the error of int8 against fp32."""
    n = len(right) // 2
    parts = {"seen": slice(None, n), "held_out": slice(n, None)}
    guesses = {"fp32": fp32.argmax(axis=1), "int8": int8.argmax(axis=1)}
    errors = np.abs(int8 - fp32)
    return {
        **{
            precision: {
                part: asdict(wilson(int((guess[which] == right[which]).sum()), n)) for part, which in parts.items()
            }
            for precision, guess in guesses.items()
        },
        "top1_agreement": asdict(wilson(int((guesses["int8"] == guesses["fp32"]).sum()), 2 * n)),
        "abs_logit_error": {
            "p50": float(np.median(errors)),
            "p99": float(np.quantile(errors, 0.99)),
            "max": float(errors.max()),
            "logits": int(errors.size),
        },
        "logit_std": float(fp32.std()),
    }


def main() -> None:
    """Export and score both bundles, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--n", type=int, default=500, help="number of clips of seen pairs, and of held-out ones")
    parser.add_argument("--cache", type=Path, help="folder to keep bundles and logits")
    parser.add_argument("--openvino", action="store_true", help="run the portable int8 graph on device openvino")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.cache or Path(temporary)) / exporter_digest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        made = bundles(folder)
        models: list[Any] = []
        for path in made.values():
            portable = XClip(path, "openvino", "int8") if options.openvino else PortableInt8(path)
            models += [*(XClip(path, "cpu", precision) for precision in PRECISIONS), portable]  # type: ignore[arg-type]
        kept = folder / ("logits-openvino" if options.openvino else "logits")
        logits, right = logits_of(models, options.n, kept)
    result = {
        **record(),
        "n": options.n,
        "gain": GAIN,
        **{
            arm: {
                name: summary(logits[:, 3 * place], logits[:, 3 * place + offset], right)
                for place, name in enumerate(MODELS)
            }
            for arm, offset in (("models", 1), ("qdq", 2))
        },
    }
    document = json.dumps(result, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
