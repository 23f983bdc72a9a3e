"""One folder of encoded clips for the whole session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from xclip_runtime.video import frame_reader, opencv, threads

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small clips of the tests are decoded with several threads, as large ones are."""
    monkeypatch.setattr(threads, "_worth_sharing", lambda *_: True)
    monkeypatch.setattr(opencv, "_BYTES_OF_A_LIKELY", 0)


@pytest.fixture
def list_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small clips of the tests are listed packet by packet, as large ones are."""
    monkeypatch.setattr(frame_reader, "_PIXELS_OF_A_LISTING", -math.inf)


@pytest.fixture
def two_parts(list_all: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are also decoded in two parts at once, for there are two CPUs."""
    monkeypatch.setattr(frame_reader, "_PIXELS_OF_A_PART", 1)
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
