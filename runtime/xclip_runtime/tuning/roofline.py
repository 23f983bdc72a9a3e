"""Roofline of a vision tower: its products for a clip, and the rate at which an engine multiplies large matrices."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.bundle.manifest import read_json
from xclip_runtime.inference.session import Session
from xclip_runtime.tuning.matmul_graph import matmul_graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xclip_runtime.bundle import Bundle
    from xclip_runtime.inference.providers import SessionOptions

ROWS, INNER, COLUMNS = 1024, 768, 3072
"""A product of ViT-B/16's MLP, for 5 frames."""
RUNS = 5
_CONFIG = "config.json"
_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "mit_hidden_size": 512,
    "mit_intermediate_size": 2048,
    "mit_num_hidden_layers": 1,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "num_frames": 8,
    "projection_dim": 512,
}
"""Values of transformers, which leaves them out of a file."""


def clip_gflop(bundle: Bundle) -> float | None:
    """Count the products of the vision tower for a clip, in GFLOP (10**9, two for a product and its sum).

    Linear layers, attention and patch embedding of every layer, on every token; None if the configuration is unknown.
    """
    try:
        vision = read_json(bundle.checked(_CONFIG))["vision_config"]
        return 2e-9 * _products({**_DEFAULTS, **vision})
    except (KeyError, TypeError, ValueError):
        return None


def peak_gflops(options: SessionOptions) -> float:
    """Measure the rate of one large product, in GFLOP/s: by the same engine, in the same arithmetic and threads."""
    with tempfile.TemporaryDirectory(prefix="xclip-onnx-") as folder:
        path = Path(folder) / "matmul.onnx"
        kind = _kind(options)
        path.write_bytes(matmul_graph(kind, ROWS, INNER, COLUMNS))
        # No int8 graph of a bundle is checked here: precision selects a hint only.
        session = Session(path, replace(options, providers=()))
        values = np.random.default_rng(0).integers(0, 255, (ROWS, INNER), np.uint8)
        feeds = {"a": values if kind == "integer" else (values / np.float32(255))}
        session.run(feeds)
        return 2e-9 * ROWS * INNER * COLUMNS / min(_seconds(session, feeds) for _ in range(RUNS))


def _kind(options: SessionOptions) -> str:
    if options.precision != "int8":
        return "float"
    return "integer" if options.device == "cpu" else "quantised"


def _seconds(session: Session, feeds: Mapping[str, np.ndarray]) -> float:
    begun = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - begun


def _products(vision: Mapping[str, int]) -> int:
    frames, width, hidden = vision["num_frames"], vision["hidden_size"], vision["intermediate_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    tokens, output = patches + 1, vision["projection_dim"]
    embedding = frames * patches * width * vision["num_channels"] * vision["patch_size"] ** 2
    # Each frame sends a message to the others, and reads theirs in an additional token.
    messages = frames * width * width + _attention(frames, width)
    mlp = 2 * frames * tokens * width * hidden
    layer = messages + frames * _attention(tokens + 1, width) + mlp
    projections = frames * tokens * width * output
    wide = vision["mit_hidden_size"]
    integration = _attention(frames, wide) + 2 * frames * wide * vision["mit_intermediate_size"]
    layers = vision["num_hidden_layers"] * layer + vision["mit_num_hidden_layers"] * integration
    return embedding + layers + projections


def _attention(tokens: int, width: int) -> int:
    """Count the products of one self-attention: four projections, scores and values."""
    return 4 * tokens * width * width + 2 * tokens * tokens * width
