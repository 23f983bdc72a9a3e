"""The products of a clip are counted for every configuration that transformers writes."""

from __future__ import annotations

import json

import pytest

from xclip_runtime.tuning.roofline import clip_gflop


class Files:
    """Bundle with a configuration only."""

    def __init__(self, path):
        self.path = path

    def checked(self, name):
        return self.path / name


@pytest.mark.parametrize("shape", [{}, {"patch_size": 16, "num_frames": 32}, {"hidden_size": 1024}])
def test_values_that_a_configuration_leaves_out_are_those_of_transformers(tmp_path, shape):
    config = pytest.importorskip("transformers").XCLIPVisionConfig(**shape)
    gflop = []
    for vision in (config.to_dict(), config.to_diff_dict(), shape):
        (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision}))
        gflop.append(clip_gflop(Files(tmp_path)))

    assert gflop[0] is not None
    assert gflop == [gflop[0]] * 3
