"""What int8 costs in accuracy: motion-demo and its outlier twin, fp32 against int8 on the same video files.

    python benchmarks/int8_accuracy.py                # 500 clips of seen pairs, 500 of held-out ones; ten minutes
    python benchmarks/int8_accuracy.py --n 20 --json results.json

The twin multiplies LayerNorm gains of a few channels by 60 and divides the weights that read them: the same function in
fp32, and as hard for a quantiser as a network with outlier channels. Clips are rendered from seeds that training never
saw and read from encoded files, as ``motion_demo.dataset`` writes them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from motion_demo.dataset import write_clip
from motion_demo.labels import HELD_OUT, SEEN
from motion_demo.scenes import EVALUATION_SEEDS
from xclip_export import export_bundle
from xclip_export.checkpoint import load_checkpoint
from xclip_export.seeded import outlier_twin
from xclip_runtime import XClip
from xclip_runtime.statistics import wilson

CHECKPOINT = Path(__file__).parents[1] / "export/motion_demo/checkpoint"
PRECISIONS = ("fp32", "int8")


def write_twin(folder: Path) -> Path:
    """The outlier twin of motion-demo as a checkpoint."""
    shutil.copytree(CHECKPOINT, folder)
    outlier_twin(load_checkpoint(str(CHECKPOINT)).model, gain=60.0).save_pretrained(folder)
    return folder


def compare(models: dict[str, dict[str, XClip]], n: int, folder: Path) -> dict[str, Any]:
    """Logits of every model for ``n`` clips of seen and ``n`` of held-out pairs, and what follows from them."""
    logits: dict[tuple[str, str], list[np.ndarray[Any, Any]]] = {}
    right = list[int]()
    names = next(iter(next(iter(models.values())).values())).labels
    pairs = [SEEN[i % len(SEEN)] for i in range(n)] + [HELD_OUT[i % len(HELD_OUT)] for i in range(n)]
    for index, label in enumerate(track(pairs, description="clips", console=Console(stderr=True))):
        path = write_clip(folder / "clip", EVALUATION_SEEDS.start + index, label)
        right.append(names.index(label.text))
        for name, of_precision in models.items():
            for precision, model in of_precision.items():
                ranked = {item.label: item.logit for item in model.classify(path, top_k=None).labels}
                logits.setdefault((name, precision), []).append(np.array([ranked[label] for label in names]))
    guesses = {key: np.argmax(values, axis=1) for key, values in logits.items()}
    result: dict[str, Any] = {}
    for (name, precision), values in logits.items():
        hits = guesses[name, precision] == right
        report: dict[str, Any] = {
            "seen": asdict(wilson(int(hits[:n].sum()), n)),
            "held_out": asdict(wilson(int(hits[n:].sum()), n)),
        }
        if precision != "fp32":
            errors = np.abs(np.subtract(values, logits[name, "fp32"]))
            same = int((guesses[name, precision] == guesses[name, "fp32"]).sum())
            report["top1_agreement_with_fp32"] = asdict(wilson(same, 2 * n))
            report["abs_logit_error"] = {"p50": float(np.median(errors)), "p99": float(np.quantile(errors, 0.99))}
            report["abs_logit_error"]["max"] = float(errors.max())
        result.setdefault(name, {})[precision] = report
    return result


def main() -> None:
    """Export both bundles, score them and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--n", type=int, default=500, help="clips of seen pairs, and again of held-out ones")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {}
        for name, source in (("motion-demo", CHECKPOINT), ("outlier twin", write_twin(folder / "twin"))):
            report = export_bundle(str(source), folder / name.replace(" ", "-"), precisions=PRECISIONS, fused=False)
            models[name] = {precision: XClip(report.bundle, "cpu", precision) for precision in PRECISIONS}
        result = compare(models, options.n, folder)
    print("| model | precision | seen | held out | top-1 as fp32 | abs. logit error p50 | p99 | max |")
    print("|---|---|---|---|---|---|---|---|")
    for name, of_precision in result.items():
        for precision, report in of_precision.items():
            cells = [name, precision, *(f"{report[part]['value']:.1%}" for part in ("seen", "held_out"))]
            if precision != "fp32":
                cells.append(f"{report['top1_agreement_with_fp32']['value']:.1%}")
                cells += [f"{value:.3f}" for value in report["abs_logit_error"].values()]
            print("| " + " | ".join(cells + [""] * (8 - len(cells))) + " |")
    if options.json:
        options.json.write_text(json.dumps({"n": options.n, "models": result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
