"""``xclip-onnx export-triton``, run as a user runs it."""

from __future__ import annotations

from xclip_runtime.demo import DEMO_BUNDLE


def test_it_writes_a_repository_and_says_what_is_in_it(run, tmp_path):
    done = run("export-triton", "-b", DEMO_BUNDLE, "-o", tmp_path / "models", "--precision", "int8", "--json")

    assert done.code == 0
    assert done.json["vision_graph"] == "onnx/vision_model_int8.onnx"
    for name, size in done.json["files"].items():
        assert (tmp_path / "models" / name).stat().st_size == size


def test_a_folder_that_is_no_bundle_ends_in_one_line(run, tmp_path):
    done = run("export-triton", "-b", tmp_path, "-o", tmp_path / "models")

    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "models").exists()
