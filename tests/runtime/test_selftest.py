"""A loaded model still computes what its checkpoint computed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.selftest import SelfTest, golden_clip, self_test


def test_the_golden_clip_is_the_same_on_every_machine():
    clip = golden_clip(2, 32)

    assert clip.shape == (2, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert hashlib.sha256(clip.tobytes()).hexdigest().startswith("fb3cd81acf618ad2")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_embedded_model_passes_at_every_precision(precision):
    result = self_test(XClip(DEMO_BUNDLE, device="cpu", precision=precision))

    assert result.passed


@pytest.mark.parametrize(
    "result",
    [
        SelfTest(finite=False, sees_its_input=True, max_abs_logit=0.0, tolerance=1.0),
        SelfTest(finite=True, sees_its_input=False, max_abs_logit=0.0, tolerance=1.0),
        SelfTest(finite=True, sees_its_input=True, max_abs_logit=2.0, tolerance=1.0),
        SelfTest(finite=True, sees_its_input=True, max_abs_logit=float("nan"), tolerance=1.0),
    ],
    ids=["infinite", "blind", "off", "nan"],
)
def test_anything_wrong_fails(result):
    assert not result.passed
