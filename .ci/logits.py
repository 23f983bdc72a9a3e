"""Print motion-demo's logits of two fixed clips as JSON, or compare those of two machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.inference import graphs
from xclip_runtime.selftest import golden_clip

KINDS = ("fp32", "int8", "qdq")


def logits(kind: str) -> dict[str, list[float]]:
    """Run the CPU provider on the same pixels and on the sample video; ``qdq`` is the int8 graph of other engines."""
    if kind == "qdq":
        graphs.select_vision_graph = lambda bundle, *_: bundle.graph("vision", "int8", "any")
    model = XClip("motion-demo", device="cpu", precision="fp32" if kind == "fp32" else "int8")
    pixels = golden_clip(model.bundle.num_frames, model.bundle.image_size)
    video = {each.label: each.logit for each in model.classify(DEMO_VIDEO, top_k=None).labels}
    return {"pixels": model.logits(pixels).tolist(), "video": [video[label] for label in sorted(video)]}


def compare(x86: str, arm64: str) -> None:
    """Print the largest differences of logits between two folders of them, and of each kind to fp32."""
    held = {}
    for machine, folder in (("x86", x86), ("arm64", arm64)):
        for kind in KINDS:
            found = json.loads((Path(folder) / f"{kind}.json").read_text())
            held |= {(machine, kind, clip): np.array(values) for clip, values in found.items()}
    for (machine, kind, clip), values in held.items():
        others = {"x86": held["x86", kind, clip], "fp32": held[machine, "fp32", clip]}
        for name, other in others.items():
            if name not in (machine, kind):
                error, same = np.abs(values - other).max(), values.argmax() == other.argmax()
                print(f"{clip}: {kind} on {machine} differs from {name} by {error:.2g}, same label: {same}")


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        compare(*sys.argv[2:])
    else:
        print(json.dumps(logits(sys.argv[1])))
