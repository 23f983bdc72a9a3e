"""X-CLIP through Optimum's own command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

OPTIMUM_CLI = Path(sys.executable).with_name("optimum-cli")


@pytest.mark.parametrize(
    ("variant", "outputs"),
    [
        ("monolith", ["logits_per_video", "logits_per_text", "text_embeds", "video_embeds"]),
        ("prompt", ["logits_per_video"]),
    ],
)
def test_optimum_cli_exports_and_validates_a_checkpoint(demo_checkpoint, tmp_path, variant, outputs):
    command = [OPTIMUM_CLI, "export", "onnx", "--task", "feature-extraction", "--variant", variant]

    done = subprocess.run(
        [*command, "--model", demo_checkpoint, tmp_path], capture_output=True, text=True, check=False, timeout=280
    )

    assert done.returncode == 0, done.stderr
    assert "not within" not in done.stderr
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [output.name for output in graph.output] == outputs
