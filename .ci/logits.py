"""Print motion-demo's logits of a fixed clip as JSON, or compare those of two machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_VIDEO


def main() -> None:
    """Print the logits in a precision, or with ``--compare`` and two folders of them, the largest differences."""
    if sys.argv[1] != "--compare":
        model = XClip("motion-demo", device="cpu", precision=sys.argv[1])
        scores = model.classify(DEMO_VIDEO, top_k=None)
        print(json.dumps({each.label: each.logit for each in scores.labels}))
        return
    here, there = (
        {kind: json.loads((Path(folder) / f"{kind}.json").read_text()) for kind in ("fp32", "int8")}
        for folder in sys.argv[2:]
    )
    labels = list(here["fp32"])
    ours, theirs = ({kind: np.array([each[kind][name] for name in labels]) for kind in each} for each in (here, there))
    for kind in ours:
        print(f"{kind}: largest difference of a logit to x86 {np.abs(ours[kind] - theirs[kind]).max():.2g}")
    for name, held in (("x86", ours), ("arm64", theirs)):
        best = labels[int(held["int8"].argmax())] == labels[int(held["fp32"].argmax())]
        print(f"{name}: int8 differs from fp32 by {np.abs(held['int8'] - held['fp32']).max():.2g}, same label: {best}")


if __name__ == "__main__":
    main()
