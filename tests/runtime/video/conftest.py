"""One folder of encoded clips for the whole session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xclip_runtime.video import threads

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small clips of the tests are decoded with several threads, as large ones are."""
    monkeypatch.setattr(threads, "_worth_sharing", lambda *_: True)
