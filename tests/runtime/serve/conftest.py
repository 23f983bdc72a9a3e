"""One model and one server for all tests that need nothing special."""

from __future__ import annotations

import pytest

from helpers.servers import running
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE


@pytest.fixture(scope="session")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="session")
def server(model):
    with running(model) as server:
        yield server
