"""Every command keeps its contract: output, JSON, one line for an error, exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import click
import pytest

import xclip_runtime
from helpers.bundles import copy_bundle, edit_manifest, flip_byte
from xclip_runtime.cli import COMMANDS, cli
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

TIMINGS = {"decode", "prepare", "vision", "prompt", "total"}


def error_lines(done):
    return [line for line in done.err.splitlines() if line.startswith("xclip-onnx: ")]


def test_version(run):
    done = run("--version")

    assert (done.code, done.out) == (0, f"xclip-onnx, version {xclip_runtime.__version__}\n")


def every_command():
    """Names of all commands, those inside groups with the group's name before theirs."""
    for name in COMMANDS:
        command = cli.get_command(None, name)
        yield from (f"{name} {inner}" for inner in command.commands) if isinstance(command, click.Group) else [name]


@pytest.mark.parametrize("command", list(every_command()))
def test_every_command_explains_itself(run, command):
    done = run(*command.split(), "--help")

    assert done.code == 0
    assert done.out.startswith(f"Usage: xclip-onnx {command}")
    assert "--json" in done.out or command == "serve"  # a server prints no result


def test_demo_shows_labels_with_bars_stages_and_what_ran(run):
    done = run("demo")

    assert done.code == 0
    assert expected_label() in done.out
    assert "█" in done.out
    assert "CPUExecutionProvider fp32" in done.out
    assert all(stage in done.out for stage in TIMINGS)


def test_demo_json_is_the_contract(run):
    document = run("demo", "--json").json

    assert set(document) == {"video", "labels", "expected", "correct", "provider", "precision", "timings_ms"}
    assert set(document["timings_ms"]) == TIMINGS
    assert document["correct"] is (document["labels"][0]["label"] == document["expected"])
    assert document["correct"]


def test_classify_json_is_one_document_a_video_in_order(run):
    documents = run("classify", DEMO_VIDEO, DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json", "--top-k", 3).json_lines

    assert [d["video"] for d in documents] == [str(DEMO_VIDEO)] * 2
    assert set(documents[0]) == {"video", "labels", "frames", "provider", "precision", "device", "graph", "timings_ms"}
    assert [set(score) for score in documents[0]["labels"]] == [{"label", "prob", "logit"}] * 3
    assert set(documents[0]["frames"]) == {"indices", "decoded", "total", "decoder", "notes"}
    assert set(documents[0]["timings_ms"]) == TIMINGS


def test_classify_prints_a_table_for_people(run):
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE)

    assert done.code == 0
    assert done.err == ""
    assert str(DEMO_VIDEO) in done.out
    assert "█" in done.out


def test_the_bundle_can_come_from_the_environment(run):
    done = run("classify", DEMO_VIDEO, "--json", env={**os.environ, "XCLIP_ONNX_BUNDLE": str(DEMO_BUNDLE)})

    assert done.code == 0


def test_one_bad_input_leaves_the_others_their_answers(run, tmp_path):
    done = run("classify", DEMO_VIDEO, tmp_path / "no.mp4", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json")
    good, bad, last = done.json_lines

    assert done.code == 1
    assert "labels" in good
    assert "labels" in last
    assert bad["video"] == str(tmp_path / "no.mp4")
    assert bad["error"]["type"] == "VideoNotFoundError"
    assert len(error_lines(done)) == 1
    assert "no.mp4" in done.err


def test_nothing_but_bad_inputs_is_exit_code_2(run, tmp_path):
    assert run("classify", tmp_path / "no.mp4", "-b", DEMO_BUNDLE).code == 2


def bad_videos(tmp_path):
    whole = DEMO_VIDEO.read_bytes()
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is a text file\n" * 100,
        "zeros.mp4": bytes(10_000),
        "header-only.mp4": whole[:64],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in files]


def test_files_that_are_no_videos_get_one_line_each(run, tmp_path):
    (tmp_path / "empty-folder").mkdir()
    videos = [*bad_videos(tmp_path), tmp_path / "empty-folder"]

    done = run("classify", *videos, "-b", DEMO_BUNDLE)

    assert done.code == 2
    assert len(error_lines(done)) == len(done.err.splitlines()) == len(videos)
    assert all(video.name in line for video, line in zip(videos, error_lines(done), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'VIDEO...'"),
        (("v.mp4",), "--bundle BUNDLE is missing"),
        (("v.mp4", "-b", DEMO_BUNDLE, "--top-k", "0"), "not in the range"),
        (("v.mp4", "-b", DEMO_BUNDLE, "--device", "gpu"), "unknown device 'gpu': did you mean cuda?"),
        (("v.mp4", "-b", DEMO_BUNDLE, "--precision", "int4"), "not one of"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_reason(run, arguments, message):
    done = run("classify", *arguments)

    assert done.code == 2
    assert message in done.err.replace("\n", " ")


def flipped(bundle):
    flip_byte(bundle / "onnx/vision_model.onnx", 5000)


def of_another_schema(bundle):
    edit_manifest(bundle, schema_version=2)


def without_manifest(bundle):
    (bundle / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [flipped, of_another_schema, without_manifest])
def test_a_bundle_that_cannot_be_used_is_one_line_and_exit_code_2(run, tmp_path, damage):
    bundle = copy_bundle(tmp_path / "bundle")
    damage(bundle)

    done = run("classify", DEMO_VIDEO, "-b", bundle)

    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == len(error_lines(done)) == 1
    assert str(bundle) in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precision", "fp16"), "--precision fp16"),
        (("--device", "cuda"), "pip install 'xclip-onnx[gpu]'"),
    ],
)
def test_what_cannot_run_here_is_one_line_with_the_fix(run, options, message):
    done = run("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, *options)

    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert message in done.err


def test_verify_passes_an_untouched_bundle(run):
    done = run("verify", "-b", DEMO_BUNDLE)

    assert done.code == 0
    assert "are as exported" in done.out


def test_verify_names_every_changed_file(run, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    flip_byte(bundle / "labels.json")
    (bundle / "onnx/text_model.onnx").write_bytes(b"")

    done = run("verify", "-b", bundle, "--json")

    assert done.code == 2
    assert [f["file"] for f in done.json["files"] if not f["ok"]] == ["labels.json", "onnx/text_model.onnx"]
    assert len(error_lines(done)) == 2


def test_info_json_is_the_manifest_and_what_would_be_loaded(run):
    document = run("info", "-b", "motion-demo", "--json").json
    manifest = json.loads((DEMO_BUNDLE / "manifest.json").read_text())

    assert {key: document[key] for key in manifest} == manifest
    assert document["would_load"]["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize(("fast", "says"), [(True, False), (None, False), (False, True)])
def test_info_says_where_int8_is_not_the_fast_path(monkeypatch, fast, says):
    from click.testing import CliRunner

    from xclip_runtime.cli import info

    monkeypatch.setattr(info, "int8_is_fast", lambda: fast)
    done = CliRunner().invoke(info.command, ["-b", str(DEMO_BUNDLE)])

    assert ("int8 is not its fast path" in done.output) == says


def test_info_says_when_a_bundle_cannot_be_loaded_here(run):
    done = run("info", "-b", DEMO_BUNDLE, "--device", "cuda")

    assert done.code == 0
    assert "Cannot be loaded here" in done.out


def test_progress_goes_to_a_terminal_and_leaves_stdout_clean():
    command = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "classify", "--json"]
    terminal, stderr = pty.openpty()
    done = subprocess.run(
        [*command, "-b", DEMO_BUNDLE, *[DEMO_VIDEO] * 3], stdout=subprocess.PIPE, stderr=stderr, check=True, timeout=120
    )
    os.close(stderr)

    assert b"classifying" in os.read(terminal, 65536)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3


def test_export_without_its_extra_names_it(run, tmp_path):
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text("import sys\nsys.modules['torch'] = None\n")

    done = run(
        "export",
        "x",
        "-o",
        tmp_path / "b",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )

    assert done.code == 2
    assert "pip install 'xclip-onnx[cpu,export]'" in done.err
