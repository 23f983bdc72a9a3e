"""Seeded checkpoints of any X-CLIP shape, for tests and benchmarks without a network.

transformers' initialisation of X-CLIP gives every linear layer weights of standard deviation 1: activations explode,
softmax saturates, and errors hide. Here every layer keeps the scale of its input, position embeddings and LayerNorm
gains vary as in a trained model, and the labels' logits spread over a few units.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import XCLIPConfig, XCLIPModel, XCLIPTextConfig, XCLIPVisionConfig

from xclip_export.checkpoint import IMAGENET_MEAN, IMAGENET_STD, PREPROCESSOR
from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from transformers import CLIPTokenizerFast


def seeded_config(
    *,
    num_frames: int = 32,
    image_size: int = 224,
    patch_size: int = 16,
    large: bool = False,
    vision_layers: int | None = None,
    text_layers: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> XCLIPConfig:
    """Make the configuration of a published X-CLIP shape.

    Args:
        num_frames: 8, 16 or 32 in the published checkpoints.
        image_size: Height and width in pixels; 224 or 336.
        patch_size: 32, 16 or 14.
        large: Widths of the ViT-L/14 checkpoints instead of ViT-B.
        vision_layers: Number of vision layers; None takes the published one.
        text_layers: Number of text layers; None takes the published one.
        overrides: Further fields of the vision configuration.
    """
    width, heads, layers, text_width, projection = (1024, 16, 24, 768, 768) if large else (768, 12, 12, 512, 512)
    vision = XCLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=vision_layers or layers,
        num_attention_heads=heads,
        mit_hidden_size=projection,
        mit_intermediate_size=4 * projection,
        num_frames=num_frames,
        image_size=image_size,
        patch_size=patch_size,
        **(overrides or {}),
    )
    text = XCLIPTextConfig(
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=text_layers or 12,
        num_attention_heads=text_width // 64,
    )
    return XCLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=projection)


def seeded_model(config: XCLIPConfig, seed: int = 0) -> XCLIPModel:
    """Make a model with well-scaled random weights from a seed, in evaluation mode."""
    model = XCLIPModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_draw(name, parameter, generator))
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.copy_(1 + 0.2 * torch.randn(module.weight.shape, generator=generator))
                module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
        model.logit_scale.fill_(4.6052)
    return model


def _draw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise: torch.Tensor = torch.randn(parameter.shape, generator=generator)
    if name.endswith("alpha"):
        return 0.1 * (1 + 0.2 * noise)
    if "position_embedding" in name or "class_embedding" in name or "token_embedding" in name:
        return 0.5 * noise
    if name.endswith("patch_embedding.weight"):
        return noise / math.sqrt(parameter[0].numel())
    if name == "prompts_visual_projection":
        return noise / math.sqrt(len(parameter))
    if parameter.ndim == 2:
        return noise / math.sqrt(parameter.shape[1])
    return 0.05 * noise


def outlier_twin(model: XCLIPModel, *, channels: int = 4, gain: float = 40.0, seed: int = 0) -> XCLIPModel:
    """Give a model outlier channels without changing its function; return the same, modified model.

    The LayerNorm gain and bias of a few channels are multiplied by up to ``gain`` and the columns of the projections
    behind them divided by the same. In exact arithmetic nothing changes; for quantisation the activations become as
    hard as those of a trained CLIP.

    Args:
        model: Modified in place.
        channels: Number of channels of each LayerNorm.
        gain: Largest factor; the factors are drawn from [gain / 2, gain].
        seed: Seed of the choice of channels and factors.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers:
            attention = layer.self_attn
            _amplify(
                layer.layer_norm1, [attention.q_proj, attention.k_proj, attention.v_proj], channels, gain, generator
            )
            _amplify(layer.layer_norm2, [layer.mlp.fc1], channels, gain, generator)
    return model


def _amplify(
    norm: nn.LayerNorm, readers: list[nn.Linear], channels: int, gain: float, generator: torch.Generator
) -> None:
    chosen = torch.randperm(norm.weight.numel(), generator=generator)[:channels]
    factors = gain * (0.5 + 0.5 * torch.rand(channels, generator=generator))
    norm.weight[chosen] *= factors
    norm.bias[chosen] *= factors
    for reader in readers:
        reader.weight[:, chosen] /= factors


def save_checkpoint(model: XCLIPModel, tokenizer: CLIPTokenizerFast, folder: Path) -> None:
    """Write a model as a Hugging Face checkpoint folder, with the published checkpoints' preprocessing."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = int(model.config.vision_config.image_size)
    content = {
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": 2,
        "size": size,
    }
    write_json(folder / PREPROCESSOR, content)
