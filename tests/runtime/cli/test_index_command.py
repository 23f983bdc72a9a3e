"""`xclip-onnx index` keeps its contract: output, JSON, one line for an error, exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import pytest

from helpers.bundles import copy_bundle, edit_manifest
from xclip_runtime.cli.index import SUBCOMMANDS
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.search.video_index import SHORTLIST

MODEL = ("--bundle", DEMO_BUNDLE, "--device", "cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with the sample twice, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("ride.mp4", "other.mp4"):
        shutil.copy(DEMO_VIDEO, folder / name)
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def index(run, videos, tmp_path_factory):
    """An index of the two videos, made by the command. Only to be read."""
    folder = tmp_path_factory.mktemp("place") / "index"
    assert run("index", "add", videos / "ride.mp4", videos / "other.mp4", "-i", folder, *MODEL).code == 0
    return folder


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_explains_itself(run, subcommand):
    done = run("index", subcommand, "--help")

    assert done.code == 0
    assert done.out.startswith(f"Usage: xclip-onnx index {subcommand}")
    assert "--json" in done.out


def test_the_help_names_the_default_shortlist(run):
    assert f"[default: ({SHORTLIST});" in " ".join(run("index", "search", "--help").out.split())


def test_adding_names_what_failed_and_skips_what_is_there(run, videos, tmp_path):
    first = run("index", "add", videos, "-i", tmp_path / "index", *MODEL, "--json")
    again = run("index", "add", videos, "-i", tmp_path / "index", *MODEL)

    assert first.code == 1
    broken, *added = first.json_lines
    assert (broken["video"], broken["error"]["type"]) == (str(videos / "broken.mp4"), "VideoDecodeError")
    assert added == [
        {"video": str(videos / name), "outcome": "added", "windows": 1} for name in ("other.mp4", "ride.mp4")
    ]
    assert again.code == 1
    assert again.err.count("xclip-onnx: ") == 1
    assert "2 unchanged" in again.out


def test_a_search_prints_a_table_with_score_time_and_file(run, index, videos):
    done = run("index", "search", expected_label(), "-i", index, *MODEL, cwd=videos)

    assert done.code == 0
    assert "ride.mp4" in done.out
    assert str(videos) not in done.out
    assert "0:00.0 - " in done.out
    assert "all windows scored exactly" in done.out


def test_search_json_is_one_document(run, index, videos):
    document = run("index", "search", expected_label(), "-i", index, *MODEL, "--top-k", 1, "--exact", "--json").json

    assert set(document) == {"query", "hits", "scored", "windows", "timings_ms"}
    assert set(document["timings_ms"]) == {"text", "shortlist", "prompt", "total"}
    (hit,) = document["hits"]
    assert set(hit) == {"video", "start", "end", "logit", "cosine", "encoding"}
    assert hit["encoding"] == {"exact": True, "new_frames": 32, "frames": 32, "drift": None}
    assert hit["video"] in {str(videos / "ride.mp4"), str(videos / "other.mp4")}


def test_a_contact_sheet_is_an_image(run, index, tmp_path):
    file = tmp_path / "sheet.png"
    assert run("index", "search", "a shape", "-i", index, *MODEL, "--contact-sheet", file).code == 0
    assert cv2.imread(str(file)).shape[2] == 3

    for name, reason in (("sheet.txt", "not an image"), ("nowhere/sheet.png", "create its folder")):
        done = run("index", "search", "a shape", "-i", index, *MODEL, "--contact-sheet", tmp_path / name)
        assert done.code == 2
        assert reason in done.err


def test_list_and_info_say_what_is_there(run, index, videos):
    listed = run("index", "list", "-i", index, "--json").json_lines
    info = run("index", "info", "-i", index, "--json").json

    assert [entry["video"] for entry in listed] == [str(videos / "other.mp4"), str(videos / "ride.mp4")]
    assert all(entry["complete"] and entry["exists"] and entry["windows"] == 1 for entry in listed)
    assert (info["videos"], info["windows"], info["incomplete"], info["features"]) == (2, 2, 0, "fp16")
    assert info["reuse"] is False
    assert info["bytes"] == sum(file.stat().st_size for file in index.iterdir())
    assert set(info["model"]) >= {"text", "vision", "prompt", "precision", "profile"}
    assert [(entry["exact_windows"], entry["new_frames"], entry["drift"]) for entry in listed] == [(1, 32.0, None)] * 2
    assert str(videos / "ride.mp4") in run("index", "list", "-i", index).out
    assert "2 windows" in run("index", "info", "-i", index).out


def test_list_and_search_say_which_windows_are_from_cached_frames(run, videos, tmp_path):
    where, window = ("-i", tmp_path / "index"), ("--window", 1, "--hop", "0.25", "--reuse", "--refresh", 4)
    assert run("index", "add", videos / "ride.mp4", *where, *MODEL, *window).code == 0
    (entry,) = run("index", "list", *where, "--json").json_lines
    text = run("index", "list", *where).out
    hits = run("index", "search", "a shape", *where, *MODEL, "--json").json["hits"]
    found = run("index", "search", "a shape", *where, *MODEL).out

    assert 0 < entry["exact_windows"] < entry["windows"]
    assert 8 < entry["new_frames"] < 32
    assert 0 < entry["drift"] < 1
    assert f"{entry['windows'] - entry['exact_windows']} cached, {entry['new_frames']:.1f} new frames a window" in text
    assert {hit["encoding"]["frames"] for hit in hits} == {32}
    assert found.count("cached, 8 of 32 new, drift") == sum(not hit["encoding"]["exact"] for hit in hits) > 0


def test_delete_takes_files_folders_and_what_is_missing(run, videos, tmp_path):
    folder, index = tmp_path / "videos", tmp_path / "index"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "sub/c.mp4", "sub/d.mp4"):
        shutil.copy(DEMO_VIDEO, folder / name)
    run("index", "add", folder, "-i", index, *MODEL)
    (folder / "b.mp4").unlink()

    missing = run("index", "delete", "--missing", "-i", index, "--json")
    both = run("index", "delete", "sub", "nothing.mp4", "-i", index, "--json", cwd=folder)
    none = run("index", "delete", "nothing.mp4", "-i", index)

    assert (missing.code, missing.json["deleted"]) == (0, [str(folder / "b.mp4")])
    assert both.code == 1
    assert both.json == {
        "deleted": [str(folder / "sub/c.mp4"), str(folder / "sub/d.mp4")],
        "unknown": ["nothing.mp4"],
    }
    assert "nothing.mp4 is not in the index" in both.err
    assert none.code == 2
    assert [entry["video"] for entry in run("index", "list", "-i", index, "--json").json_lines] == [
        str(folder / "a.mp4")
    ]
    assert (folder / "a.mp4").exists()


def test_eval_measures_captions_and_names_videos_that_cannot_be_read(run, videos, tmp_path):
    captions = tmp_path / "captions.csv"
    captions.write_text(f"video,caption\nride.mp4,{expected_label()}\nride.mp4,a shape\ngone.mp4,a dog\n")

    done = run("index", "eval", captions, "--videos", videos, *MODEL, "--json")
    table = run("index", "eval", captions, "--videos", videos, *MODEL, "--index", tmp_path / "kept")

    assert (done.code, table.code) == (1, 1)
    assert "gone.mp4" in done.err
    document = done.json
    assert (document["texts"], document["videos"], document["precision"]) == (2, 1, "fp32")
    assert document["text_to_video"] == {"r1": 1.0, "r5": 1.0, "r10": 1.0, "median_rank": 1.0, "n": 2}
    assert document["video_to_text"]["n"] == document["cosine"]["video_to_text"]["n"] == 1
    assert document["errors"][0]["video"] == str(videos / "gone.mp4")
    assert "median rank" in table.out
    assert len(run("index", "list", "-i", tmp_path / "kept", "--json").json_lines) == 1


def test_eval_of_an_index_in_windows_leaves_its_windows(run, videos, tmp_path):
    captions = tmp_path / "captions.csv"
    captions.write_text("video,caption\nride.mp4,a shape\n")
    run("index", "add", videos / "ride.mp4", "--window", 1, "-i", tmp_path / "index", *MODEL)
    before = run("index", "list", "-i", tmp_path / "index", "--json").out

    assert run("index", "eval", captions, "--videos", videos, *MODEL, "-i", tmp_path / "index").code == 0
    assert run("index", "list", "-i", tmp_path / "index", "--json").out == before
    assert json.loads(before)["windows"] > 1


def test_ctrl_c_says_how_to_go_on_and_what_was_added_is_there(run, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(20):
        shutil.copy(DEMO_VIDEO, folder / f"{number:02}.mp4")
    command = ["index", "add", str(folder), "-i", str(tmp_path / "index"), *map(str, MODEL), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from xclip_runtime.cli import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    reported = [json.loads(process.stdout.readline())["video"] for _ in range(2)]
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate()
    reported += [json.loads(line)["video"] for line in out.splitlines()]

    held = [entry["video"] for entry in run("index", "list", "-i", tmp_path / "index", "--json").json_lines]
    assert set(reported) <= set(held)
    if process.returncode == 130:
        assert "the same command continues from here" in err
    done = run(*command)
    assert done.code == 0
    assert [line["outcome"] for line in done.json_lines] == ["unchanged"] * len(held) + ["added"] * (20 - len(held))


@pytest.mark.parametrize(
    "arguments",
    [
        ("index", "search", "x", "-i", "nowhere", *MODEL),
        ("index", "list", "-i", "nowhere"),
        ("index", "info", "-i", "nowhere"),
        ("index", "delete", "a.mp4", "-i", "nowhere"),
        ("index", "eval", "nowhere.csv", *MODEL),
        ("index", "add", "a.mp4", "-i", "index", "--hop", "1", *MODEL),
        ("index", "delete", "-i", "index"),
        ("index", "nothing"),
    ],
    ids=lambda arguments: "-".join(map(str, arguments[:3])),
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(run, tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)

    assert done.code == 2
    assert done.out == ""
    assert done.err.strip().splitlines()[-1]
    assert not (tmp_path / "nowhere").exists()


def test_a_search_with_another_model_is_refused(run, index, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    edit_manifest(bundle, text_tower_sha256="0" * 64)

    done = run("index", "search", "x", "-i", index, "--bundle", bundle)

    assert done.code == 2
    assert "made with another model" in done.err
    assert len(done.err.splitlines()) == 1


def test_an_empty_text_is_refused(run, index):
    done = run("index", "search", " ", "-i", index, *MODEL)

    assert (done.code, done.out) == (2, "")
    assert "the text is ' ': describe in a few words" in done.err
