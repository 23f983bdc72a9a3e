"""The doctor finds what is wrong and says how to mend it."""

from __future__ import annotations

import pytest
from bundles import copy_bundle, edit_manifest, flip_byte

from xclip_runtime import doctor
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.doctor import diagnose


def checks(bundle=DEMO_BUNDLE):
    return {check.name: check for check in diagnose(bundle)}


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other wheels are installed."""
    wheels = {}

    def version(name):
        if name not in wheels:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return wheels[name]

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    return wheels


def test_a_sound_machine_passes_every_check():
    found = checks()

    assert [check for check in found.values() if not check.ok] == []
    assert {"onnxruntime", "device cpu", "cpu", "threads", "opencv", "decoding", "bundle", "self-test"} <= set(found)
    assert all(check.fix is None for check in found.values())


def test_two_onnxruntime_wheels_are_a_clash_with_the_commands_that_mend_it(installed):
    installed.update({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})

    check = doctor.check_onnxruntime()

    assert not check.ok
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in check.fix


def test_no_onnxruntime_names_the_extras(installed):
    check = doctor.check_onnxruntime()

    assert not check.ok
    assert "xclip-onnx[cpu]" in check.fix


def test_two_opencv_wheels_are_a_clash(installed):
    installed.update({"opencv-python": "4.11", "opencv-python-headless": "5.0"})

    check = doctor.check_opencv()

    assert not check.ok
    assert "pip uninstall -y opencv-python opencv-python-headless" in check.fix


def test_a_changed_bundle_fails_and_names_the_file(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    flip_byte(bundle / "onnx/vision_model.onnx")

    found = checks(bundle)

    assert not found["bundle"].ok
    assert "vision_model.onnx" in found["bundle"].detail
    assert not found["self-test"].ok


def test_a_model_that_computes_something_else_fails_the_self_test(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    golden = [x + 0.1 for x in doctor.Bundle.open(bundle).manifest["golden_logits"]]
    edit_manifest(bundle, golden_logits=golden)

    check = checks(bundle)["self-test"]

    assert not check.ok
    assert check.fix


def test_a_missing_bundle_is_a_failed_check_and_no_exception(tmp_path):
    found = checks(tmp_path / "nothing")

    assert not found["bundle"].ok
    assert found["device cpu"].ok


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"avx2"}, "no VNNI"), ({"avx2", "avx512_vnni"}, "int8 is the fast path"), (set(), "unknown")],
)
def test_it_says_whether_int8_is_the_fast_path(monkeypatch, flags, words):
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: flags)

    assert words in doctor.check_cpu().detail


def test_a_quota_below_the_visible_cores_is_shown(monkeypatch):
    monkeypatch.setattr(doctor, "available_cpus", lambda: 1)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)

    assert doctor.check_threads().detail.startswith("1 CPUs of 64 visible")
