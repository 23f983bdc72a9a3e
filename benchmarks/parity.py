"""Measure the error of exported graphs against PyTorch, in every precision: motion-demo and a seeded ViT-B/16.

    python benchmarks/parity.py --json benchmarks/results/parity.json      # about five minutes, 6 GB

These are the figures that ``xclip-onnx export`` measures, checks and writes into every bundle's ``manifest.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from records import ROOT, record

sys.path.insert(0, str(ROOT / "tests"))

from helpers.checkpoints import write_seeded_checkpoint
from xclip_export import export_bundle
from xclip_runtime.bundle import Bundle

PRECISIONS = ("fp32", "fp16", "int8")
DEMO = ROOT / "export/motion_demo/checkpoint"


def measure(checkpoint: Path, labels: str | None, folder: Path) -> dict[str, Any]:
    """Export all precisions, and return the manifest's errors of each graph and of the chain of fp32 graphs."""
    report = export_bundle(str(checkpoint), folder, labels_file=labels, precisions=PRECISIONS)
    manifest = Bundle.open(report.bundle).manifest
    graphs = {name: graph["parity"] for name, graph in manifest["graphs"].items()}
    return {**graphs, "chain": manifest["chain_parity"]}


def main() -> None:
    """Export both checkpoints and print the errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seeded = write_seeded_checkpoint(folder / "checkpoint")
        models = {
            "motion-demo": measure(DEMO, None, folder / "motion-demo"),
            "seeded ViT-B/16, 32 frames": measure(seeded, "hmdb51", folder / "seeded"),
        }
    document = json.dumps({**record(), "models": models}, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
