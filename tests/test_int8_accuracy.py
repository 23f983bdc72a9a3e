"""The comparison of int8 with fp32 runs every graph of a bundle on the same video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE

ROOT = Path(__file__).parent.parent


def test_the_int8_graphs_of_motion_demo_answer_as_fp32_does(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    accuracy = pytest.importorskip("int8_accuracy")
    models = [*(XClip(DEMO_BUNDLE, "cpu", name) for name in ("fp32", "int8")), accuracy.PortableInt8(DEMO_BUNDLE)]
    logits, right = accuracy.logits_of(models, 1, tmp_path / "logits")
    fp32, int8, portable = np.swapaxes(logits, 0, 1)

    assert fp32.argmax(axis=1).tolist() == right.tolist()
    for found in (int8, portable):
        told = accuracy.summary(fp32, found, right)
        assert told["top1_agreement"]["right"] == 2
        assert 0 < told["abs_logit_error"]["p50"] < 0.2
