"""``tune`` measures for real, prints one document, and `auto` takes what it saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xclip_runtime.cli import tune
from xclip_runtime.tuning.measurement import Rounds
from xclip_runtime.tuning.report import Row
from xclip_runtime.tuning.run import TuningReport


def test_tune_measures_saves_and_prints_json(run, tmp_path):
    environment = {**os.environ, "XCLIP_ONNX_CACHE": str(tmp_path)}
    document = run("tune", "motion-demo", "--json", "--budget", 20, "--max-logit-error", 9, env=environment).json

    names = {(row["device"], row["precision"]) for row in document["candidates"]}
    assert {("cpu", "fp32"), ("cpu", "int8")} <= names
    assert all(row["top1_agreement"] is not None for row in document["candidates"] if row["problem"] is None)
    assert Path(document["saved"]).parent == tmp_path / "tuning"

    loaded = run("info", "motion-demo", "--json", "--max-logit-error", 9, env=environment).json["would_load"]
    assert loaded["chosen"].startswith("tuned on ")
    assert loaded["precision"] == document["chosen"]["precision"]


@pytest.mark.parametrize(("bound", "named"), [(0.05, True), (0.1, False)])
def test_a_faster_setting_is_named_with_the_bound_that_it_needs(capsys, bound, named):
    numbers = dict.fromkeys(("seconds", "clips_per_second", "memory_mb", "load_seconds", "top1_agreement"), 1.0)
    row = Row("openvino", "bf16", 2, "vision_model", "p", 1, p50_abs_logit=0.01, max_abs_logit=0.0661, **numbers)
    machine = {"processor": "a processor", "cpus": 2}
    rounds = Rounds((), 2, 2, 9.0)
    tune._print(TuningReport("b", (row,), "fp32", None, rounds, "2026-11-28", machine, bound, None, None, None))

    assert ("Fastest of all: openvino bf16, with --max-logit-error 0.07." in capsys.readouterr().out) == named
