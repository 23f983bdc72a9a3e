"""Checkpoints that the export tests share; each is written or loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.checkpoints import write_seeded_checkpoint
from xclip_export.checkpoint import load_checkpoint

MOTION_DEMO = Path(__file__).parents[2] / "export/motion_demo/checkpoint"
SMALL = {"num_frames": 8, "patch_size": 32, "vision_layers": 2, "text_layers": 1}


@pytest.fixture(scope="session")
def demo_checkpoint():
    """The trained checkpoint in the tree: every part of X-CLIP, small enough to export in seconds."""
    return MOTION_DEMO


@pytest.fixture(scope="session")
def demo(demo_checkpoint):
    """The same, loaded."""
    return load_checkpoint(str(demo_checkpoint))


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    """A ViT-B/32 with two layers, eight frames and CLIP's own tokenizer, on disk."""
    return write_seeded_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small", **SMALL)


@pytest.fixture(scope="session")
def small(small_checkpoint):
    """The same, loaded."""
    return load_checkpoint(str(small_checkpoint))
