"""The generated parts of the documents equal the records in benchmarks/results."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks/results"
RESULTS = sorted(FOLDER.rglob("*.json"))
PEERS = sorted(f"peers/{path.stem}" for path in (FOLDER / "peers").glob("*.json"))
DOCUMENTS = [ROOT / "README.md", ROOT / "docs/benchmarks.md"]
BLOCK = re.compile(r"<!-- figures: ([\w-]+) -->.*?<!-- end of figures -->", re.DOTALL)


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks/figures.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_blocks_of_a_document_equal_the_records(figures, document):
    text = document.read_text("utf-8")

    assert figures.with_figures(text) == text, "run: python benchmarks/figures.py"


def test_every_kind_of_figure_has_its_block(figures):
    blocks = [name for document in figures.DOCUMENTS for name in BLOCK.findall(document.read_text("utf-8"))]

    assert sorted(blocks) == sorted(figures.FIGURES)
    assert list(figures.DOCUMENTS) == DOCUMENTS


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.stem)
def test_another_result_would_be_noticed(figures, result, tmp_path):
    results = shutil.copytree(FOLDER, tmp_path / "results")
    (results / result.relative_to(FOLDER)).write_text(
        json.dumps(altered(json.loads(result.read_text("utf-8")))), "utf-8"
    )
    texts = [document.read_text("utf-8") for document in DOCUMENTS]

    assert [figures.with_figures(text, results) for text in texts] != texts


def altered(value):
    """The same document with other measurements; counts, which are integers, stay."""
    if isinstance(value, dict):
        return {name: altered(item) for name, item in value.items()}
    if isinstance(value, list):
        return [altered(item) for item in value]
    return value * 0.9 if isinstance(value, float) else value


def every(_record):
    return True


def ran(record):
    return "missing" not in record


PEER_PARTS = (("vision", "arms"), ("accuracy", "arms"), ("end_to_end", "arms"))
# A figure, a result, where in it the records are, and which of them have a row or a column in the figure's tables.
RECORDS = [
    ("decode", "decode", ("short_ms",), every),
    ("decode", "decode", ("long_ms",), every),
    ("decode", "decode", ("short_processor_ms",), every),
    ("gpu", "gpu", ("sweep",), every),
    ("gpu-peers", "gpu-peers", ("arms",), every),
    ("labels", "labels", ("rows",), lambda row: row["graph"] == "prompt" and row["at_once"] in (1024, None)),
    ("motion-demo", "int8-accuracy", ("models", "outlier twin", "int8"), every),
    ("openvino", "openvino", ("arms",), every),
    ("outlier-twin", "outlier-twin", ("accuracy", "arms"), every),
    ("parity", "parity", ("models", "motion-demo"), every),
    ("parity", "parity", ("models", "seeded ViT-B/16, 32 frames"), every),
    *(("peers", record, part, ran) for record in PEERS for part in PEER_PARTS),
    ("retrieval", "retrieval", ("retrieval", "prompted"), every),
    ("serve", "serve", ("full-size-int8", "added_percent"), every),
    ("serve", "serve", ("load", "clip"), every),
    ("stream", "stream", ("ms_by_hop",), every),
    ("threads", "threads", ("rows",), every),
]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: " ".join((*case[:2], *case[2])))
def test_a_record_shows_in_one_row_or_column_and_no_other_does(figures, case, tmp_path):
    figure, name, path, has_place = case
    results = shutil.copytree(FOLDER, tmp_path / "results")
    document = json.loads((results / f"{name}.json").read_text("utf-8"))
    before, places = cells(figures.FIGURES[figure](results)), []
    for key, record in items(inside(document, path)):
        other = copy.deepcopy(document)
        inside(other, path)[key] = altered(altered(altered(record)))
        (results / f"{name}.json").write_text(json.dumps(other), "utf-8")
        after = cells(figures.FIGURES[figure](results))
        place = {place for place in before if before[place] != after[place]}
        places.append(place)
        rows, columns = ({at[axis] for at in place} for axis in (0, 1))
        assert bool(place) == bool(has_place(record)), key
        assert not place or min(len(rows), len(columns)) == 1, key
    assert sum(map(len, places)) == len(set().union(*places))


def inside(document, path):
    for name in path:
        document = document[name]
    return document


def items(records):
    return records.items() if isinstance(records, dict) else enumerate(records)


def cells(paragraphs):
    lines = "\n\n".join(paragraphs).splitlines()
    rows = [(number, line.split("|")) for number, line in enumerate(lines) if line.startswith("|")]
    return {(number, column): cell for number, row in rows for column, cell in enumerate(row)}


def test_a_row_of_the_decode_table_holds_what_was_measured_of_its_file(figures, tmp_path):
    result = {
        "short_ms": {"a.mp4": {"ours": 10.0, "decord": 20.0}, "b.mp4": {"ours": 30.0, "decord": float("nan")}},
        "short_processor_ms": {"a.mp4": {"ours": 11.0}, "b.mp4": {"ours": 31.0}},
        "long_ms": {"c.mp4": {"ours": 50.0}},
        "long_processor_ms": {"c.mp4": {"ours": 51.0}},
        "wrong_frames": {"a.mp4": {"ours": 0.0, "decord": 3.0}, "b.mp4": {"ours": 0.0, "decord": float("nan")}},
        "prepare_ms": {"1080p": {"ours": 5.0}},
        "peak_mib": {"4k": {"d.mp4": 60.0}},
        "machine": {"architecture": "x86_64", "cpus": 2, "av": "1"},
    }
    (tmp_path / "decode.json").write_text(json.dumps(result))
    table = next(iter(figures.FIGURES["decode"](tmp_path)))

    rows = ["| a.mp4 | 10 | 20 (3 wrong) | 11 |", "| b.mp4 | 30 |  | 31 |", "| c.mp4 | 50 |  | 51 |"]
    assert table.splitlines()[2:] == rows


def test_the_readme_has_one_table_of_results():
    assert BLOCK.findall(DOCUMENTS[0].read_text("utf-8")) == ["summary"]


def test_no_other_page_has_generated_figures():
    pages = [path for path in sorted((ROOT / "docs").glob("*.md")) if path not in DOCUMENTS]

    assert [path.name for path in pages if BLOCK.search(path.read_text("utf-8"))] == []


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
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers/zen-4.json").write_text(json.dumps(result))
    text = "\n\n".join(figures.FIGURES["peers"](tmp_path))

    assert "| a peer | 2.00 | 1.50 |  | 50% | 100 | 1.0 | 4.0 | 50 | 0.1000 / 0.200 | 100% |" in text
    assert text.count("| another | not installed: openvino |") == 2
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {12, 7}
