"""Network: a small X-CLIP of transformers, with an initialisation for training from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import XCLIPConfig, XCLIPModel

from motion_demo.labels import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_FRAMES = 32
WIDTH = 128
# exp(logit_scale) of CLIP never passes 100 (Radford et al. 2021, section 2.5).
MAX_LOGIT_SCALE = float(np.log(100))

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def make_config(vocab_size: int) -> XCLIPConfig:
    """Return the configuration: 1.9 million parameters in the shape of the published checkpoints."""
    return XCLIPConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "projection_dim": WIDTH,
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "pad_token_id": vocab_size - 1,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "mit_hidden_size": WIDTH,
            "mit_intermediate_size": 4 * WIDTH,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 32,
            "num_frames": NUM_FRAMES,
            "hidden_act": "quick_gelu",
            "drop_path_rate": 0.0,
            "projection_dim": WIDTH,
        },
        projection_dim=WIDTH,
        prompt_layers=2,
        prompt_num_attention_heads=4,
        prompt_hidden_act="quick_gelu",
        logit_scale_init_value=float(np.log(20)),
        id2label=dict(enumerate(label.text for label in LABELS)),
        label2id={label.text: index for index, label in enumerate(LABELS)},
    )


def build_model(config: XCLIPConfig, seed: int) -> XCLIPModel:
    """Return a model with weights drawn from ``seed``.

    transformers' own initialisation draws some linear layers with a standard deviation of 1 and the queries and keys so
    small that attention is uniform; here every matrix gets fan_in**-0.5. The position embeddings are smooth random
    functions of place and of time, so that training at one place or time carries over to its neighbours.
    """
    model = XCLIPModel(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha") or parameter.ndim < 2:
            continue
        fan_in = parameter.shape[0] if name == "prompts_visual_projection" else parameter[0].numel()
        nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)

    vision, text, mit = model.vision_model.embeddings, model.text_model.embeddings, model.mit
    side = config.vision_config.image_size // config.vision_config.patch_size
    grid = torch.cartesian_prod(torch.linspace(0, 1, side), torch.linspace(0, 1, side))
    time = torch.linspace(0, 1, config.vision_config.num_frames)[:, None]
    with torch.no_grad():
        nn.init.normal_(vision.class_embedding, std=WIDTH**-0.5, generator=generator)
        vision.position_embedding.weight[1:] = _smooth_functions(grid, WIDTH, 6.0, generator)
        mit.position_embedding[0] = _smooth_functions(time, WIDTH, 5.0, generator)
        nn.init.normal_(text.token_embedding.weight, std=0.5, generator=generator)
        nn.init.normal_(text.position_embedding.weight, std=0.1, generator=generator)
    return model


def _smooth_functions(points: torch.Tensor, count: int, frequency: float, generator: torch.Generator) -> torch.Tensor:
    """Sample random functions of unit variance at the given points.

    Random Fourier features (Rahimi and Recht 2007): draws from a Gaussian process of length scale 1/frequency.

    Args:
        points: (N, dimensions).
        count: How many functions.
        frequency: Standard deviation of the angular frequencies.
        generator: Source of chance.

    Returns:
        (N, count).
    """
    frequencies = frequency * torch.randn(points.shape[1], count, generator=generator)
    phases = 2 * torch.pi * torch.rand(count, generator=generator)
    return 2**0.5 * torch.cos(points @ frequencies + phases)


def _embed_patches(model: XCLIPModel, frames: torch.Tensor) -> torch.Tensor:
    """Compute the vision embeddings from uint8 (N, H, W, 3), with the normalisation folded into the weights.

    On a CPU normalising the pixels first takes as long as the rest of the network.
    """
    embeddings = model.vision_model.embeddings
    size = embeddings.patch_size
    std = torch.tensor(PIXEL_STD)[:, None, None]
    mean = torch.tensor(PIXEL_MEAN)[:, None, None]
    weight = embeddings.patch_embedding.weight / std
    bias = -(weight * mean).sum(dim=(1, 2, 3))
    rows, columns = frames.shape[1] // size, frames.shape[2] // size
    patches = frames.reshape(len(frames), rows, size, columns, size, 3).permute(0, 1, 3, 5, 2, 4)
    # All 256 grey levels are exact in bfloat16.
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    pixels = patches.to(dtype).reshape(len(frames), rows * columns, -1)
    patch_embeds = nn.functional.linear(pixels, weight.flatten(1) / 255, bias)
    class_embeds = embeddings.class_embedding.expand(len(frames), 1, -1)
    placed: torch.Tensor = torch.cat([class_embeds, patch_embeds], dim=1) + embeddings.position_embedding.weight
    return placed


class VisionOutput(NamedTuple):
    """Outputs of the vision tower.

    Attributes:
        frame_embeds: (B, T, D), one a frame.
        img_features: (B, P, D), one a patch, averaged over the frames.
        patches: (B, T, P, hidden), the last hidden states of the patches.
    """

    frame_embeds: torch.Tensor
    img_features: torch.Tensor
    patches: torch.Tensor


def encode_frames(model: XCLIPModel, frames: torch.Tensor) -> VisionOutput:
    """Run the vision tower over any number of frames a clip.

    Args:
        model: The model; the number of frames, which its encoder layers hold, is set as a side effect.
        frames: (B, T, H, W, 3) uint8 RGB.
    """
    batch, num_frames = frames.shape[:2]
    for layer in model.vision_model.encoder.layers:
        layer.num_frames = num_frames
    vision = model.vision_model
    hidden = vision.pre_layernorm(_embed_patches(model, frames.flatten(0, 1)))
    hidden = vision.encoder(inputs_embeds=hidden)[0].unflatten(0, (batch, num_frames))
    patches = hidden[:, :, 1:]
    img_features = (model.prompts_visual_layernorm(patches) @ model.prompts_visual_projection).mean(dim=1)
    return VisionOutput(model.visual_projection(vision.post_layernorm(hidden[:, :, 0])), img_features, patches)


def integrate(model: XCLIPModel, frame_embeds: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
    """Run the multi-frame integration transformer with the temporal positions given.

    Args:
        model: The model.
        frame_embeds: (B, T, D).
        positions: T indices into the temporal position embedding.

    Returns:
        video_embeds (B, D).
    """
    placed = frame_embeds + model.mit.position_embedding[:, list(positions)]
    video_embeds: torch.Tensor = (model.mit.encoder(inputs_embeds=placed)[0] + frame_embeds).mean(dim=1)
    return video_embeds


def encode_texts(model: XCLIPModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Run the text tower: (N, L) int64 token ids to text_embeds (N, D)."""
    text_embeds: torch.Tensor = model.text_projection(model.text_model(input_ids=input_ids).pooler_output)
    return text_embeds


def logits_per_video(
    model: XCLIPModel, video_embeds: torch.Tensor, img_features: torch.Tensor, text_embeds: torch.Tensor
) -> torch.Tensor:
    """Prompt the texts with each video and compare.

    Args:
        model: The model.
        video_embeds: (B, D).
        img_features: (B, P, D).
        text_embeds: (N, D).

    Returns:
        (B, N): cosines times exp(logit_scale).
    """
    texts = text_embeds.expand(len(video_embeds), -1, -1)
    texts = nn.functional.normalize(texts + model.prompts_generator(texts, img_features), dim=-1)
    videos = nn.functional.normalize(video_embeds, dim=-1)
    logits: torch.Tensor = model.logit_scale.exp() * torch.einsum("bd,bnd->bn", videos, texts)
    return logits
