"""``tune`` measures for real, prints one document, and `auto` takes what it saved."""

from __future__ import annotations

import os
from pathlib import Path


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
