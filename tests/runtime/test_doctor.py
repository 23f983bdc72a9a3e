"""The doctor finds what is wrong and says how to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest

from helpers.bundles import copy_bundle, edit_manifest, flip_byte
from xclip_runtime import doctor
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.doctor import diagnose
from xclip_runtime.errors import DeviceError
from xclip_runtime.inference.installation import Gpu


def checks(bundle=DEMO_BUNDLE):
    return {check.name: check for check in diagnose(bundle)}


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other wheels are installed."""
    wheels = {}

    def version(name):
        if name not in wheels:
            raise importlib.metadata.PackageNotFoundError(name)
        return wheels[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return wheels


def test_a_sound_machine_passes_every_check():
    found = checks()

    assert [check for check in found.values() if not check.ok] == []
    assert {"onnxruntime", "device cpu", "cpu", "threads", "opencv", "pyav", "decoding", "encoders"} <= set(found)
    assert {"extras", "hub", "home", "bundle", "self-test"} <= set(found)
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
    ("fast", "words"),
    [(False, "no int8 dot products (VNNI)"), (True, "int8 is fast"), (None, "unknown")],
)
def test_it_says_whether_int8_is_the_fast_path(monkeypatch, fast, words):
    monkeypatch.setattr(doctor, "int8_is_fast", lambda: fast)

    assert words in doctor.check_cpu().detail


def test_a_quota_below_the_visible_cores_is_shown(monkeypatch):
    monkeypatch.setattr(doctor, "available_cpus", lambda: 1)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)

    assert doctor.check_threads().detail.startswith("1 CPUs of 64 visible")


def test_a_plugin_that_finds_no_processor_is_no_fault_of_the_machine(monkeypatch):
    def missing(device):
        message = "device openvino is not here: choose device cpu"
        raise DeviceError(message)

    monkeypatch.setattr(doctor, "register", lambda plugin: None)
    monkeypatch.setattr(doctor, "ep_devices", missing)

    found = doctor.check_device("openvino")

    assert found.ok
    assert found.detail.endswith("only device openvino needs one")


def test_installed_plugins_are_checked_beside_the_built_in_devices(monkeypatch):
    monkeypatch.setattr(doctor, "plugin_devices", lambda: ["openvino"])
    monkeypatch.setattr(doctor, "check_device", doctor.Finding)

    assert "device openvino" in [check.name for check in doctor.diagnose()]


@pytest.fixture
def gpu_wheel(monkeypatch):
    """Pretend that the wheel has CUDA and TensorRT, as onnxruntime-gpu's has."""
    providers = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(doctor, "available_providers", lambda: providers)
    monkeypatch.setattr(doctor, "preload_libraries", lambda: None)
    monkeypatch.setattr(doctor, "cuda_version", lambda: "13.0")


def test_missing_cuda_libraries_are_named_with_the_command_that_brings_them(gpu_wheel, monkeypatch):
    error = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(doctor, "loading_error", lambda provider: error)
    monkeypatch.setattr(doctor, "gpus", lambda: None)

    found = checks()

    assert found["cuda libraries"].detail == "CUDA 13.0 is needed, missing: libcublasLt.so.13"
    assert "[cuda,cudnn]" in found["cuda libraries"].fix
    assert not found["gpu"].ok
    assert "driver" in found["gpu"].fix
    assert not found["device cuda"].ok
    assert found["device cpu"].ok


def test_cuda_that_is_complete_passes(gpu_wheel, monkeypatch):
    monkeypatch.setattr(doctor, "loading_error", lambda provider: None)
    monkeypatch.setattr(doctor, "gpus", lambda: (Gpu("NVIDIA L4", "580.65.06", "23034 MiB"),))

    assert doctor.check_cuda_libraries().detail == "CUDA 13.0, all found"
    assert doctor.check_gpu().detail == "NVIDIA L4 (23034 MiB), driver 580.65.06"


def test_a_cuda_provider_that_is_damaged_gives_the_loaders_error(gpu_wheel, monkeypatch):
    error = "/x/libonnxruntime_providers_cuda.so: file too short"
    monkeypatch.setattr(doctor, "loading_error", lambda provider: error)

    check = doctor.check_cuda_libraries()

    assert (check.ok, check.detail) == (False, f"CUDA 13.0 is needed, {error}")
    assert "reinstall" in check.fix


def test_a_gpu_wheel_without_tensorrt_is_sound(gpu_wheel, monkeypatch):
    error = "libnvinfer.so.10: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(doctor, "loading_error", lambda provider: error)

    assert doctor.check_device("tensorrt").ok


def test_a_wheel_without_cuda_is_not_asked_for_a_gpu():
    assert not {"cuda libraries", "gpu"} & set(checks())


def test_pyav_and_its_ffmpeg_are_shown():
    assert "avcodec" in doctor.check_pyav().detail


def test_the_kinds_of_video_that_were_decoded_are_named():
    assert doctor.check_decoding().detail == "av1, interlaced, mirrored: all right"


def test_a_build_that_decodes_wrong_is_named_with_the_kind_of_video(monkeypatch):
    monkeypatch.setattr("xclip_runtime.video.conversion.upright", lambda image, frame: image)

    check = doctor.check_decoding()
    assert not check.ok
    assert check.detail == "decoded wrong: mirrored (wrong colours)"
    assert check.fix == "pip install --force-reinstall av, whose wheels bring FFmpeg"


def test_a_build_without_a_codec_is_named_with_the_kind_of_video(tmp_path):
    (tmp_path / "av1.mp4").write_bytes(b"no codec for this")

    check = doctor.check_decoding(tmp_path)
    assert not check.ok
    assert check.detail.startswith("decoded wrong: av1 (")


def test_an_opencv_that_writes_no_images_is_named_with_the_kinds(monkeypatch):
    monkeypatch.setattr("cv2.haveImageWriter", lambda name: not name.endswith("jpg"))

    check = doctor.check_encoders()
    assert not check.ok
    assert check.detail == "OpenCV cannot write jpg"
    assert "opencv-python-headless" in check.fix


def test_extras_are_listed_with_what_the_others_lack(monkeypatch):
    lines = [
        "numpy>=1.26",
        "tokenizers>=0.20; extra == 'text'",
        "apsw>=3.46; extra == 'index'",
        "nothing-like-it>=1; extra == 'index'",
        "mlcommons-loadgen>=5; (platform_machine != 'aarch64') and extra == 'bench'",  # for some platforms only
        "xclip-onnx[index]; extra == 'absent'",
        "numpy>=1; extra == 'absent'",  # which something else brought
        "another-one>=1; extra == 'absent'",
        "missing-altogether>=1; extra == 'absent'",
        "onnxruntime>=1.20; extra == 'cpu'",
        "pytest>=8; extra == 'dev'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)

    check = doctor.check_extras()
    assert check.ok
    assert check.detail == ("text; index lacks nothing-like-it; pip install 'xclip-onnx[EXTRA]' for absent")


def test_the_hub_is_looked_at_only_with_its_client(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert "hub" not in checks()


def test_a_cache_of_the_hub_that_cannot_be_written_is_named_with_its_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file/hub"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://name:secret@example.org")
    assert doctor.check_hub().ok
    assert "HF_HOME" in doctor.check_hub().detail
    assert "secret" not in doctor.check_hub().detail

    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    check = doctor.check_hub()
    assert not check.ok
    assert "HF_HOME" in check.fix
    assert str(tmp_path) in check.detail
    assert "hf_secret" not in check.detail


def test_an_endpoint_that_is_no_address_is_a_failed_check(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")

    assert not checks()["hub"].ok


def test_a_home_is_needed_only_where_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("XCLIP_ONNX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert doctor.check_home().ok

    monkeypatch.setenv("XCLIP_ONNX_CACHE", str(tmp_path / "file/cache"))
    check = doctor.check_home()
    assert not check.ok
    assert "XCLIP_ONNX_CACHE" in check.detail

    monkeypatch.setenv("XCLIP_ONNX_CACHE", str(tmp_path / "new/cache"))
    assert doctor.check_home().ok
