"""A tuning counts for the machine, versions and bundle that it was measured with, and for no other."""

from __future__ import annotations

import pytest

from xclip_runtime import XClip
from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.inference import auto, tuning_file
from xclip_runtime.inference.tuning_file import Setting, read_tuning, save_tuning

FP32 = Setting("cpu", "fp32", 1, 0.2, 0.0)
INT8 = Setting("cpu", "int8", 1, 0.1, 0.5)


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    monkeypatch.setenv("XCLIP_ONNX_CACHE", str(tmp_path))
    return Bundle.open(DEMO_BUNDLE)


def save(bundle):
    return save_tuning(bundle, "2026-11-28T00:00:00+00:00", [FP32, INT8])


def test_a_saved_tuning_is_read_again(bundle):
    save(bundle)

    assert read_tuning(bundle).settings == (FP32, INT8)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("cpu_name", "another"),
        ("instruction_sets", ("amx_int8",)),
        ("available_cpus", 77),
        ("memory_limit", 12345),
        ("onnxruntime_version", "0.1"),
        ("installed_versions", {"onnxruntime": "0.1"}),
    ],
)
def test_it_does_not_count_after_a_change(bundle, monkeypatch, function, value):
    save(bundle)
    monkeypatch.setattr(tuning_file, function, lambda *_: value)

    assert read_tuning(bundle) is None


def test_it_does_not_count_for_another_bundle(bundle):
    save(bundle)
    vars(bundle)["digest"] = "0" * 64

    assert read_tuning(bundle) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"tuning_schema": 1, "key": {}}', b"[" * 100_000])
def test_a_damaged_file_is_ignored_with_one_line(bundle, caplog, content):
    save(bundle).write_bytes(content)

    assert read_tuning(bundle) is None
    assert len(caplog.records) == 1
    assert "\n" not in caplog.text.strip()


def test_auto_takes_the_fastest_within_the_error(bundle):
    save(bundle)

    assert XClip(DEMO_BUNDLE).precision == "fp32"
    assert XClip(DEMO_BUNDLE).info["threads"] == 1
    tuned = XClip(DEMO_BUNDLE, max_logit_error=1)
    assert (tuned.precision, tuned.graph.name) == ("int8", "vision_model_int8")
    assert tuned.info["chosen"].startswith("tuned on 2026-11-28")


def test_a_named_device_or_precision_is_not_changed(bundle):
    save(bundle)

    assert XClip(DEMO_BUNDLE, "cpu", max_logit_error=1).precision == "fp32"
    assert XClip(DEMO_BUNDLE, precision="fp32", max_logit_error=1).precision == "fp32"


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_an_impossible_error_is_refused(value):
    with pytest.raises(ValueError, match="max_logit_error"):
        XClip(DEMO_BUNDLE, max_logit_error=value)


def test_without_a_tuning_the_cpus_features_choose_within_the_error(bundle, monkeypatch):
    monkeypatch.setattr(auto, "instruction_sets", lambda: ("avx512_vnni", "amx_bf16"))

    assert [pick.precision for pick in auto.picks(bundle, 0.05, None)] == []
    assert [pick.precision for pick in auto.picks(bundle, 2.0, None)] == ["int8"]

    both = "CPUExecutionProvider", "OpenVINOExecutionProvider"
    monkeypatch.setattr(auto, "available_providers", lambda: both)
    assert [pick.device for pick in auto.picks(bundle, 2.0, None)] == ["cpu", "openvino"]
