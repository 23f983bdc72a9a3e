"""Fixtures that several test packages share, and what pytest prints first."""

from __future__ import annotations

import importlib.metadata
import signal
import sys

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "torch", "transformers", "optimum-onnx", "onnx")


def pytest_report_header() -> list[str]:
    """Versions and execution providers, so that a log says what it ran on."""
    import onnxruntime

    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return [
        f"python {sys.version.split()[0]}, " + ", ".join(versions),
        f"execution providers: {', '.join(onnxruntime.get_available_providers())}",
    ]


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start: a background job hands down that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
