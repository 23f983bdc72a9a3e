"""Reasons that a provider does not load: the loader's words, and what to do about them."""

from __future__ import annotations

import shutil
import stat
import subprocess
from types import SimpleNamespace

import pytest

from xclip_runtime.errors import MissingExtraError
from xclip_runtime.inference import installation

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A stand-in for the folder of an installed onnxruntime-gpu."""
    capi = tmp_path / "onnxruntime/capi"
    capi.mkdir(parents=True)
    module = SimpleNamespace(__file__=str(tmp_path / "onnxruntime/__init__.py"))
    monkeypatch.setattr(installation, "onnxruntime", lambda: module)
    return capi


def test_a_library_that_does_not_load_gives_the_loaders_own_words(wheel):
    (wheel / "libonnxruntime_providers_shared.so").write_bytes(b"no library")
    (wheel / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")

    assert "libonnxruntime_providers_shared.so" in installation.loading_error(CUDA)


@pytest.mark.parametrize("provider", [CUDA, "CPUExecutionProvider"])
def test_a_provider_without_a_library_of_its_own_has_no_loading_error(wheel, provider):
    assert installation.loading_error(provider) is None


def test_the_loader_names_the_first_missing_library_of_a_real_one(wheel):
    """Linked by the C compiler against a library that is then removed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    (wheel / "empty.c").write_text("")
    for name in ("libcublas.so.99", "libonnxruntime_providers_shared.so"):
        link = [compiler, "-shared", f"-Wl,-soname,{name}", "-o", name, "empty.c"]
        subprocess.run(link, cwd=wheel, check=True)
    needs = [compiler, "-shared", "-Wl,--no-as-needed", "-L.", "-l:libcublas.so.99"]
    subprocess.run([*needs, "-o", "libonnxruntime_providers_cuda.so", "empty.c"], cwd=wheel, check=True)
    (wheel / "libcublas.so.99").unlink()

    error = installation.loading_error(CUDA)

    assert installation.missing_library(error) == "libcublas.so.99"
    assert "[cuda,cudnn]" in installation.suggest_fix(error, CUDA)


@pytest.mark.parametrize("error", [None, "/x/libonnxruntime_providers_cuda.so: file too short"])
def test_no_error_and_other_errors_name_no_missing_library(error):
    assert installation.missing_library(error) is None


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
def test_each_error_has_its_fix(error, words):
    assert words in installation.suggest_fix(error, CUDA)
    assert ": " not in installation.suggest_fix(error, CUDA), "what follows the last colon of a message is its fix"


def test_what_preload_prints_does_not_reach_the_user(monkeypatch, capsys):
    module = SimpleNamespace(preload_dlls=lambda: print("Failed to load libcublas"))  # noqa: T201
    monkeypatch.setattr(installation, "onnxruntime", lambda: module)
    installation.preload_libraries.cache_clear()
    installation.preload_libraries()
    installation.preload_libraries.cache_clear()

    assert capsys.readouterr().out == ""


def test_what_an_uninstalled_wheel_left_behind_counts_as_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[cpu\]"):
        installation.onnxruntime()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'NVIDIA L4, 580.65.06, 23034 MiB'", (installation.Gpu("NVIDIA L4", "580.65.06", "23034 MiB"),)),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
        ("exit 0", ()),
    ],
)
def test_gpus_are_what_nvidia_smi_tells(monkeypatch, tmp_path, script, found):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(shutil, "which", lambda name: str(command))
    installation.gpus.cache_clear()
    try:
        assert installation.gpus() == found
    finally:
        installation.gpus.cache_clear()
