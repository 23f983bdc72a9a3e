"""xclip-onnx stream, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from helpers.cameras import serving, transport_camera, transport_stream
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

COMMAND = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "stream", "-b", str(DEMO_BUNDLE)]


def stream_bytes(data, *arguments):
    done = subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, check=False, timeout=120)
    assert b"Traceback" not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_a_file_gives_one_document_a_window(run):
    done = run("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.5", "--json")

    assert (done.code, done.err) == (0, "")
    documents = done.json_lines
    assert [(d["start"], d["end"]) for d in documents] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (2, 3)]
    for d in documents:
        assert set(d) == {
            *("start", "end", "labels", "latency_ms", "dropped_windows", "dropped_frames", "gap"),
            *("provider", "precision", "device", "graph", "encoding"),
        }
        assert set(d["labels"][0]) == {"label", "prob", "logit"}
        assert (d["dropped_windows"], d["dropped_frames"], d["gap"]) == (0, 0, None)
        assert d["latency_ms"] > 0


def test_windows_from_cached_frames_say_so(run):
    arguments = ("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.25", "--reuse", "--refresh", 3)
    documents = run(*arguments, "--json").json_lines
    text = run(*arguments).out.splitlines()

    assert [d["encoding"]["exact"] for d in documents[:4]] == [True, False, False, True]
    assert documents[1]["encoding"] == {"exact": False, "new_frames": 8, "frames": 32, "drift": None}
    assert documents[3]["encoding"]["drift"] > 0
    assert " · exact" in text[0]
    assert "cached, 8 of 32 new, drift not measured yet" in text[1]


@pytest.mark.parametrize("options", [(), ("--reuse",)], ids=" ".join)
def test_several_sources_give_each_its_windows_with_its_name(run, tmp_path, options):
    again, missing = tmp_path / "again.mp4", tmp_path / "missing.mp4"
    again.symlink_to(DEMO_VIDEO)
    arguments = ("-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.5", *options)
    alone = run("stream", DEMO_VIDEO, *arguments, "--json").json_lines
    done = run("stream", DEMO_VIDEO, again, missing, *arguments, "--json")
    text = run("stream", DEMO_VIDEO, again, *arguments).out.splitlines()

    assert done.code == 1
    assert str(missing) in done.err
    for source in (DEMO_VIDEO, again):
        own = [d for d in done.json_lines if d["source"] == str(source)]
        assert [(d["start"], d["end"]) for d in own] == [(d["start"], d["end"]) for d in alone]
        for one, other in zip(own, alone, strict=True):
            assert one["labels"][0]["label"] == other["labels"][0]["label"]
            assert one["labels"][0]["logit"] == pytest.approx(other["labels"][0]["logit"], abs=1e-3)
    assert [sum(line.startswith(f"{source}  ") for line in text) for source in (DEMO_VIDEO, again)] == [len(alone)] * 2


def test_events_of_several_sources_are_those_of_each(run, tmp_path):
    again = tmp_path / "again.mp4"
    again.symlink_to(DEMO_VIDEO)
    arguments = ("-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.5", "--events", "--threshold", "0.05", "--json")
    alone = run("stream", DEMO_VIDEO, *arguments).json_lines
    done = run("stream", DEMO_VIDEO, again, *arguments)

    assert done.code == 0
    assert alone
    for source in (DEMO_VIDEO, again):
        own = [d for d in done.json_lines if d["source"] == str(source)]
        assert [(d["label"], d["start"], d["end"]) for d in own] == [(d["label"], d["start"], d["end"]) for d in alone]


def test_a_refresh_without_cached_frames_is_refused(run):
    done = run("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--refresh", 3)

    assert done.code == 2
    assert "--reuse" in done.err


def test_exact_and_cached_windows_are_compared_on_videos_of_ones_own(run, tmp_path):
    arguments = ("eval-stream", "-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.25", "--max-windows", 4)
    done = run(*arguments, DEMO_VIDEO, tmp_path / "missing.mp4", "--json")
    text = run(*arguments, DEMO_VIDEO).out

    one, all_of_them = done.json_lines
    assert done.code == 1
    assert (one["windows"], one["agreement"]["n"], one["new_frames"]) == (4, 4, 14)
    assert {k: v for k, v in all_of_them.items() if k != "video"} == {k: v for k, v in one.items() if k != "video"}
    assert one["abs_logit"]["p50"] <= one["abs_logit"]["p99"] <= one["abs_logit"]["max"] < one["logit_std"]
    assert one["labelled"] is None
    assert min(one["exact_ms"], one["cached_ms"]) > 0
    assert "same best label" in text
    assert "times as fast" in text


def test_with_labels_of_ones_own_accuracy_and_detection_are_compared(run, tmp_path):
    labels = ("a red shape moving left,0,1", "a_blue shape GROWING,1,")
    rows = ["path,label,start,end", *(f"{DEMO_VIDEO},{label}" for label in labels)]
    (tmp_path / "segments.csv").write_text("\n".join(rows))
    (tmp_path / "other.mp4").write_bytes(b"")
    arguments = ("eval-stream", "-b", DEMO_BUNDLE, "--window", 1, "--hop", "0.25", "--max-windows", 6)
    segments = ("--segments", tmp_path / "segments.csv")
    done = run(*arguments, *segments, DEMO_VIDEO, tmp_path / "other.mp4", "--json")
    text = run(*arguments, *segments, DEMO_VIDEO)

    labelled = done.json_lines[0]["labelled"]
    assert done.code == 1
    assert "has no label of" in done.err
    assert (labelled["accuracy_exact"]["n"], labelled["accuracy_cached"]["n"]) == (6, 6)
    assert (labelled["detection_s_exact"]["changes"], 0 <= labelled["mcnemar_p"] <= 1) == (1, True)
    assert "of 6 windows with a label" in text.out
    assert "cached windows detect" in text.out


def test_segments_are_not_for_eval(run, tmp_path):
    (tmp_path / "segments.csv").write_text(f"path,label,start,end\n{DEMO_VIDEO},a red shape moving left,0,1\n")
    done = run("eval", tmp_path / "segments.csv", "-b", DEMO_BUNDLE)

    assert done.code != 0
    assert "eval-stream --segments" in done.err


def test_people_get_a_line_a_window(run):
    done = run("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--window", 3)

    assert done.code == 0
    assert "0.0 - 3.0 s" in done.out
    assert "ms late" in done.out


def test_events_begin_and_end(run):
    arguments = ("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--window", 1, "--events", "--threshold", "0.01")
    done = run(*arguments, "--min-duration", "1.5", "--smooth", 1, "--json")

    events = done.json_lines
    assert all(set(e) == {"label", "start", "end", "prob"} for e in events)
    begun = [e["label"] for e in events if e["end"] is None]
    ended = [e["label"] for e in events if e["end"] is not None]
    assert sorted(begun) == sorted(ended)
    assert begun
    assert all(e["end"] - e["start"] >= 1.5 for e in events if e["end"] is not None)
    assert run(*arguments, "--min-duration", 100).out == ""
    assert run(*arguments).out.count("…") > 0


def test_encoded_standard_input_is_a_source():
    code, documents, errors = stream_bytes(b"".join(transport_stream(50)), "-", "--window", "1", "--hop", "1", "--json")

    assert (code, errors) == (0, "")
    assert [(d["start"], d["end"]) for d in documents] == [(0, 1), (1, 2)]


def test_raw_standard_input_is_a_source_and_a_frame_that_is_cut_short_is_left_out():
    frames = bytes(64 * 48 * 3) * 20 + b"half a frame"

    code, documents, _ = stream_bytes(frames, "-", "--raw", "64x48@10", "--window", "1", "--hop", "1", "--json")

    assert code == 0
    assert [(d["start"], d["end"]) for d in documents] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("data", [b"", b"no video\n" * 1000], ids=["nothing", "text"])
def test_standard_input_that_is_no_video_is_one_line(data):
    code, documents, errors = stream_bytes(data, "-", "--json")

    assert (code, documents) == (2, [])
    assert len(errors.splitlines()) == 1
    assert "standard input cannot be opened as a video" in errors


def test_a_camera_that_is_gone_for_good_is_exit_code_1_after_its_windows():
    with serving(transport_camera([60])) as camera:
        code, documents, errors = stream_bytes(
            b"", camera.address, "--window", "1", "--reconnect-timeout", "0.2", "--json"
        )

    assert code == 1
    assert documents[0]["end"] == 1
    assert "has sent nothing" in errors.splitlines()[-1]


def test_ctrl_c_ends_a_stream_with_its_open_event():
    with serving(transport_camera([3000], interval=0.02)) as camera:
        arguments = [camera.address, "--window", "1", "--events", "--threshold", "0.001", "--json"]
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun = json.loads(process.stdout.readline())

        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) == (0, "")
    assert begun["end"] is None
    assert begun["label"] in [e["label"] for e in map(json.loads, rest.splitlines()) if e["end"] is not None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--window", "0"), "window"),
        (("--hop", "0.01"), "hop"),
        (("--smooth", "-1"), "smoothing"),
        (("--events", "--threshold", "0"), "threshold"),
        (("--events", "--min-duration", "-1"), "minimum duration"),
        (("--threshold", "0.4"), "give --events too"),
        (("--min-duration", "1"), "give --events too"),
        (("--raw", "640x480"), "WIDTHxHEIGHT@FPS"),
        (("--reconnect-timeout", "-1"), "not in the range"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, options, message):
    done = run("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, *options)

    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("source", ["no.mp4", "http://127.0.0.1:9/", "37"])
def test_a_source_that_is_not_there_is_one_line_and_exit_code_2(run, source):
    done = run("stream", source, "-b", DEMO_BUNDLE)

    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert source in done.err
