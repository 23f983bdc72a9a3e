"""Why a provider does not load: the loader's words, and what to do about them."""

from __future__ import annotations

import shutil
import stat
import struct
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


def elf(*needed):
    """The parts of a shared library that name what it needs: a string table and a dynamic section."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    starts = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in needed]
    dynamic = b"".join(struct.pack("<QQ", 1, start) for start in starts) + struct.pack("<QQ", 0, 0)
    header = bytearray(b"\x7fELF\x02\x01".ljust(64, b"\0"))
    struct.pack_into("<Q", header, 0x28, 64 + len(strings) + len(dynamic))
    struct.pack_into("<HH", header, 0x3A, 64, 2)

    def section(kind, start, size, link):
        return struct.pack("<4xI16xQQI", kind, start, size, link).ljust(64, b"\0")

    table = section(3, 64, len(strings), 0) + section(6, 64 + len(strings), len(dynamic), 0)
    return bytes(header) + strings + dynamic + table


def test_needed_libraries_are_read_from_the_library(tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(elf("libcublasLt.so.13", "libcuda.so.1", "libm.so.6", "libnvinfer.so.10"))

    assert installation.needed_libraries(library) == ["libcublasLt.so.13", "libcuda.so.1", "libnvinfer.so.10"]


def test_missing_libraries_are_named_all_at_once(wheel):
    (wheel / "libonnxruntime_providers_cuda.so").write_bytes(elf("libcublas.so.99", "libcudart.so.99"))

    assert installation.missing_libraries(CUDA) == ["libcublas.so.99", "libcudart.so.99"]


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_file_that_is_no_library_needs_nothing(tmp_path, content):
    (tmp_path / "lib.so").write_bytes(content)

    assert installation.needed_libraries(tmp_path / "lib.so") == []


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
    assert words in installation.mend(error, CUDA)
    assert ": " not in installation.mend(error, CUDA), "what follows the last colon of a message is its fix"


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
