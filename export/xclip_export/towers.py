"""X-CLIP as three towers, with everything that does not depend on the video computed in advance.

Each tower is built from a transformers ``XCLIPModel`` and is algebraically equal to the part of it that it replaces;
only floating-point rounding differs, and the parity gate measures by how much. Folded are:

- pixel normalisation into the patch embedding (stride = kernel, no padding), so that uint8 frames are the input;
- the class token with its position embedding, a constant row of the position table;
- the softmax scale into the query projection; the key bias, a constant per softmax row, away; the value bias through
  the output projection, since attention rows sum to one;
- the message token of layer 0: its class token does not depend on the frame, and attention over equal tokens returns
  their common value;
- the query, output and residual rows of the message token, which nothing reads;
- the mean over frames before the prompt projection, with the affine part of its LayerNorm in that projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import XCLIPModel


SLOPE = 1.702


class QuickGELU(nn.Module):
    """QuickGELU, x · sigmoid(1.702 x), the activation of every X-CLIP checkpoint."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation element by element, to any shape."""
        return x * torch.sigmoid(SLOPE * x)


class Attention(nn.Module):
    """Multi-head attention with scale, key bias and value bias folded away.

    Args:
        source: A transformers ``XCLIPAttention`` or ``XCLIPCrossAttention``.
        tokens: Fixed numbers of query and of context tokens, which keep shape arithmetic out of the graph; None takes
            them from the input.
    """

    def __init__(self, source: Any, tokens: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.num_heads, self.tokens = int(source.num_heads), tokens
        out = source.out_proj if hasattr(source, "out_proj") else source.proj
        self.q_proj = _linear(source.q_proj.weight * source.scale, _scaled_bias(source.q_proj, source.scale))
        self.k_proj = _linear(source.k_proj.weight, None)
        self.v_proj = _linear(source.v_proj.weight, None)
        value_bias = source.v_proj.bias
        out_bias = out.bias if value_bias is None else out.bias + out.weight @ value_bias
        self.out_proj = _linear(out.weight, out_bias)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from ``query`` (..., Q, d) to ``context`` (..., K, d); ``mask`` (Q, K) is added to the scores."""
        queries, keys = self.tokens or (query.shape[1], context.shape[1])
        q = self.split_heads(self.q_proj(query), queries)
        k = self.split_heads(self.k_proj(context), keys)
        v = self.split_heads(self.v_proj(context), keys)
        scores = q @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2)
        return cast("Tensor", self.out_proj(mixed.reshape(-1, queries, self.out_proj.in_features)))

    def split_heads(self, x: Tensor, tokens: int) -> Tensor:
        """Reshape (B, tokens, d) to (B, heads, tokens, d / heads)."""
        return x.reshape(-1, tokens, self.num_heads, self.out_proj.in_features // self.num_heads).transpose(1, 2)


class MLP(nn.Module):
    """Feed-forward block: fc1, QuickGELU, fc2.

    Args:
        fc1: Linear layer, d to 4d.
        fc2: Linear layer, 4d to d.
    """

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        super().__init__()
        self.fc1, self.activation, self.fc2 = fc1, QuickGELU(), fc2

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on (..., d)."""
        return cast("Tensor", self.fc2(self.activation(self.fc1(x))))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer of the text tower and of the multi-frame integration transformer (MIT)."""

    def __init__(self, source: Any, tokens: int | None = None) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = source.layer_norm1, source.layer_norm2
        self.self_attn = Attention(source.self_attn, None if tokens is None else (tokens, tokens))
        self.mlp = MLP(source.mlp.fc1, source.mlp.fc2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the layer on (B, S, d)."""
        normed = self.layer_norm1(x)
        x = x + self.self_attn(normed, normed, mask)
        return cast("Tensor", x + self.mlp(self.layer_norm2(x)))


class Message(nn.Module):
    """Message tokens of a layer ≥ 1: attention between the class tokens of all frames."""

    def __init__(self, source: Any, num_frames: int) -> None:
        super().__init__()
        self.num_frames, self.embed_dim = num_frames, int(source.embed_dim)
        self.message_fc, self.message_ln = source.message_fc, source.message_ln
        self.message_attn = Attention(source.message_attn, (num_frames, num_frames))

    def forward(self, cls: Tensor) -> Tensor:
        """Compute message tokens (B·T, 1, d) from class tokens (B·T, 1, d)."""
        message = self.message_fc(cls).reshape(-1, self.num_frames, self.embed_dim)
        normed = self.message_ln(message)
        message = message + self.message_attn(normed, normed)
        return cast("Tensor", message.reshape(-1, 1, self.embed_dim))


class ConstantMessage(nn.Module):
    """Message token of layer 0, a constant.

    Args:
        source: The transformers ``XCLIPVisionEncoderLayer``.
        cls: Class token at the input of the layer, (d,).
    """

    def __init__(self, source: Any, cls: Tensor) -> None:
        super().__init__()
        attn = source.message_attn
        message = source.message_fc(cls)
        message = message + attn.out_proj(attn.v_proj(source.message_ln(message)))
        self.shift = nn.Parameter(message - cls)

    def forward(self, cls: Tensor) -> Tensor:
        """Compute message tokens from equal class tokens, both (B·T, 1, d), without shape arithmetic in the graph."""
        return cls + self.shift


class VisionLayer(nn.Module):
    """Vision layer: the tokens of a frame attend to each other and to the frame's message token."""

    def __init__(self, source: Any, message: Message | ConstantMessage, tokens: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = source.layer_norm1, source.layer_norm2
        self.self_attn = Attention(source.self_attn, (tokens, tokens + 1))
        self.mlp = MLP(source.mlp.fc1, source.mlp.fc2)
        self.message = message

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer on (B·T, 1 + P, d)."""
        normed = self.layer_norm1(x)
        message = self.layer_norm1(self.message(x[:, :1]))
        x = x + self.self_attn(normed, torch.cat([normed, message], dim=1))
        return cast("Tensor", x + self.mlp(self.layer_norm2(x)))


class VisionTower(nn.Module):
    """Vision tower: uint8 frames to video_embeds and img_features.

    Args:
        model: The checkpoint.
        mean: Per-channel mean of the pixel normalisation, for pixels in [0, 1].
        std: Per-channel standard deviation of the pixel normalisation.
    """

    def __init__(self, model: XCLIPModel, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.config = model.config
        vision = model.vision_model
        self.num_frames = int(model.config.vision_config.num_frames)
        self.patch_size = int(model.config.vision_config.patch_size)
        self.grid = int(model.config.vision_config.image_size) // self.patch_size
        self.embed_dim = int(model.config.vision_config.hidden_size)

        self.patch_embedding, self.position_table = _fold_embeddings(vision.embeddings, mean, std)
        self.pre_layernorm = vision.pre_layernorm
        cls = vision.pre_layernorm(self.position_table[0])
        first, *rest = vision.encoder.layers
        tokens = 1 + self.grid**2
        layers = [VisionLayer(first, ConstantMessage(first, cls), tokens)]
        layers += [VisionLayer(layer, Message(layer, self.num_frames), tokens) for layer in rest]
        self.layers = nn.ModuleList(layers)

        self.post_layernorm, self.visual_projection = vision.post_layernorm, model.visual_projection
        self.mit_position = model.mit.position_embedding
        self.mit = nn.ModuleList(EncoderLayer(layer, self.num_frames) for layer in model.mit.encoder.layers)

        norm = model.prompts_visual_layernorm
        self.prompts_norm = nn.LayerNorm(self.embed_dim, eps=norm.eps)
        weight = model.prompts_visual_projection
        self.prompts_projection = _linear((norm.weight[:, None] * weight).T, norm.bias @ weight)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Run the tower.

        Args:
            pixel_values: uint8 RGB (B, T, H, W, 3).

        Returns:
            video_embeds (B, D), not normalised, and img_features (B, P, D), the frame mean of the projected patches.
        """
        x = self.embed(pixel_values)
        for layer in self.layers:
            x = layer(x)
        return self.video_embeds(x[:, 0]), self.img_features(x[:, 1:])

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Embed uint8 frames (B, T, H, W, 3) as the tokens (B·T, 1 + P, d) of layer 0."""
        grid, patch = self.grid, self.patch_size
        # Cast first, since TensorRT allows uint8 only as a graph input.
        patches = pixel_values.float().reshape(-1, grid, patch, grid, patch * 3).transpose(2, 3)
        patches = patches.reshape(-1, grid * grid, patch * patch * 3)
        # A black patch keeps a row free for the class token, without shape arithmetic in the graph.
        x = self.patch_embedding(torch.cat([patches[:, :1] * 0, patches], dim=1)) + self.position_table
        return cast("Tensor", self.pre_layernorm(x))

    def video_embeds(self, cls: Tensor) -> Tensor:
        """Compute video_embeds (B, D) from class tokens (B·T, d) of the last layer, by the MIT."""
        frames = self.visual_projection(self.post_layernorm(cls))
        frames = frames.reshape(-1, self.num_frames, self.visual_projection.out_features)
        x = frames + self.mit_position
        for layer in self.mit:
            x = layer(x)
        return cast("Tensor", (x + frames).mean(dim=1))

    def img_features(self, patches: Tensor) -> Tensor:
        """Compute img_features (B, P, D) from patch tokens (B·T, P, d) of the last layer."""
        normed = self.prompts_norm(patches).reshape(-1, self.num_frames, self.grid**2, self.embed_dim)
        return cast("Tensor", self.prompts_projection(normed.mean(dim=1)))


class PromptTower(nn.Module):
    """Prompt tower: video_embeds, img_features and text_embeds to logits_per_video, by video-specific prompts.

    Args:
        model: The checkpoint.
    """

    def __init__(self, model: XCLIPModel) -> None:
        super().__init__()
        self.config = model.config
        generator = model.prompts_generator
        self.layernorm = generator.layernorm
        self.layers = nn.ModuleList(PromptLayer(layer) for layer in generator.decoder)
        self.alpha = generator.alpha
        self.logit_scale = nn.Parameter(model.logit_scale.exp())

    def forward(self, video_embeds: Tensor, img_features: Tensor, text_embeds: Tensor) -> Tensor:
        """Run the tower.

        Args:
            video_embeds: float32 (B, D), of any norm.
            img_features: float32 (B, P, D).
            text_embeds: float32 (N, D), of any norm.

        Returns:
            logits_per_video (B, N): cosines times exp(logit_scale).
        """
        visual = self.layernorm(img_features)
        prompts = text_embeds.unsqueeze(0)
        for layer in self.layers:
            prompts = layer(prompts, visual)
        text = _unit(text_embeds + self.alpha * prompts)
        video = _unit(video_embeds) * self.logit_scale
        return (text @ video.unsqueeze(-1)).squeeze(-1)


class PromptLayer(nn.Module):
    """Layer of the prompt tower: each label attends to the video's patches, not to other labels."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.norm1, self.norm3 = source.norm1, source.norm3
        self.cross_attn = Attention(source.cross_attn)
        self.mlp = MLP(source.mlp[0], source.mlp[3])

    def forward(self, text: Tensor, visual: Tensor) -> Tensor:
        """Attend from ``text`` (B or 1, N, D) to ``visual`` (B, P, D); return (B, N, D)."""
        text = text + self.cross_attn(self.norm1(text), visual)
        return cast("Tensor", text + self.mlp(self.norm3(text)))


class TextTower(nn.Module):
    """Text tower: input_ids to text_embeds.

    Padding needs no mask: pooling takes the first end-of-text token, and the causal mask hides what follows it.

    Args:
        model: The checkpoint.
    """

    def __init__(self, model: XCLIPModel) -> None:
        super().__init__()
        self.config = model.config
        text = model.text_model
        self.token_embedding = text.embeddings.token_embedding
        self.position_table = text.embeddings.position_embedding.weight
        length = len(self.position_table)
        self.register_buffer("causal_mask", torch.full((length, length), -torch.inf).triu(1))
        self.layers = nn.ModuleList(EncoderLayer(layer) for layer in text.encoder.layers)
        self.final_layer_norm, self.text_projection = text.final_layer_norm, model.text_projection

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run the tower.

        Args:
            input_ids: int64 (N, L), L at most the checkpoint's context length; the end-of-text id is the largest.

        Returns:
            text_embeds (N, D), not normalised.
        """
        length = input_ids.shape[1]
        mask = cast("Tensor", self.causal_mask)[:length, :length]
        x = self.token_embedding(input_ids) + self.position_table[:length]
        for layer in self.layers:
            x = layer(x, mask)
        # int32, since some execution providers lack an ArgMax kernel for int64.
        end_of_text = input_ids.to(torch.int32).argmax(dim=-1)
        pooled = x[torch.arange(x.shape[0]), end_of_text]
        return cast("Tensor", self.text_projection(self.final_layer_norm(pooled)))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer with contiguous copies of ``weight`` (out, in) and ``bias`` (out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _scaled_bias(layer: nn.Linear, scale: float) -> Tensor | None:
    return None if layer.bias is None else layer.bias * scale


def _fold_embeddings(embeddings: Any, mean: Sequence[float], std: Sequence[float]) -> tuple[nn.Linear, nn.Parameter]:
    """Fold the pixel normalisation into the patch embedding, over bytes in (row, column, channel) order, and the table.

    With x = (u / 255 - mean) / std per channel and a convolution W whose stride is its kernel:
    W·x = (W / (255 std))·u - sum(W mean / std). The constant joins the position of every patch.
    Row 0 of the table is class token + position 0.
    """
    kernel = embeddings.patch_embedding.weight.detach().double()
    means, stds = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (mean, std))
    bytes_kernel = (kernel / (255 * stds)).permute(0, 2, 3, 1).flatten(1)
    constant = -(kernel * means / stds).sum(dim=(1, 2, 3))
    table = embeddings.position_embedding.weight.detach().double().clone()
    table[0] += embeddings.class_embedding.detach().double()
    table[1:] += constant
    return _linear(bytes_kernel.float(), None), nn.Parameter(table.float())


def _unit(x: Tensor) -> Tensor:
    # functional.normalize would leave shape arithmetic in the graph.
    length = cast("Tensor", x.norm(dim=-1, keepdim=True))
    return x / length.clamp_min(1e-12)
