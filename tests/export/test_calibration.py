"""Calibration clips are the same everywhere, and observing a tower records ranges and changes nothing."""

from __future__ import annotations

import numpy as np

from xclip_export.calibration import calibration_clips, observe
from xclip_export.seeded import seeded_config, seeded_model
from xclip_export.towers import VisionTower

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = {"num_frames": 8, "patch_size": 16, "image_size": 64, "vision_layers": 3, "text_layers": 1}


def test_the_same_seed_gives_the_same_clips():
    one, again = (np.stack(calibration_clips(8, 64, seed=3)) for _ in range(2))

    assert (one.shape, one.dtype) == ((6, 8, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(one, again)


def test_observation_leaves_no_hook_behind():
    tower = VisionTower(seeded_model(seeded_config(**SHAPE)), MEAN, STD).eval()
    ranges = observe(tower, calibration_clips(8, 64)[:1])
    assert "layers.0.message.attention" not in ranges
    assert {"layers.1.query", "layers.1.key", "layers.1.value", "layers.1.message.key"} <= set(ranges)
    assert {"layers.0.attention", "layers.2.message.out", "layers.2.fc2"} <= set(ranges)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in tower.modules())
