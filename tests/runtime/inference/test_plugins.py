"""Execution providers as plugins: with a fake package and ONNX Runtime, and OpenVINO's own where it is installed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import helpers
from xclip_runtime.errors import DeviceError, MissingExtraError
from xclip_runtime.inference import installation, plugins
from xclip_runtime.inference.plugins import OPENVINO_PROVIDER

WEBGPU = next(plugin for plugin in plugins.PLUGINS if plugin.name == "webgpu")


class FakeRuntime:
    """ONNX Runtime that finds the devices of a library once it is registered."""

    __version__ = "1.32.0"

    def __init__(self, *kinds, provider=OPENVINO_PROVIDER):
        self.registered = []
        self._found = [
            SimpleNamespace(
                ep_name=provider,
                device=SimpleNamespace(type=SimpleNamespace(name=kind)),
                ep_metadata={"OPTIMIZATION_CAPABILITIES": "FP32 BF16"},
            )
            for kind in kinds
        ]

    def get_available_providers(self):
        return ["CPUExecutionProvider"]

    def get_ep_devices(self):
        return self._found if self.registered else []

    def register_execution_provider_library(self, name, path):
        self.registered.append((name, path))


@pytest.fixture
def install(monkeypatch):
    """Install every plugin beside a fake ONNX Runtime."""

    def install(runtime, library=lambda: "library.so"):
        monkeypatch.setattr(installation, "onnxruntime", lambda: runtime)
        monkeypatch.setattr(plugins, "_registered", set())
        monkeypatch.setattr(plugins.importlib.util, "find_spec", lambda name: name)
        package = SimpleNamespace(get_library_path=library)
        monkeypatch.setattr(plugins.importlib, "import_module", lambda name: package)
        return runtime

    return install


def test_a_plugin_is_registered_once_in_a_process_whichever_threads_ask(install):
    runtime = install(FakeRuntime("CPU"))
    threads = [threading.Thread(target=plugins.ep_devices, args=["openvino"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert runtime.registered == [(OPENVINO_PROVIDER, "library.so")]


@pytest.mark.parametrize("kind", ["CPU", "GPU", "NPU"])
def test_openvinos_processors_are_its_devices(install, kind):
    install(FakeRuntime("NPU", "CPU", "GPU"))

    (device,) = plugins.ep_devices("openvino" if kind == "CPU" else f"openvino:{kind.lower()}")

    assert device.device.type.name == kind


def test_another_plugin_runs_on_its_first_device(install):
    install(FakeRuntime("GPU", "GPU", provider=WEBGPU.provider))

    assert len(plugins.ep_devices("plugin:webgpu")) == 1


@pytest.mark.parametrize(
    ("kinds", "device", "words"),
    [
        (["CPU"], "openvino:gpu", "finds CPU: choose device cpu"),
        ([], "openvino", "Intel's processors only, finds nothing: choose device cpu"),
        ([], "plugin:webgpu", "onnxruntime-ep-webgpu finds nothing: choose device cpu"),
    ],
)
def test_a_processor_that_a_plugin_does_not_find_is_one_clear_line(install, kinds, device, words):
    install(FakeRuntime(*kinds))

    with pytest.raises(DeviceError, match=words) as caught:
        plugins.ep_devices(device)

    assert "\n" not in str(caught.value)


def test_an_onnx_runtime_without_plugins_is_refused_with_the_version_that_has_them(install):
    install(SimpleNamespace(__version__="1.20.0"))

    with pytest.raises(DeviceError, match=r"needs onnxruntime 1\.23 or newer, this is 1\.20\.0"):
        plugins.ep_devices("openvino")


def test_a_library_that_does_not_load_is_one_line_with_the_reason(install):
    def broken():
        message = "libfoo.so: cannot open\nmore"
        raise FileNotFoundError(message)

    install(FakeRuntime("CPU"), broken)

    with pytest.raises(
        DeviceError, match=r"^onnxruntime-ep-openvino cannot be registered \(libfoo\.so: cannot open\): "
    ):
        plugins.ep_devices("openvino")


def test_a_missing_package_is_named_by_its_extra_or_its_own_name(monkeypatch):
    monkeypatch.setattr(plugins.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[openvino\]"):
        plugins.ep_devices("openvino:npu")
    with pytest.raises(DeviceError, match="pip install onnxruntime-ep-webgpu"):
        plugins.ep_devices("plugin:webgpu")


def test_installed_plugins_are_among_the_providers_and_devices(install):
    install(FakeRuntime())

    assert plugins.available_providers() == ("CPUExecutionProvider", *(plugin.provider for plugin in plugins.PLUGINS))
    assert plugins.plugin_devices()[:2] == ["openvino", "plugin:nv-tensorrt-rtx"]


REAL = """
import numpy as np
from xclip_runtime import XClip
from helpers.intel import pretend_intel
pretend_intel()
cpu, openvino = XClip("motion-demo", "cpu"), XClip("motion-demo", "openvino")
clips = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 224, 224, 3), dtype=np.uint8)
assert openvino.provider == "OpenVINOExecutionProvider"
# Every clip anew: a plugin copies an input when it is bound.
for clip in clips:
    assert abs(cpu.logits_batch(clip) - openvino.logits_batch(clip)).max() < 1e-3
"""


@pytest.mark.skipif(not plugins.OPENVINO.installed, reason="onnxruntime-ep-openvino is not installed")
def test_openvino_computes_the_same_logits_for_clip_after_clip(tmp_path, monkeypatch):
    monkeypatch.setenv("XCLIP_ONNX_CACHE", str(tmp_path))
    tests = str(Path(helpers.__file__).parents[1])
    code = f"import sys; sys.path.append({tests!r}){REAL}"

    # In a process of its own, since registration is for good.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
