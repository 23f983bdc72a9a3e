"""``xclip-onnx bench`` and ``bench compare``, in runs as short as can be."""

from __future__ import annotations

import json
import re

import cv2
import pytest

from xclip_runtime.bench.page import write_page
from xclip_runtime.bench.plan import SCENARIOS, SWEEPS

BRIEF = ("--duration", "0", "--count", "2", "--samples-per-query", "2", "--cold-starts", "1")


@pytest.fixture(scope="module")
def benched(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benched") / "report"
    return run("bench", *BRIEF, "--json", "--output", folder), folder


def test_the_report_tells_what_ran_where(benched):
    done, _ = benched
    report = done.json

    assert done.code == 0
    assert set(report["scenarios"]) == set(SCENARIOS)
    assert set(report["sweeps"]) == set(SWEEPS)
    assert set(report["stages"]) == {"decode", "prepare", "vision", "prompt", "total"}
    assert set(report["cold_start"]) == {"start", "import", "load", "first", "second", "to_first_answer", "peak_rss_mb"}
    assert report["model"]["provider"] == "CPUExecutionProvider"
    assert {"manifest_sha256", "threads", "precision"} <= set(report["model"])
    assert {"cpu", "cpu_flags", "cgroup_cpu_max", "cpus_usable"} <= set(report["machine"])
    assert {"xclip-onnx", "onnxruntime"} <= set(report["software"]["versions"])
    assert report["settings"]["generator"] == "loadgen"


def test_the_parts_of_a_cold_start_are_the_whole(benched):
    cold = benched[0].json["cold_start"]

    assert sum(cold[name][0] for name in ("start", "import", "load", "first")) == pytest.approx(
        cold["to_first_answer"][0]
    )
    assert all(cold[name][0] > 0 for name in ("start", "import", "load", "first", "second"))


def test_the_page_holds_its_plots(benched):
    done, folder = benched
    page = (folder / "index.html").read_text()

    assert json.loads((folder / "report.json").read_text()) == done.json
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for name in ("latency", "load", "stages", "sweeps"):
        assert f'<img alt="{name}" src="data:image/png;base64,' in page
        assert cv2.imread(str(folder / f"{name}.png")).std() > 10


def test_people_see_a_table_for_each_part(run):
    done = run(
        "bench",
        *BRIEF[:-1],
        "0",
        "--scenario",
        "Offline",
        "--sweep",
        "batch",
        "--generator",
        "plain",
        "--input",
        "file",
    )

    assert done.code == 0
    assert "load by plain" in done.out
    assert "Offline" in done.out
    assert "SingleStream" not in done.out
    assert "file to labels" in done.out
    assert "batch" in done.out


def test_a_missing_bundle_is_one_line_before_anything_is_started(run):
    done = run("bench", "--bundle", "nowhere")

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "xclip-onnx: no bundle at nowhere: give the folder that `xclip-onnx export` wrote, motion-demo, "
        "or owner/name on a model hub\n"
    )


def test_a_report_equals_itself(run, benched):
    _, folder = benched
    done = run("bench", "compare", folder / "report.json", folder / "report.json", "--json")

    assert done.code == 0
    ratios = {metric["metric"]: metric["ratio"] for metric in done.json["metrics"]}
    assert "SingleStream latency, median" in ratios
    assert set(ratios.values()) == {1.0}


def test_what_was_measured_otherwise_is_not_compared(run, benched, tmp_path):
    done, folder = benched
    report = {**done.json, "machine": {**done.json["machine"], "cpu": "another"}}
    (tmp_path / "b.json").write_text(json.dumps(report))

    refused = run("bench", "compare", folder / "report.json", tmp_path / "b.json")
    forced = run("bench", "compare", folder / "report.json", tmp_path / "b.json", "--force")

    assert refused.code == 2
    assert "cannot be compared, they differ in cpu: " in refused.err
    assert forced.code == 0
    assert "differs: cpu: " in forced.out
    assert "B / A" in forced.out


@pytest.mark.parametrize("content", ["", "[]", '{"bench_schema": 0}'])
def test_what_is_no_report_is_refused(run, tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    done = run("bench", "compare", tmp_path / "a.json", tmp_path / "a.json")

    assert done.code == 2
    assert "xclip-onnx bench --json" in done.err


def test_noise_of_others_is_said_wherever_the_figures_are(run, benched, tmp_path):
    noisy, quiet = ({**benched[0].json, "others_cpu": others} for others in (1.5, 0.0))
    for name, report in (("noisy", noisy), ("quiet", quiet)):
        write_page(tmp_path / name, report)
    compared = run("bench", "compare", tmp_path / "quiet/report.json", tmp_path / "noisy/report.json")

    said = "ther processes used 1.5 CPUs meanwhile"
    assert said in (tmp_path / "noisy/index.html").read_text("utf-8")
    assert "processes used" not in (tmp_path / "quiet/index.html").read_text("utf-8")
    assert f"B: o{said}" in compared.out
    assert "A: other processes" not in compared.out
