"""A miniature HMDB-51: rendered motions, several codecs, split files."""

from __future__ import annotations

import pytest

from motion_demo.dataset import CODECS, SPLITS, write_clip
from motion_demo.labels import Label

# The third of these labels is one that motion-demo takes for another.
SHOWN = (Label("red", "left"), Label("blue", "growing"), Label("purple", "still"))
FIRST_SEED = 2**31 - 5000


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """Nine test videos; beside them, for training and for nothing, files that are no videos at all."""
    folder = tmp_path_factory.mktemp("hmdb51")
    (folder / SPLITS).mkdir()
    for place, label in enumerate(SHOWN):
        name = label.text.replace(" ", "_")
        (folder / name).mkdir()
        lines = ["decoy.avi 1 \n", "unused.avi 0 \n"]
        for decoy in ("decoy.avi", "unused.avi"):
            (folder / name / decoy).write_bytes(b"no video")
        for offset, codec in enumerate(CODECS):
            seed = FIRST_SEED + 10 * place + offset
            lines.append(f"{write_clip(folder / name / str(seed), seed, label, codec).name} 2 \n")
        (folder / SPLITS / f"{name}_test_split1.txt").write_text("".join(lines))
    return folder
