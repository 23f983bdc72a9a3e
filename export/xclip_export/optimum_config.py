"""X-CLIP for Optimum's ONNX exporter; the only module that imports Optimum.

Importing it registers model type ``xclip``. Its variants are the graphs that can be exported from an ``XCLIPModel``:
"monolith" is transformers' own forward, the others are the towers of `xclip_export.towers`. With this package
installed, ``optimum-cli export onnx --model CHECKPOINT --task feature-extraction [--variant vision] OUT`` works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import register_tasks_manager_onnx
from optimum.exporters.onnx.model_patcher import ModelPatcher
from optimum.utils import DummyInputGenerator, NormalizedTextAndVisionConfig

from xclip_export.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from xclip_export.towers import PromptTower, TextTower, VisionTower

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from transformers import XCLIPModel

    from xclip_runtime.bundle import Tower

OPSET = 18

_VIDEO, _LABELS, _LENGTH = "batch_size", "num_labels", "sequence_length"

_INPUTS: dict[str, dict[str, dict[int, str]]] = {
    "monolith": {"input_ids": {0: _LABELS, 1: _LENGTH}, "pixel_values": {0: _VIDEO}},
    "vision": {"pixel_values": {0: _VIDEO}},
    "prompt": {"video_embeds": {0: _VIDEO}, "img_features": {0: _VIDEO}, "text_embeds": {0: _LABELS}},
    "text": {"input_ids": {0: _LABELS, 1: _LENGTH}},
}
_OUTPUTS: dict[str, dict[str, dict[int, str]]] = {
    "monolith": {
        "logits_per_video": {0: _VIDEO, 1: _LABELS},
        "logits_per_text": {0: _LABELS, 1: _VIDEO},
        "text_embeds": {0: _VIDEO, 1: _LABELS},
        "video_embeds": {0: _VIDEO},
    },
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
        variant: str = "monolith",
        **_: Any,
    ) -> None:
        self.config = normalized_config.config
        self.batch_size, self.sequence_length, self.variant = batch_size, sequence_length, variant

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
        if input_name == "pixel_values" and self.variant == "vision":
            clip = [self.batch_size, frames, size, size, 3]
            pixels = self.random_int_tensor(clip, 256, framework=framework, dtype="int64")
            return pixels.astype("uint8") if framework == "np" else pixels.byte()
        shapes = {
            "pixel_values": [self.batch_size, frames, vision.num_channels, size, size],
            "video_embeds": [self.batch_size, dim],
            "img_features": [self.batch_size, (size // vision.patch_size) ** 2, dim],
            "text_embeds": [labels, dim],
        }
        return self.random_float_tensor(shapes[input_name], framework=framework, dtype=float_dtype)


class XCLIPModelPatcher(ModelPatcher):  # type: ignore[misc]
    """Patcher that replaces the model's forward by the tower of a variant during the export."""

    def __init__(self, config: XCLIPOnnxConfig, model: XCLIPModel, model_kwargs: dict[str, Any] | None = None) -> None:
        self._has_tower = config.variant != "monolith"
        if self._has_tower:
            # As a sub-module its weights are exported as parameters, not as constants.
            model.tower = config.build_tower(model)
            model.forward = model.tower.forward
        super().__init__(config, model, model_kwargs)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self._has_tower:
            del self._model.tower, self._model.forward


@register_tasks_manager_onnx("xclip", "feature-extraction")
class XCLIPOnnxConfig(OnnxConfig):  # type: ignore[misc]
    """ONNX configuration of ``XCLIPModel``."""

    NORMALIZED_CONFIG_CLASS = XCLIPNormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (XCLIPDummyInputGenerator,)
    DEFAULT_ONNX_OPSET = OPSET
    ATOL_FOR_VALIDATION = 1e-3
    _MODEL_PATCHER = XCLIPModelPatcher
    VARIANTS: ClassVar[dict[str, str]] = {
        "monolith": "The whole model as transformers runs it: float pixel_values and input_ids to logits.",
        "vision": "uint8 frames (B, T, H, W, 3) to video_embeds and img_features.",
        "prompt": "video_embeds, img_features and text_embeds to logits_per_video.",
        "text": "input_ids to text_embeds.",
    }
    DEFAULT_VARIANT = "monolith"

    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names with their dynamic axes."""
        return _INPUTS[self.variant]

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names with their dynamic axes."""
        return _OUTPUTS[self.variant]

    def build_tower(self, model: XCLIPModel) -> torch.nn.Module:
        """Build the tower of this variant, in evaluation mode."""
        if self.variant == "vision":
            return VisionTower(model, self.image_mean, self.image_std).eval()
        return (PromptTower(model) if self.variant == "prompt" else TextTower(model)).eval()

    def _create_dummy_input_generator_classes(self, **kwargs: Any) -> list[DummyInputGenerator]:
        return super()._create_dummy_input_generator_classes(**{**kwargs, "variant": self.variant})  # type: ignore[no-any-return]


def export_tower(
    model: XCLIPModel, variant: Tower, output: Path, *, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Trace one tower into an ONNX file with Optimum.

    Args:
        model: The checkpoint; unchanged afterwards.
        variant: Tower to export.
        output: The .onnx file to write.
        mean: Per-channel pixel mean that the vision tower folds in.
        std: Per-channel pixel standard deviation.
    """
    config = XCLIPOnnxConfig(model.config, task="feature-extraction")
    config.variant = variant
    config.image_mean, config.image_std = mean, std
    # One clip is enough to trace: the batch axis is symbolic, and a full-size clip takes seconds.
    optimum_export(model, config, output, opset=OPSET, input_shapes={"batch_size": 1, "sequence_length": 16})
