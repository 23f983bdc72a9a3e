"""Weights of a vision tower as numpy arrays, in the form that the authored graphs use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xclip_export.towers import SLOPE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from xclip_export.towers import Attention, EncoderLayer, VisionLayer

    Floats = NDArray[np.float32]

MID_GREY = 128
LARGEST_SHIFT = 2.0
"""Largest constant part of keys and values that `fold_query_bias` allows, beside what varies between tokens."""


@dataclass(frozen=True)
class Linear:
    """Linear layer y = x·weight + bias, with ``weight`` (in, out) in the layout of ONNX Runtime."""

    weight: Floats
    bias: Floats | None


@dataclass(frozen=True)
class Norm:
    """LayerNorm over the last axis, without a shift if ``bias`` is None."""

    gain: Floats
    bias: Floats | None
    epsilon: float


@dataclass(frozen=True)
class Projections:
    """Weights of a multi-head attention whose scale, key bias and value bias are folded away."""

    heads: int
    query: Linear
    key: Linear
    value: Linear
    out: Linear


@dataclass(frozen=True)
class Block:
    """Weights of a pre-norm transformer layer; the slope of QuickGELU is folded into ``fc1`` and ``fc2``."""

    norm1: Norm
    attention: Projections
    norm2: Norm
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True)
class Messenger:
    """Weights that compute the message tokens of a layer from its class tokens."""

    fc: Linear
    norm: Norm
    attention: Projections


def read_block(layer: VisionLayer | EncoderLayer, slope: float = SLOPE) -> Block:
    """Read the weights of a layer, with the ``slope`` of QuickGELU folded into the MLP; 1 folds nothing."""
    fc1, fc2 = read_linear(layer.mlp.fc1), read_linear(layer.mlp.fc2)
    # QuickGELU becomes SiLU when fc1 is scaled by its slope and fc2 divided: x·sigmoid(1.702x) = SiLU(1.702x) / 1.702.
    steep = np.float32(slope)
    return Block(
        norm1=read_norm(layer.layer_norm1),
        attention=read_attention(layer.self_attn),
        norm2=read_norm(layer.layer_norm2),
        fc1=Linear(fc1.weight * steep, bias_of(fc1) * steep),
        fc2=Linear(fc2.weight / steep, fc2.bias),
    )


def read_attention(attention: Attention) -> Projections:
    """Read the weights of an attention."""
    return Projections(
        heads=attention.num_heads,
        query=read_linear(attention.q_proj),
        key=read_linear(attention.k_proj),
        value=read_linear(attention.v_proj),
        out=read_linear(attention.out_proj),
    )


def fold_query_bias(norm: Norm, attention: Projections) -> tuple[Norm, Projections]:
    """Move the query bias of a self-attention into the shift of the norm in front, which adds it for free.

    A shift δ with δ·W_q = b_q gives the queries their bias. All keys move by δ·W_k, which softmax does not see, and all
    values by δ·W_v, which the attention passes on and the output bias takes off. The bias stays where one of these
    constants would be over `LARGEST_SHIFT` times what varies from token to token, which fp16 would then blur.
    """
    query, key, value, out = attention.query, attention.key, attention.value, attention.out
    if query.bias is None:
        return norm, attention
    wide = [linear.weight.astype(np.float64) for linear in (query, key, value)]
    try:
        shift = np.linalg.solve(wide[0].T, query.bias.astype(np.float64))
    except np.linalg.LinAlgError:
        return norm, attention
    gain = norm.gain.astype(np.float64)
    varies = (np.linalg.norm(gain), *(np.linalg.norm(gain[:, None] * weight) for weight in wide[1:]))
    constant = (np.linalg.norm(shift), *(np.linalg.norm(shift @ weight) for weight in wide[1:]))
    if not all(moved <= LARGEST_SHIFT * size for moved, size in zip(constant, varies, strict=True)):
        return norm, attention
    offset = 0.0 if norm.bias is None else norm.bias
    passed_on = shift @ wide[2] @ out.weight.astype(np.float64)
    return (
        replace(norm, bias=(offset + shift).astype(np.float32)),
        replace(
            attention,
            query=replace(query, bias=None),
            out=replace(out, bias=(bias_of(out) - passed_on).astype(np.float32)),
        ),
    )


def read_linear(layer: nn.Linear) -> Linear:
    """Read the weights of a linear layer."""
    return Linear(matrix(layer.weight), None if layer.bias is None else array(layer.bias))


def read_norm(layer: nn.LayerNorm) -> Norm:
    """Read the weights of a LayerNorm."""
    return Norm(array(layer.weight), array(layer.bias), layer.eps)


def array(tensor: Tensor) -> Floats:
    """Convert a parameter to float32."""
    return tensor.detach().float().numpy()


def matrix(weight: Tensor) -> Floats:
    """Convert a torch weight (out, in) to a contiguous matrix (in, out)."""
    return np.ascontiguousarray(array(weight).T)


def bias_of(linear: Linear) -> Floats:
    """Return the bias, or zeros if the layer has none."""
    return np.zeros(linear.weight.shape[1], np.float32) if linear.bias is None else linear.bias
