"""Fixtures that several test packages share, and what pytest prints first."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
import time

import pytest

from helpers.hub_server import running_hub

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "torch", "transformers", "optimum-onnx", "onnx")


def pytest_report_header() -> list[str]:
    """Versions and execution providers, so that a log says what it ran on."""
    import onnxruntime

    held = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    versions = [f"{name} {held[name]}" for name in PACKAGES if name in held]  # some run without PyTorch
    return [
        f"python {sys.version.split()[0]}, " + ", ".join(versions),
        f"execution providers: {', '.join(onnxruntime.get_available_providers())}",
    ]


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start: a background job hands down that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A model hub on this machine, with an empty cache of downloads and no token."""
    import huggingface_hub.constants

    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    settings = {
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": 10_000,
    }
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
