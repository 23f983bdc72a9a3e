"""Measure time and memory of the prompt graph and of the text graph for thousands of labels.

    python benchmarks/labels.py --cache runs/labels --json results/labels.json

The graphs are those of ViT-B/16 with 32 frames (196 patches, 512 dimensions, 12 text layers), exported from a seeded
checkpoint; neither time nor memory depends on the weights. In every round each case runs once, in random order and in a
process of its own, which repeats it for a second after a warm-up. The table gives medians over the rounds of the median
time a label and of the peak resident memory above that of the loaded model (Linux only).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import record

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_AT_ONCE = 10**9
SECONDS = 1.0


def prepare(folder: Path) -> Path:
    """Export the bundle, unless it exists."""
    from transformers import CLIPTokenizerFast

    from xclip_export import export_bundle
    from xclip_export.seeded import save_checkpoint, seeded_config, seeded_model

    bundle = folder / "bundle"
    if not (bundle / "manifest.json").is_file():
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir(parents=True, exist_ok=True)
        demo = Path(__file__).parents[1] / "export/motion_demo/checkpoint"
        tokenizer = CLIPTokenizerFast.from_pretrained(demo)
        # One vision layer is enough: labels only use its outputs.
        save_checkpoint(seeded_model(seeded_config(vision_layers=1)), tokenizer, checkpoint)
        export_bundle(str(checkpoint), bundle, labels_file="hmdb51", fused=False)
    return bundle


def work(options: argparse.Namespace) -> None:
    """Measure one case and print it as JSON."""
    from xclip_runtime import XClip
    from xclip_runtime.inference import bound_model
    from xclip_runtime.results import VideoFeatures
    from xclip_runtime.text.encoder import TextEncoder

    rng = np.random.default_rng(0)
    loaded = XClip(options.bundle, device="cpu")
    facts = loaded.bundle.manifest["model"]
    dimension = facts["projection_dim"]
    patches = (facts["image_size"] // facts["patch_size"]) ** 2
    if options.case == "prompt":
        bound_model.LABELS_AT_ONCE = options.at_once
        features = VideoFeatures(
            rng.standard_normal(dimension, np.float32), rng.standard_normal((patches, dimension), np.float32)
        )
        embeds = rng.standard_normal((options.labels, dimension), np.float32)
        found = measure(lambda: loaded.prompt_logits(features, embeds), options.labels)
    else:
        texts = [f"a person {rng.integers(1000)} of {number}" for number in range(options.labels)]
        tokens = sum(map(len, TextEncoder(loaded.bundle).token_ids(texts)))
        found = {
            **measure(lambda: loaded.text_embeds(texts), options.labels),
            "tokens_a_label": tokens / options.labels,
        }
    print(json.dumps(found))


def measure(run: Callable[[], object], labels: int) -> dict[str, float]:
    """Measure milliseconds a label, and peak megabytes above those before the first run."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run()
    seconds: list[float] = []
    while sum(seconds) < SECONDS:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"ms_a_label": 1000 * statistics.median(seconds) / labels, "megabytes": memory("VmHWM") - before}


def memory(field: str) -> float:
    """Read a field of /proc/self/status, megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def in_a_process(bundle: Path, case: str, labels: int, at_once: int) -> dict[str, Any]:
    """Run one case in a process of its own."""
    options = [f"--case={case}", f"--bundle={bundle}", f"--labels={labels}", f"--at-once={at_once}"]
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=Path("runs/labels"), help="folder to keep the bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepare", action="store_true", help="only export the bundle")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    for name in ("--case", "--bundle"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--labels", "--at-once"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        work(options)
        return
    bundle = prepare(options.cache)
    if options.prepare:
        return
    from xclip_runtime.inference.bound_model import LABELS_AT_ONCE

    cases = [
        *(("prompt", labels, LABELS_AT_ONCE) for labels in (51, 400, 1000, 10_000, 50_000)),
        *(("prompt", 10_000, at_once) for at_once in (64, 256, 4096, ALL_AT_ONCE)),
        *(("text", labels, LABELS_AT_ONCE) for labels in (51, 1000)),
    ]
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in random.sample(cases, len(cases)):
            found[case].append(in_a_process(bundle, *case))
    rows = []
    for (case, labels, at_once), rounds in found.items():
        row = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        at_most = at_once if at_once < ALL_AT_ONCE else None
        rows.append({"graph": case, "labels": labels, **({"at_once": at_most} if case == "prompt" else {}), **row})
        pieces = f"{at_most or 'all'} at once" if case == "prompt" else ""
        print(f"{case:>7} {labels:6d} labels {pieces:>13} {row['ms_a_label']:8.4f} ms {row['megabytes']:8.1f} MB")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**record(), "rounds": options.rounds, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
