"""Compare X-CLIP's vision tower on a GPU with PyTorch, eager and compiled, and with a plain export.

    python benchmarks/gpu_peers.py --cache runs/gpu --json benchmarks/results/gpu-peers.json

ViT-B/16 with 32 frames and seeded weights (``xclip_export.seeded``), so no download is needed; ``--cache`` keeps the
checkpoint and its bundle, ``--prepare-only`` makes them and measures nothing. All arms share one process and are
interleaved, round by round; times are from uint8 frames in host memory to video_embeds and img_features in host memory.
PyTorch's arms normalise on the GPU, which favours them: transformers' processor normalises on the host. Errors are of
logits against transformers in fp32 on the same GPU, for the bundle's 51 labels. An arm that cannot run has a row with
the reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import vision_arms

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
    Run = Callable[[NDArray[np.uint8]], Outputs]

ROOT = Path(__file__).parents[1]
ARMS = {
    "eager-fp32": "transformers, torch eager fp32",
    "eager-fp16": "transformers, torch eager fp16",
    "compile-fp16": "transformers, torch.compile fp16",
    "compile-fp16-graphs": "transformers, torch.compile fp16 with CUDA graphs (reduce-overhead)",
    "plain-fp32": "plain torch.onnx export, ONNX Runtime",
    "plain-fp16": "the same converted to fp16 by ONNX Runtime's own transformer optimizer",
    "ours-fp32": "xclip-onnx fp32",
    "ours-fp16": "xclip-onnx fp16",
    "ours-fp16-gemm": "xclip-onnx fp16, every bias in a Gemm: the graph's earlier form",
}
REFERENCE, OURS = "eager-fp32", "ours-fp16"
WARM_UP = 3
EARLIER = "bundle-gemm"


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Write the checkpoint and its bundle, unless they exist."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.checkpoints import write_seeded_checkpoint
    from xclip_export import export_bundle

    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    if not checkpoint.exists():
        shape = {"num_frames": options.frames, "patch_size": options.patch, "vision_layers": options.layers}
        write_seeded_checkpoint(checkpoint, **shape)
    if not bundle.exists():
        export_bundle(
            str(checkpoint),
            bundle,
            labels_file="hmdb51",
            precisions=("fp32", "fp16"),
            fused=False,
            progress=lambda stage: print(stage, file=sys.stderr, flush=True),
        )
    if not (folder / EARLIER).exists():
        write_earlier_form(checkpoint, folder / EARLIER)


def write_earlier_form(checkpoint: Path, bundle: Path) -> None:
    """Export the fp16 graph without convolutions and folded query biases, through the same gate."""
    from unittest import mock

    from xclip_export import export_bundle
    from xclip_export.cpu import VisionGraph
    from xclip_export.fp16 import HalfVisionGraph

    class GemmGraph(HalfVisionGraph):
        block, messenger, linear = VisionGraph.block, VisionGraph.messenger, VisionGraph.linear

    with mock.patch("xclip_export.exporter.fp16_vision_model", lambda tower: GemmGraph(tower).build()):
        export_bundle(str(checkpoint), bundle, labels="hmdb51", precisions=("fp16",), devices=("cuda",))


class Labels:
    """Logits for the bundle's labels, from the checkpoint's prompt tower in torch."""

    def __init__(self, model: Any, texts: NDArray[np.float32]) -> None:
        import torch

        from xclip_export.towers import PromptTower

        self._prompt, self._texts = PromptTower(model).eval(), torch.from_numpy(texts)

    def __call__(self, outputs: Outputs) -> NDArray[np.float32]:
        """Map a vision tower's outputs for a batch to logits (B, N)."""
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self._prompt(*map(torch.from_numpy, outputs), self._texts).numpy()
        return logits


def torch_arm(name: str, model: Any, device: str) -> Run:
    """Load the vision tower of transformers; ``name`` gives its precision and compilation mode."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    dtype = torch.float16 if "fp16" in name else torch.float32
    vision = vision_arms.vision_of(model).to(device, dtype)
    if name.startswith("compile"):
        vision = torch.compile(vision, mode="reduce-overhead" if name.endswith("graphs") else None)
    mean, std = (torch.tensor(v, device=device).view(1, 1, 3, 1, 1) for v in (vision_arms.MEAN, vision_arms.STD))

    def run(clips: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            x = torch.from_numpy(clips).to(device).permute(0, 1, 4, 2, 3).float()
            embeds, features = vision(((x / 255 - mean) / std).to(dtype))
            return embeds.float().cpu().numpy(), features.float().cpu().numpy()

    return run


def plain_arm(name: str, model: Any, device: str, folder: Path) -> Run:
    """Export with torch.onnx and load, as ONNX Runtime's documentation shows."""
    import onnxruntime
    import torch

    path = folder / "plain.onnx"
    if not path.exists():
        vision, frames = vision_arms.vision_of(model.float().cpu()), model.config.vision_config.num_frames
        names = {"input_names": ["pixel_values"], "output_names": ["video_embeds", "img_features"]}
        axes = {name: {0: "batch_size"} for name in ("pixel_values", "video_embeds", "img_features")}
        with torch.no_grad():
            example = torch.zeros(1, frames, 3, 224, 224)
            torch.onnx.export(vision, (example,), str(path), dynamo=False, opset_version=18, dynamic_axes=axes, **names)
    if name == "plain-fp16":
        from onnxruntime.transformers.optimizer import optimize_model

        optimised = optimize_model(str(path), "vit", num_heads=12, hidden_size=768, opt_level=0)
        optimised.convert_float_to_float16(keep_io_types=True)
        path = folder / "plain-fp16.onnx"
        optimised.save_model_to_file(str(path))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    session = onnxruntime.InferenceSession(path, settings, providers=[provider])

    def run(clips: NDArray[np.uint8]) -> Outputs:
        pixels = np.concatenate([vision_arms.normalised(clip[None]) for clip in clips])
        embeds, features = session.run(None, {"pixel_values": pixels})
        return embeds, features

    return run


def our_arm(name: str, device: str, bundle: Path, batch: int) -> Run:
    """Load the bundle as a user of `XClip` does."""
    from xclip_runtime import XClip

    precision, _, earlier = name.removeprefix("ours-").partition("-")
    bundle = bundle.with_name(EARLIER) if earlier else bundle
    model = XClip(bundle, device, precision, batch_size=batch, optimize_for="latency")  # type: ignore[arg-type]

    def run(clips: NDArray[np.uint8]) -> Outputs:
        outputs = model._bound.features(clips)  # noqa: SLF001 - the arms compare the vision tower alone
        return outputs["video_embeds"], outputs["img_features"]

    return run


def checkpoint_of(folder: Path) -> Any:
    """Load the checkpoint as a user does."""
    from transformers import XCLIPModel

    return XCLIPModel.from_pretrained(folder / "checkpoint").eval()


def load(name: str, options: argparse.Namespace, folder: Path, batch: int) -> Run:
    """Load an arm for batches of one size."""
    if name.startswith("ours"):
        return our_arm(name, options.device, folder / "bundle", batch)
    model = checkpoint_of(folder)
    if name.startswith("plain"):
        return plain_arm(name, model, options.device, folder)
    return torch_arm(name, model, options.device)


def measure(options: argparse.Namespace, folder: Path, batch: int) -> list[dict[str, Any]]:
    """Measure every arm with batches of one size; one row an arm."""
    clips = np.concatenate(vision_arms.evaluation_clips(options.frames, 224, batch))
    labels = Labels(checkpoint_of(folder), np.load(folder / "bundle/text_embeds.npy"))
    arms: dict[str, Run] = {}
    logits: dict[str, NDArray[np.float32]] = {}
    rows: list[dict[str, Any]] = []
    for name in options.arms:
        started = time.perf_counter()
        row = {"arm": name, "what": ARMS[name], "batch": batch}
        try:
            run = load(name, options, folder, batch)
            for _ in range(WARM_UP):
                outputs = run(clips)
        except Exception as error:  # noqa: BLE001 - any error of a peer goes to its row of the table
            rows.append({**row, "missing": f"{type(error).__name__}: {error}".splitlines()[0]})
            print(f"{name}: {rows[-1]['missing']}", file=sys.stderr)
            continue
        arms[name] = run
        logits[name] = labels(outputs)
        rows.append({**row, "ready_s": time.perf_counter() - started})
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds):
        for name, run in arms.items():
            times = []
            for _ in range(options.runs):
                started = time.perf_counter()
                run(clips)
                times.append(time.perf_counter() - started)
            seconds[name].append(statistics.median(times))
    for row in rows:
        if row["arm"] in arms:
            row.update(figures(row["arm"], seconds, logits, batch))
    return rows


def figures(
    name: str, seconds: dict[str, list[float]], logits: dict[str, NDArray[np.float32]], batch: int
) -> dict[str, Any]:
    """Summarise an arm: times, ratio to ours in the same round, and errors."""
    found: dict[str, Any] = {"ms": 1000 * statistics.median(seconds[name])}
    found["clips_per_second"] = 1000 * batch / found["ms"]
    if OURS in seconds:
        found["ratio_to_ours"] = statistics.median(a / b for a, b in zip(seconds[name], seconds[OURS], strict=True))
    if REFERENCE in logits:
        error = np.abs(logits[name] - logits[REFERENCE])
        found |= {"logit_p50": float(np.median(error)), "logit_max": float(error.max())}
    return found


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """Date, software versions and hardware of the run."""
    import torch
    import transformers

    from xclip_runtime.bench.machine import machine, software
    from xclip_runtime.inference.installation import cuda_version, gpus

    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "cuda": cuda_version()}
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine(),
        **software(),
        "peers": versions,
        "gpus": [gpu._asdict() for gpu in gpus() or ()],
        "command": " ".join(sys.argv),
        "rounds": options.rounds,
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/gpu"), help="folder to keep checkpoint and bundle")
    parser.add_argument(
        "--prepare-only", action="store_true", help="make the checkpoint and the bundle, and measure nothing"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu serves to test this script")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10, help="runs of an arm in a round, of which the median counts")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prepare(options, options.cache)
    if options.prepare_only:
        return
    document: dict[str, Any] = {"environment": environment(options), "arms": []}
    for batch in options.batches:
        rows = measure(options, options.cache, batch)
        document["arms"] += rows
        for row in rows:
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        if options.json:
            options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
