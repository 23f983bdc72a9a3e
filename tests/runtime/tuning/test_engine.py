"""A candidate that cannot be loaded, dies or does not answer is an error with its reason."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.tuning import engine
from xclip_runtime.tuning.engine import EngineError, EngineProcess, EngineTimeoutError


@pytest.mark.parametrize(
    ("code", "seconds", "kind", "reason"),
    [
        ("import os; os.abort()", 30, EngineError, "SIGABRT"),
        ("import sys; sys.exit('no such library')", 30, EngineError, "no such library"),
        ("""print('{"error": "no bundle"}')""", 30, EngineError, "no bundle"),
        ("import time; time.sleep(60)", 0.2, EngineTimeoutError, "no answer"),
    ],
)
def test_a_failure_has_its_reason(monkeypatch, code, seconds, kind, reason):
    monkeypatch.setattr(engine, "_START", code)

    with pytest.raises(kind, match=reason):
        EngineProcess({}, "clips.npy", seconds)


def test_a_real_engine_answers_with_logits(tmp_path):
    np.save(tmp_path / "clips.npy", np.zeros((1, 32, 224, 224, 3), np.uint8))
    found = EngineProcess({"bundle": "motion-demo", "device": "cpu"}, str(tmp_path / "clips.npy"), 60)
    try:
        assert len(found.run(0, 60)["logits"]) == 70
    finally:
        found.close()
    assert found.facts["graph"] == "vision_model"
