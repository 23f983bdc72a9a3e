"""A candidate whose peak cannot be measured is measured all the same."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.errors import DeviceError
from xclip_runtime.tuning import worker


@pytest.mark.parametrize("error", [DeviceError("refused"), RuntimeError("out of memory"), MemoryError()])
def test_a_peak_that_fails_is_left_out(monkeypatch, tmp_path, error):
    def fail(_):
        raise error

    monkeypatch.setattr(worker, "peak_gflops", fail)
    monkeypatch.setattr(worker.sys, "stdin", [])
    np.save(tmp_path / "clips.npy", np.zeros((1, 32, 224, 224, 3), np.uint8))
    (facts,) = worker._answers({"bundle": "motion-demo", "device": "cpu"}, str(tmp_path / "clips.npy"))

    assert facts["peak_gflops"] is None
    assert len(facts["logits"]) == 70
