"""`pack` makes a small bundle, and `info` says what a bundle lacks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from xclip_runtime.cli.info import command as info
from xclip_runtime.cli.pack import command as pack


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Folder of an int8 bundle, and the JSON of the command that packed it."""
    folder = tmp_path_factory.mktemp("packed") / "small"
    words = ["motion-demo", "-o", folder, "--device", "cpu", "--precision", "int8", "--no-text", "--no-stream"]
    done = CliRunner().invoke(pack, [*map(str, words), "--json"], catch_exceptions=False)
    return folder, json.loads(done.output)


def test_pack_prints_what_it_wrote(packed, tmp_path):
    folder, document = packed

    assert document["bundle"] == str(folder)
    assert document["graphs"] == ["prompt_model", "vision_model_int8"]
    assert document["bytes"] == sum(document["files"].values()) < document["source_bytes"]
    text = CliRunner().invoke(pack, [str(folder), "-o", str(tmp_path / "again")], catch_exceptions=False).output
    assert text.startswith(f"{tmp_path / 'again'}: prompt_model, vision_model_int8; 6 files, 4.3 MB of 4.3 MB")


def test_an_error_is_one_line_with_the_fix(run, packed, tmp_path):
    exists = run("pack", "motion-demo", "-o", packed[0])
    missing = run("pack", packed[0], "-o", tmp_path / "b", "--precision", "fp32")

    assert (exists.code, missing.code) == (2, 2)
    assert exists.err.count("\n") == missing.err.count("\n") == 1
    assert "--overwrite" in exists.err
    assert "--precision fp32" in missing.err


def test_info_says_which_graph_each_device_runs_and_how_to_get_the_others(packed):
    document = json.loads(CliRunner().invoke(info, ["--bundle", str(packed[0]), "--json"]).output)
    table = CliRunner().invoke(info, ["--bundle", str(packed[0])]).output

    found = {(each["device"], each["precision"]): each for each in document["supported"]}
    assert found["cpu", "int8"] == {
        "device": "cpu",
        "precision": "int8",
        "graph": "onnx/vision_model_int8.onnx",
        "fix": None,
    }
    assert found["cuda", "fp16"]["graph"] is None
    assert found["cuda", "fp16"]["fix"] == "xclip-onnx export CHECKPOINT -o FOLDER --for cuda --precision fp16"
    assert document["would_load"]["precision"] == "int8"
    assert "missing: xclip-onnx export" in table


def test_info_has_one_row_for_all_that_a_device_lacks(packed):
    table = CliRunner().invoke(info, ["--bundle", str(packed[0])], env={"COLUMNS": "160"}).output
    rows = [line for line in table.splitlines() if "missing:" in line]

    assert [row.split()[0] for row in rows] == ["cpu", "cuda", "tensorrt", "openvino"]
    assert any(row.rstrip().endswith("--for cuda --precision fp32 fp16") for row in rows)
    assert any(row.rstrip().endswith("--for openvino --precision fp32 int8") for row in rows)
