"""The embedded default: a small bundle of the real architecture, trained on synthetic motion, and one sample video."""

from __future__ import annotations

import json
from pathlib import Path

DATA = Path(__file__).parent / "data"

DEMO_BUNDLE = DATA / "motion-demo"
"""A bundle of motion-demo: 32 frames of 224 pixels, every tower of X-CLIP."""

DEMO_VIDEO = DATA / "motion-demo.mp4"
"""A synthetic clip that motion-demo was not trained on."""


def expected_label() -> str:
    """Return the true label of the sample video."""
    facts = json.loads((DATA / "motion-demo.json").read_text(encoding="utf-8"))
    return str(facts["expected"])
