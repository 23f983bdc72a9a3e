"""Print motion-demo's logits of a fixed clip as JSON, or compare those of two machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.inference import graphs

KINDS = ("fp32", "int8", "qdq")


def logits(kind: str) -> dict[str, float]:
    """Classify the sample video on the CPU provider; ``qdq`` is the int8 graph that other engines run."""
    if kind == "qdq":
        graphs.select_vision_graph = lambda bundle, *_: bundle.graph("vision", "int8", "any")
    model = XClip("motion-demo", device="cpu", precision="fp32" if kind == "fp32" else "int8")
    return {each.label: each.logit for each in model.classify(DEMO_VIDEO, top_k=None).labels}


def compare(x86: str, arm64: str) -> None:
    """Print the largest differences of logits between two folders of them, and of each kind to fp32."""
    found = {}
    for machine, folder in (("x86", x86), ("arm64", arm64)):
        for kind in KINDS:
            found[machine, kind] = json.loads((Path(folder) / f"{kind}.json").read_text())
    labels = list(found["x86", "fp32"])
    held = {key: np.array([each[label] for label in labels]) for key, each in found.items()}
    for kind in KINDS:
        print(f"{kind}: arm64 differs from x86 by {np.abs(held['arm64', kind] - held['x86', kind]).max():.2g}")
    for (machine, kind), values in held.items():
        fp32 = held[machine, "fp32"]
        if kind != "fp32":
            error, same = np.abs(values - fp32).max(), values.argmax() == fp32.argmax()
            print(f"{machine}: {kind} differs from fp32 by {error:.2g}, same label: {same}")


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        compare(*sys.argv[2:])
    else:
        print(json.dumps(logits(sys.argv[1])))
