"""Does a loaded model still compute what its checkpoint computed? A clip and its logits, fixed at export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.model import XClip

TOLERANCE = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.5}
"""Largest |Δlogit| on a sound machine; wider than the export's gate, since kernels differ between machines.

OpenVINO's bf16 was seen 0.03 off on ViT-B/16 and 0.14 on motion-demo.
"""

INT8_SLACK = 4.0
"""int8 rounds differently on every instruction set: so many times the error that the export measured."""


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found."""

    finite: bool
    sees_its_input: bool
    """Whether two different clips gave different answers."""

    max_abs_logit: float
    """Largest distance from the logits that the checkpoint gave in torch fp32."""

    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether all is well; a NaN is not."""
        return self.finite and self.sees_its_input and self.max_abs_logit <= self.tolerance


def golden_clip(num_frames: int, image_size: int) -> NDArray[np.uint8]:
    """The same noise on every machine, uint8 RGB (T, size, size, 3)."""
    shape = (num_frames, image_size, image_size, 3)
    return np.frombuffer(np.random.default_rng(0).bytes(int(np.prod(shape))), np.uint8).reshape(shape)


def self_test(model: XClip) -> SelfTest:
    """Run the golden clip and its inverse, and compare with the manifest."""
    clip = golden_clip(model.bundle.num_frames, model.bundle.image_size)
    logits, inverse = model.logits(clip), model.logits(255 - clip)
    golden = np.array(model.bundle.manifest["golden_logits"], np.float32)
    measured = float(model.graph.parity["max_abs_logit"])
    return SelfTest(
        finite=bool(np.isfinite(logits).all()),
        sees_its_input=not np.array_equal(logits, inverse),
        max_abs_logit=float(np.abs(logits[: len(golden)] - golden).max()),
        tolerance=TOLERANCE.get(model.precision, INT8_SLACK * measured),
    )
