"""Every figure in the README comes from the results that are committed with it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks/figures.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_the_readme_says_what_the_results_say(figures):
    assert figures.with_figures(README) == README, "run: python benchmarks/figures.py"


def test_every_kind_of_figure_has_its_block(figures):
    assert re.findall(r"<!-- figures: ([\w-]+) -->", README) == list(figures.FIGURES)


def test_another_result_would_be_noticed(figures, tmp_path):
    results = shutil.copytree(ROOT / "benchmarks/results", tmp_path / "results")
    report = json.loads((results / "motion-demo-held-out.json").read_text("utf-8"))
    (results / "motion-demo-held-out.json").write_text(json.dumps({**report, "top1": report["top1"] - 0.001}), "utf-8")

    assert figures.with_figures(README, results) != README


PEER = {
    "what": "a peer",
    "precision": "fp32",
    "seconds_median": 2.0,
    "ratio_to": {"ours-fp32": 1.5},
    "load_s": 1.0,
    "start_to_first_answer_s": 4.0,
    "peak_mb": 100.0,
    "installed_mb": 50.0,
    "of_gemm_rate": 0.5,
}


def test_the_peers_table_shows_who_could_not_run(figures, tmp_path):
    failed = {"what": "another", "precision": "int8", "missing": "not installed: openvino"}
    vision = {"rounds": 3, "rounds_counted": 3, "quiet": True, "clip_gflop": 10.0, "gemm_gflops": {"fp32": 100.0}}
    result = {
        "date": "2026-01-01",
        "machine": {"cpu": "a CPU", "cores": 2, "versions": {"torch": "2"}},
        "options": {"threads": 2},
        "vision": {**vision, "arms": {"plain": PEER, "openvino-int8": failed}},
        "accuracy": {"arms": {"plain": {"p50": 0.1, "max": 0.2, "top1_agreement": 1.0}}},
        "end_to_end": {"arms": {"e2e-transformers": PEER, "e2e-ours-int8": failed}},
    }
    (tmp_path / "peers.json").write_text(json.dumps(result))
    text = figures.peer_tables(tmp_path)

    assert "| a peer | 2.00 | 1.50 |  | 50% | 100 | 1.0 | 4.0 | 50 | 0.1000 / 0.200 | 100% |" in text
    assert text.count("| another | not installed: openvino |") == 2
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {12, 7}
