"""Why a provider does not load: the loader's words, and what to do about them."""

from __future__ import annotations

import shutil
import stat
from types import SimpleNamespace

import pytest

from xclip_runtime.errors import MissingExtraError
from xclip_runtime.session import installed

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A stand-in for the folder of an installed onnxruntime-gpu."""
    capi = tmp_path / "onnxruntime/capi"
    capi.mkdir(parents=True)
    module = SimpleNamespace(__file__=str(tmp_path / "onnxruntime/__init__.py"))
    monkeypatch.setattr(installed, "onnxruntime", lambda: module)
    return capi


def test_a_library_that_does_not_load_gives_the_loaders_own_words(wheel):
    (wheel / "libonnxruntime_providers_shared.so").write_bytes(b"no library")
    (wheel / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")

    assert "libonnxruntime_providers_shared.so" in installed.loading_error(CUDA)


@pytest.mark.parametrize("provider", [CUDA, "CPUExecutionProvider"])
def test_a_provider_without_a_library_of_its_own_has_no_loading_error(wheel, provider):
    assert installed.loading_error(provider) is None


def test_needed_libraries_are_read_from_the_library(tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(b"\x7fELF\0libcublasLt.so.13\0libcuda.so.1\0libm.so.6\0libcudnn.so.9\0libcuda.so.1\0")

    assert installed.needed_libraries(library) == ["libcublasLt.so.13", "libcuda.so.1", "libcudnn.so.9"]


def test_missing_libraries_are_named_all_at_once(wheel):
    (wheel / "libonnxruntime_providers_cuda.so").write_bytes(b"\0libcublas.so.99\0libcudart.so.99\0")

    assert installed.missing_libraries(CUDA) == ["libcublas.so.99", "libcudart.so.99"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "NVIDIA driver"),
        ("libcublasLt.so.13: cannot open shared object file: No such file or directory", "[cuda,cudnn]"),
        ("libcudnn.so.9: cannot open shared object file: No such file or directory", "[cuda,cudnn]"),
        ("libnvinfer.so.10: cannot open shared object file: No such file or directory", "TensorRT"),
        ("/x/libonnxruntime_providers_cuda.so: file too short", "reinstall"),
    ],
)
def test_each_error_has_its_mend(error, words):
    assert words in installed.mend(error, CUDA)
    assert ": " not in installed.mend(error, CUDA), "what follows the last colon of a message is its fix"


def test_what_preload_prints_does_not_reach_the_user(monkeypatch, capsys):
    module = SimpleNamespace(preload_dlls=lambda: print("Failed to load libcublas"))  # noqa: T201
    monkeypatch.setattr(installed, "onnxruntime", lambda: module)
    installed.preload_libraries.cache_clear()
    installed.preload_libraries()
    installed.preload_libraries.cache_clear()

    assert capsys.readouterr().out == ""


def test_what_an_uninstalled_wheel_left_behind_counts_as_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[cpu\]"):
        installed.onnxruntime()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'NVIDIA L4, 580.65.06, 23034 MiB'", (installed.Gpu("NVIDIA L4", "580.65.06", "23034 MiB"),)),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
        ("exit 0", ()),
    ],
)
def test_gpus_are_what_nvidia_smi_tells(monkeypatch, tmp_path, script, found):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(shutil, "which", lambda name: str(command))
    installed.gpus.cache_clear()
    try:
        assert installed.gpus() == found
    finally:
        installed.gpus.cache_clear()
