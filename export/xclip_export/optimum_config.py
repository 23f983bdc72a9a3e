"""Trace the towers of X-CLIP with Optimum's ONNX exporter; the only module that imports Optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from optimum.utils import DummyInputGenerator, NormalizedTextAndVisionConfig

from xclip_export.towers import PromptTower, TextTower, VisionTower

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from transformers import XCLIPConfig, XCLIPModel

    from xclip_runtime.bundle import Tower

OPSET = 18

_VIDEO, _LABELS, _LENGTH = "batch_size", "num_labels", "sequence_length"

_INPUTS: dict[str, dict[str, dict[int, str]]] = {
    "vision": {"pixel_values": {0: _VIDEO}},
    "prompt": {"video_embeds": {0: _VIDEO}, "img_features": {0: _VIDEO}, "text_embeds": {0: _LABELS}},
    "text": {"input_ids": {0: _LABELS, 1: _LENGTH}},
}
_OUTPUTS: dict[str, dict[str, dict[int, str]]] = {
    "vision": {"video_embeds": {0: _VIDEO}, "img_features": {0: _VIDEO}},
    "prompt": {"logits_per_video": {0: _VIDEO, 1: _LABELS}},
    "text": {"text_embeds": {0: _LABELS}},
}


class XCLIPNormalizedConfig(NormalizedTextAndVisionConfig):  # type: ignore[misc]
    """Names of the fields of an X-CLIP configuration, for Optimum."""

    TEXT_CONFIG = "text_config"
    VISION_CONFIG = "vision_config"


class XCLIPDummyInputGenerator(DummyInputGenerator):  # type: ignore[misc]
    """Generator of example inputs, of which tracing needs only the shapes."""

    SUPPORTED_INPUT_NAMES = ("input_ids", "pixel_values", "video_embeds", "img_features", "text_embeds")

    def __init__(
        self,
        task: str,  # noqa: ARG002 - Optimum's signature
        normalized_config: XCLIPNormalizedConfig,
        batch_size: int = 2,
        sequence_length: int = 16,
        **_: Any,
    ) -> None:
        self.config = normalized_config.config
        self.batch_size, self.sequence_length = batch_size, sequence_length

    def generate(
        self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"
    ) -> Any:
        """Generate one example input."""
        vision, dim = self.config.vision_config, self.config.projection_dim
        size, frames = vision.image_size, vision.num_frames
        labels = self.batch_size + 1
        if input_name == "input_ids":
            shape = [labels, min(self.sequence_length, self.config.text_config.max_position_embeddings)]
            vocabulary = self.config.text_config.vocab_size
            return self.random_int_tensor(shape, vocabulary, framework=framework, dtype=int_dtype)
        if input_name == "pixel_values":
            clip = [self.batch_size, frames, size, size, 3]
            pixels = self.random_int_tensor(clip, 256, framework=framework, dtype="int64")
            return pixels.astype("uint8") if framework == "np" else pixels.byte()
        shapes = {
            "video_embeds": [self.batch_size, dim],
            "img_features": [self.batch_size, (size // vision.patch_size) ** 2, dim],
            "text_embeds": [labels, dim],
        }
        return self.random_float_tensor(shapes[input_name], framework=framework, dtype=float_dtype)


class XCLIPModelPatcher(ModelPatcher):  # type: ignore[misc]
    """Patcher that replaces the model's forward by that of a tower during the export."""

    def __init__(self, config: XCLIPOnnxConfig, model: XCLIPModel, model_kwargs: dict[str, Any] | None = None) -> None:
        # As a sub-module its weights are exported as parameters, not as constants.
        model.tower = config.build_tower(model)
        model.forward = model.tower.forward
        super().__init__(config, model, model_kwargs)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        del self._model.tower, self._model.forward


class XCLIPOnnxConfig(OnnxConfig):  # type: ignore[misc]
    """ONNX configuration of one tower of ``XCLIPModel``.

    Args:
        config: Configuration of the model.
        tower: Tower to export.
        mean: Per-channel pixel mean that the vision tower folds in.
        std: Per-channel pixel standard deviation.
    """

    NORMALIZED_CONFIG_CLASS = XCLIPNormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (XCLIPDummyInputGenerator,)
    _MODEL_PATCHER = XCLIPModelPatcher

    def __init__(self, config: XCLIPConfig, tower: Tower, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(config, task="feature-extraction")
        self.tower, self.mean, self.std = tower, mean, std

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names with their dynamic axes."""
        return _INPUTS[self.tower]

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names with their dynamic axes."""
        return _OUTPUTS[self.tower]

    def build_tower(self, model: XCLIPModel) -> torch.nn.Module:
        """Build the tower, in evaluation mode."""
        if self.tower == "vision":
            return VisionTower(model, self.mean, self.std).eval()
        return (PromptTower(model) if self.tower == "prompt" else TextTower(model)).eval()


def export_tower(model: XCLIPModel, tower: Tower, output: Path, *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Trace one tower into an ONNX file with Optimum.

    Args:
        model: The checkpoint; unchanged afterwards.
        tower: Tower to export.
        output: The .onnx file to write.
        mean: Per-channel pixel mean that the vision tower folds in.
        std: Per-channel pixel standard deviation.
    """
    config = XCLIPOnnxConfig(model.config, tower, mean, std)
    # One clip is enough to trace: the batch axis is symbolic, and a full-size clip takes seconds.
    optimum_export(model, config, output, opset=OPSET, input_shapes={"batch_size": 1, "sequence_length": 16})
