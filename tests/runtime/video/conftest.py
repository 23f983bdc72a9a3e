"""One folder of encoded clips for the whole session, and how small clips are read as large ones are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    from pathlib import Path

SHARED_THREADS = ThreadPolicy(cpus=3, small={}, small_otherwise=0, max_parts=1)
"""Small clips are decoded with several threads, in one part."""
THREE_PARTS = ThreadPolicy(cpus=3, pixels_of_a_part=1)
"""Small clips are decoded in three parts at once where keyframes allow it."""


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def threads() -> ThreadPolicy:
    return SHARED_THREADS


@pytest.fixture
def parts() -> ThreadPolicy:
    return THREE_PARTS
