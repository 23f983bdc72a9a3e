"""classify over folders, patterns and lists; files of results that survive interruption."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import av
import pytest

from xclip_runtime.cli.inputs import expand
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

COMMAND = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "classify", "-b", str(DEMO_BUNDLE)]


@pytest.fixture
def clips(tmp_path):
    """Videos in folders, beside what is none."""
    folder = tmp_path / "clips"
    for name in ("b.mp4", "a.MP4", "deep/er/c.mp4", ".hidden/d.mp4", "._b.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(DEMO_VIDEO)
    (folder / "notes.txt").write_text("no video")
    return folder


def names(folder, *relative):
    return [str(folder / name) for name in relative]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_gives_its_videos_sorted_and_those_of_its_folders(clips):
    assert list(expand([str(clips)])) == names(clips, "a.MP4", "b.mp4", "deep/er/c.mp4")


def test_a_pattern_gives_its_matches_and_may_cross_folders(clips):
    assert list(expand([f"{clips}/*.mp4"])) == names(clips, "b.mp4")
    assert list(expand([f"{clips}/**/c.mp4"])) == names(clips, "deep/er/c.mp4")
    assert list(expand([f"{clips}/d*"])) == names(clips, "deep/er/c.mp4")


def test_names_are_kept_as_given_and_in_the_order_given():
    assert list(expand(["z.mp4", "./a.xyz", "z.mp4"])) == ["z.mp4", "./a.xyz", "z.mp4"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "take[1].mp4").write_bytes(b"x")
    (tmp_path / "take1.mp4").write_bytes(b"x")

    assert list(expand([str(tmp_path / "take[1].mp4")])) == names(tmp_path, "take[1].mp4")


@pytest.mark.parametrize("name", ["nothing*.mp4", "nothing.mp4"])
def test_what_matches_nothing_is_an_error_of_its_own(run, tmp_path, name):
    done = run("classify", "-b", DEMO_BUNDLE, tmp_path / name, DEMO_VIDEO, "--json")

    assert done.code == 1
    assert done.json_lines[0]["error"]["type"] == "VideoNotFoundError"
    assert name in done.err


def test_an_empty_folder_is_an_error_that_names_it(run, tmp_path):
    done = run("classify", "-b", DEMO_BUNDLE, tmp_path)

    assert done.code == 2
    assert str(tmp_path) in done.err


@pytest.mark.parametrize("separator", ["\n", "\0", "\n\n"])
def test_a_list_of_files_comes_from_standard_input(run, clips, separator):
    videos = names(clips, "b.mp4", "a.MP4")

    done = run("classify", "-", "-b", DEMO_BUNDLE, "--json", input=separator.join(videos) + separator)

    assert done.code == 0
    assert [d["video"] for d in done.json_lines] == videos


def test_a_name_that_is_no_utf8_is_read_and_kept(run, tmp_path):
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    video.symlink_to(DEMO_VIDEO)

    done = run("classify", DEMO_VIDEO, tmp_path, "-b", DEMO_BUNDLE, "--json", "--output", tmp_path / "r.jsonl")

    assert done.code == 0
    assert lines_of(tmp_path / "r.jsonl")[1]["video"] == str(video)


def test_views_and_a_range_are_read(run):
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json", "--views", "2x3", "--start", 1, "--end", 2)

    frames = done.json["frames"]
    assert len(frames["indices"]) == 64
    assert (min(frames["indices"]), max(frames["indices"]), frames["total"]) == (25, 49, 25)


def test_the_decoder_can_be_named(run):
    named = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json", "--decoder", "pyav").json["frames"]

    assert named == run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json").json["frames"]
    assert named["decoder"] == "pyav"


def test_a_track_and_square_pixels_can_be_asked_for(run):
    options = ("--track", "0", "--square-pixels")
    assert run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json", *options).json["frames"]["total"] == 75
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--track", "1")
    assert "has 1 video tracks, and none of number 1" in done.err


def test_what_was_out_of_the_ordinary_is_in_the_result_and_shown(run, tmp_path):
    path = tmp_path / "cut.mkv"
    with av.open(str(DEMO_VIDEO)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    (note,) = run("classify", path, "-b", DEMO_BUNDLE, "--json").json["frames"]["notes"]

    assert note.startswith("the container promises 3.0 s and holds ")
    assert note in run("classify", path, "-b", DEMO_BUNDLE).out


def test_a_video_over_the_time_limit_is_its_own_error(run):
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json", "--time-limit", "1e-9")

    assert done.json["error"]["type"] == "VideoTimeoutError"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--views", "3"), "POSITIONSxCROPS"),
        (("--views", "1x2"), "1 or 3 crops"),
        (("--start", "2", "--end", "1"), "start < end"),
        (("--start", "-1"), "start < end"),
        (("--start", "nan"), "start < end"),
        (("--time-limit", "0"), "not in the range"),
        (("--time-limit", "nan"), "'nan' is not a number"),
        (("--time-limit", "inf"), "'inf' is not a finite number"),
        (("--output", "nowhere/results.jsonl"), "no folder nowhere: create it"),
        (("--output", "/"), "is a directory"),
        (("--decoder", "ffmpeg"), "unknown decoder 'ffmpeg': use one of auto, pyav"),
        (("--decoder", "opencv"), "OpenCV no longer reads videos: use auto or pyav"),
        (("--track", "-1"), "not in the range"),
        (("--workers", "0"), "not in the range"),
        (("--resume",), "--resume needs --output"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, options, message):
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, *options)

    assert done.code == 2
    assert message in done.err


def test_out_holds_what_json_prints(run, tmp_path):
    out = tmp_path / "r.jsonl"

    done = run("classify", DEMO_VIDEO, tmp_path / "no.mp4", "-b", DEMO_BUNDLE, "--json", "--output", out)

    assert done.code == 1
    assert lines_of(out) == done.json_lines
    assert run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--output", tmp_path / "quiet.jsonl").out == ""


def test_results_are_not_overwritten(run, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"video": "x.mp4"}\n')

    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--output", tmp_path / "r.jsonl")

    assert done.code == 2
    assert "--resume" in done.err
    assert (tmp_path / "r.jsonl").read_text() == '{"video": "x.mp4"}\n'


@pytest.mark.parametrize("cut", [0, 1, 40, -1], ids=["nothing", "one byte", "half a line", "all but the line break"])
def test_resume_goes_on_wherever_the_file_ends(run, clips, tmp_path, cut):
    videos = [*names(clips, "a.MP4", "b.mp4"), str(tmp_path / "no.mp4"), *names(clips, "a.MP4")]
    whole = tmp_path / "whole.jsonl"
    run("classify", *videos, "-b", DEMO_BUNDLE, "--output", whole)
    first, second, *_ = whole.read_bytes().splitlines(keepends=True)
    cut_off = tmp_path / "cut.jsonl"
    cut_off.write_bytes(first + second[:cut])

    done = run("classify", *videos, "-b", DEMO_BUNDLE, "--output", cut_off, "--resume")

    assert done.code == 1
    assert cut_off.read_bytes().startswith(first)
    assert [d["video"] for d in lines_of(cut_off)] == videos
    assert ["error" in d for d in lines_of(cut_off)] == [False, False, True, False]


def test_resume_of_a_finished_run_changes_nothing_and_keeps_its_exit_code(run, tmp_path):
    out = tmp_path / "r.jsonl"
    arguments = ("classify", DEMO_VIDEO, tmp_path / "no.mp4", "-b", DEMO_BUNDLE, "--output", out, "--resume")
    first = run(*arguments)
    content = out.read_bytes()

    again = run(*arguments)

    assert (first.code, again.code) == (1, 1)
    assert out.read_bytes() == content


def test_resume_with_other_settings_is_refused(run, tmp_path):
    out = tmp_path / "r.jsonl"
    run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--output", out)
    content = out.read_bytes()

    again = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--output", out, "--resume", "--views", "2x1", "--top-k", 3)

    assert again.code == 2
    assert "other settings (top_k, views)" in " ".join(again.err.split())
    assert out.read_bytes() == content


@pytest.mark.parametrize("line", ["not json", "[1]", '{"path": 1}', '{"video": []}'])
def test_a_file_of_something_else_is_left_alone(run, tmp_path, line):
    out = tmp_path / "mine.txt"
    out.write_text(f'{{"video": "x.mp4"}}\n{line}\n')

    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--output", out, "--resume")

    assert done.code == 2
    assert "line 2" in done.err
    assert out.read_text().endswith(f"{line}\n")


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_killed_run_is_resumed_without_repeating_or_losing_a_line(tmp_path, run):
    videos, out = [str(DEMO_VIDEO)] * 40, tmp_path / "r.jsonl"
    process = subprocess.Popen([*COMMAND, *videos, "--output", out])
    wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 3)
    process.kill()
    process.wait()
    kept = out.read_bytes()
    assert kept.count(b"\n") < 40

    done = run("classify", *videos, "-b", DEMO_BUNDLE, "--output", out, "--resume")

    assert done.code == 0
    assert out.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert len(lines_of(out)) == 40


def test_ctrl_c_waits_for_no_video_and_leaves_what_is_done_printed():
    # A thread that never ends stands in for one that is deep in a long video.
    program = (
        "from threading import Event; from xclip_runtime.video import load; read = load.read_views\n"
        "load.read_views = lambda path, **options: Event().wait() if 'slow' in path else read(path, **options)\n"
        "from xclip_runtime.cli import main; main()"
    )
    command = [sys.executable, "-c", program, *COMMAND[3:], "--json", DEMO_VIDEO, "slow.mp4", DEMO_VIDEO]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    time.sleep(0.5)  # a result is counted just after it is printed

    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)

    assert "labels" in json.loads(first)
    assert rest == ""
    assert process.returncode == 130
    assert errors == "xclip-onnx: interrupted, 1 of 3 done\n"


def test_progress_shows_the_rate_and_the_time_left():
    terminal, stderr = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120"}
    subprocess.run([*COMMAND, *[DEMO_VIDEO] * 5], stdout=subprocess.DEVNULL, stderr=stderr, check=True, env=environment)
    os.close(stderr)
    shown = os.read(terminal, 1 << 20).decode()

    assert "/s" in shown
    assert "ETA" in shown
