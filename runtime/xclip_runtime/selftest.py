"""Self-test of a loaded model: the logits of a fixed clip, compared with those recorded at export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.bundle.manifest import MANIFEST, damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.model import XClip

TOLERANCE = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.5}
"""Largest |Δlogit| allowed; wider than the export's gate, since kernels differ between machines.

bf16 on OpenVINO was off by 0.03 on ViT-B/16 and by 0.14 on motion-demo.
"""

INT8_SLACK = 4.0
"""Tolerance of int8 in multiples of the error at export, since int8 rounds differently on every instruction set."""


@dataclass(frozen=True)
class SelfTest:
    """Result of a self-test."""

    finite: bool
    sees_its_input: bool
    """True if two different clips have different logits."""

    max_abs_logit: float
    """Largest |Δlogit| to the checkpoint in torch fp32."""

    tolerance: float

    @property
    def passed(self) -> bool:
        """True if all checks passed; NaN fails."""
        return self.finite and self.sees_its_input and self.max_abs_logit <= self.tolerance


def golden_clip(num_frames: int, image_size: int) -> NDArray[np.uint8]:
    """Make the golden clip, the same noise on every machine, uint8 RGB (T, size, size, 3)."""
    shape = (num_frames, image_size, image_size, 3)
    return np.frombuffer(np.random.default_rng(0).bytes(int(np.prod(shape))), np.uint8).reshape(shape)


def self_test(model: XClip) -> SelfTest:
    """Run the golden clip and its inverse, and compare the logits with the manifest's."""
    clip = golden_clip(model.bundle.num_frames, model.bundle.image_size)
    logits, inverse = model.logits(clip), model.logits(255 - clip)
    golden = np.array(model.bundle.manifest["golden_logits"], np.float32)
    if len(golden) > len(logits):
        raise damaged(model.bundle.path / MANIFEST, "it has more golden logits than the bundle has labels")
    measured = float(model.graph.parity["max_abs_logit"])
    return SelfTest(
        finite=bool(np.isfinite(logits).all()),
        sees_its_input=not np.array_equal(logits, inverse),
        max_abs_logit=float(np.abs(logits[: len(golden)] - golden).max()),
        tolerance=TOLERANCE.get(model.precision, INT8_SLACK * measured),
    )
