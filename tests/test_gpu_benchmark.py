"""The one command for a GPU runs its stages to the end, whichever fails, and keeps their records."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WRITES = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('{}')"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("gpu")


def test_the_stages_together_take_ten_minutes_at_most(gpu):
    assert sum(stage.limit_s for stage in gpu.STAGES) <= 600


def test_a_stage_that_fails_or_hangs_does_not_stop_the_next(gpu, monkeypatch, tmp_path, capsys):
    for name, code in {"fails": "raise SystemExit(3)", "hangs": "import time; time.sleep(60)", "works": WRITES}.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    stages = tuple(
        gpu.Stage(name, limit, f"{name}.py", "", "", f"{name}.json")
        for name, limit in (("fails", 30), ("hangs", 1), ("works", 30))
    )
    options = argparse.Namespace(results=tmp_path / "results", cache=tmp_path, quick=False)

    assert gpu.run_all(options, stages) == ["fails", "hangs"]
    assert [path.name for path in options.results.iterdir()] == ["works.json"]
    assert "limit of 1 s" in capsys.readouterr().out
