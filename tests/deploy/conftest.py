"""One model for the tests of what operators are handed."""

from __future__ import annotations

import pytest

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE


@pytest.fixture(scope="session")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")
