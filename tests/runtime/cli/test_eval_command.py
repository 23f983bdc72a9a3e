"""``xclip-onnx eval`` on a miniature HMDB-51."""

from __future__ import annotations

import csv
import json

import cv2
import pytest

from motion_demo.dataset import SPLITS, write_clip
from motion_demo.labels import Label
from xclip_runtime.demo import DEMO_BUNDLE

CONTRACT = {"top1", "top5", "n", "per_class", "precision", "profile", "errors"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes, two test videos each; one of the four is broken."""
    folder = tmp_path_factory.mktemp("data")
    (folder / SPLITS).mkdir()
    for label in (Label("red", "left"), Label("purple", "still")):
        name = label.text.replace(" ", "_")
        (folder / name).mkdir()
        videos = [write_clip(folder / name / str(k), 2**31 + k, label) for k in range(2)]
        (folder / SPLITS / f"{name}_test_split1.txt").write_text("".join(f"{video.name} 2 \n" for video in videos))
    videos[1].write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def evaluated(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    done = run("eval", data, "--bundle", DEMO_BUNDLE, "--compare-precision", "fp32", "int8", "--output", out, "--json")
    return done, out


def test_the_document_is_the_contract(evaluated):
    done, _ = evaluated
    report = done.json

    assert done.code == 1  # One video is broken; it is named and not counted.
    assert set(report) > CONTRACT
    assert (report["n"], report["precision"], report["profile"]) == (3, "fp32", "videox")
    assert [error["error"]["type"] for error in report["errors"]] == ["VideoDecodeError"]
    assert len([line for line in done.err.splitlines() if line.startswith("xclip-onnx: ")]) == 1
    assert report["per_class"]["a red shape moving left"]["n"] == 2
    assert report["comparison"]["precisions"] == ["fp32", "int8"]
    assert report["comparison"]["n"] == report["compared"]["n"] == 3
    assert report["settings"]["format"] == "hmdb51"


def test_everything_is_written(evaluated):
    done, out = evaluated

    assert json.loads((out / "report.json").read_text()) == done.json
    assert len((out / "outcomes.jsonl").read_text().splitlines()) == 4
    rows = list(csv.reader((out / "confusion.csv").read_text().splitlines()))
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 3
    assert min(cv2.imread(str(out / "confusion.png")).shape[:2]) > 300
    failures = list(csv.DictReader((out / "failures.csv").read_text().splitlines()))
    assert [row["video"] for row in failures if row["error"]] == [done.json["errors"][0]["video"]]
    assert len(failures) == len(done.json["mistakes"]) + 1


def test_an_interrupted_run_goes_on_and_gives_the_same_report(run, data, evaluated, tmp_path):
    done, out = evaluated
    (tmp_path / "settings.json").write_text((out / "settings.json").read_text())
    lines = (out / "outcomes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "outcomes.jsonl").write_text("".join(lines[:2]) + lines[2][:20])

    options = ("--bundle", DEMO_BUNDLE, "--compare-precision", "fp32", "int8", "--output", tmp_path, "--json")
    again = run("eval", data, *options, "--resume")
    other = run("eval", data, "--bundle", DEMO_BUNDLE, "--views", "1x3", "--output", tmp_path, "--resume")

    assert {**again.json, "date": ""} == {**done.json, "date": ""}
    assert other.code == 2
    assert "written with other settings (precisions, views)" in other.err


def test_people_see_shares_with_intervals_and_the_weakest_classes(run, data):
    done = run("eval", data, "--bundle", DEMO_BUNDLE, "--limit", "2")

    assert done.code == 0
    assert "2 videos, 2 classes, fp32 CPUExecutionProvider" in done.out
    assert "fp32 top-1" in done.out
    assert "95 % interval" in done.out
    assert "weakest classes" in done.out


def test_several_splits_are_reported_each_and_as_their_mean(run, data, tmp_path):
    label = Label("red", "left").text
    name = label.replace(" ", "_")
    (tmp_path / name).symlink_to(data / name)
    (tmp_path / SPLITS).mkdir()
    first, second = sorted(video.name for video in (data / name).iterdir())
    for split, videos in ((1, [first]), (2, [first, second])):
        lines = "".join(f"{video} 2 \n" for video in videos)
        (tmp_path / SPLITS / f"{name}_test_split{split}.txt").write_text(lines)

    report = run("eval", tmp_path, "--bundle", DEMO_BUNDLE, "--split", "2,1", "--json").json
    single = run("eval", tmp_path, "--bundle", DEMO_BUNDLE, "--splits", tmp_path / SPLITS, "--json").json
    table = run("eval", tmp_path, "--bundle", DEMO_BUNDLE, "--split", "1", "--split", "2").out

    assert (report["n"], report["settings"]["split"], single["n"]) == (2, [1, 2], 1)
    assert {name: split["n"] for name, split in report["splits"].items() if name.isdecimal()} == {"1": 1, "2": 2}
    assert report["splits"]["1"]["top1"] == single["top1"]
    assert report["splits"]["mean_top1"] == (report["splits"]["1"]["top1"] + report["splits"]["2"]["top1"]) / 2
    assert "splits" not in single
    assert "mean of the splits: top-1" in table


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--swap-check"], "the bundle has no label kick, kick ball, sword, sword exercise"),
        (["--split", "2"], "test_split2.txt"),
        (["--split", "all"], "test_split2.txt"),
        (["--split", "1,4"], "give 1, 2 or 3, a list such as 1,2, or all"),
        (["--split", "first"], "give 1, 2 or 3, a list such as 1,2, or all"),
        (["--resume"], "--resume needs --output"),
        (["--compare-precision", "fp32", "fp32"], "needs two different precisions"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, data, args, says):
    done = run("eval", data, "--bundle", DEMO_BUNDLE, *args)

    assert done.code == 2
    assert says in done.err
