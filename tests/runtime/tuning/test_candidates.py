"""A tuning measures the engines that are here, and tells of the one that is left out."""

from __future__ import annotations

import pytest

from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import DeviceError
from xclip_runtime.tuning import candidates, run
from xclip_runtime.tuning.run import tune


@pytest.fixture
def no_intel(monkeypatch):
    """OpenVINO's plugin is installed, on a processor that it does not take."""

    def refuse(device):
        message = f"device {device} is not here"
        raise DeviceError(message)

    monkeypatch.setattr(candidates, "available_providers", lambda: ("CPUExecutionProvider",))
    monkeypatch.setattr(candidates, "plugin_devices", lambda: ["openvino", "plugin:webgpu"])
    monkeypatch.setattr(candidates, "ep_devices", refuse)


@pytest.mark.usefixtures("no_intel")
def test_an_engine_without_a_processor_is_left_out_with_one_line(caplog):
    assert candidates.installed_devices() == ("cpu", "plugin:webgpu")
    assert caplog.messages == ["left out: device openvino is not here"]


def test_a_bundle_for_other_devices_is_refused_with_the_devices_that_are_here(monkeypatch, caplog):
    assert candidates.candidates(Bundle.open(DEMO_BUNDLE), (), 2) == ()
    monkeypatch.setattr(run, "candidates", lambda *_: ())
    monkeypatch.setattr(run, "installed_devices", lambda: ("cpu",))

    with pytest.raises(DeviceError, match=r"no vision graph for the devices that are here \(cpu\)"):
        tune("motion-demo")
