"""The int8 vision graph for CPUs with VNNI.

Every large projection multiplies uint8 activations by int8 weights; LayerNorm, the scores and softmax of attention,
SiLU, the residual stream and the multi-frame integration transformer stay in fp32.

- Weights: symmetric, one scale for each output channel.
- Activations: one static scale and zero point for each projection input, from calibration clips. Static scales keep a
  clip's result independent of the rest of its batch, and save the pass that finds a range at run time.
- Pixels are bytes already: they enter the patch embedding as they are, with scale 1. What rounding its weights does to
  a mid-grey picture is a constant, which the position table takes back.
- Balancing, exact in real arithmetic (SmoothQuant, arXiv 2211.10438): channel j of a LayerNorm is divided by
  s_j = max|x_j|^a / max|w_j|^(1-a) and row j of the weights that read it multiplied by s_j, so that outlier channels do
  not set the scale of all others; the same between the value and the output projection.
- The bias of a LayerNorm moves into the biases of the projections that read it, which centres their inputs.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from xclip_runtime.video import FrameTransform, read_clip

from .fused import SLOPE, Block, Linear, Messenger, Norm, Projections, VisionGraph, bias_of, read_linear
from .graph import MICROSOFT
from .towers import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch import Tensor, nn

    from .towers import VisionLayer, VisionTower

    Floats = NDArray[np.float32]

_EXPONENT = 0.5
_MID_GREY = 128


@dataclass(frozen=True)
class Observation:
    """What the calibration clips brought to one projection input.

    Attributes:
        low: Smallest value of each channel.
        high: Largest value of each channel.
    """

    low: Floats
    high: Floats

    def plus(self, offset: Floats) -> Observation:
        """The same input with ``offset`` added, by channel."""
        return Observation(self.low + offset, self.high + offset)

    def times(self, factor: NDArray[Any] | np.float32) -> Observation:
        """The same input multiplied by the positive ``factor``, by channel."""
        return Observation(self.low * factor, self.high * factor)

    @property
    def magnitude(self) -> Floats:
        """Largest absolute value of each channel."""
        return cast("Floats", np.maximum(np.abs(self.low), np.abs(self.high)))


@dataclass(frozen=True)
class Affine:
    """x = scale·(code - zero_point), with codes 0…255."""

    scale: np.float32
    zero_point: np.uint8


@dataclass(frozen=True)
class Codes:
    """A projection with int8 weights: ``codes`` (in, out) times ``scales`` (out,), and its fp32 bias."""

    codes: NDArray[np.int8]
    scales: Floats
    bias: Floats | None


def int8_vision_model(
    tower: VisionTower,
    *,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
    frames_per_group: int | None = None,
    seed: int = 0,
) -> ModelProto:
    """Build the graph.

    Args:
        tower: Whose function the graph approximates.
        calibration: Clips, uint8 RGB (T, H, W, 3), that set the activation scales; None takes
            :func:`calibration_clips`.
        frames_per_group: As in :func:`xclip_export.fused.fused_vision_model`.
        seed: Of the default clips.

    Returns:
        A model with the inputs, outputs and layer names of the fp32 graph.
    """
    size = tower.grid * tower.patch_size
    clips = calibration_clips(tower.num_frames, size, seed) if calibration is None else calibration
    return Int8VisionGraph(tower, observe(tower, clips), frames_per_group).build()


def calibration_clips(num_frames: int, image_size: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Four clips, uint8 RGB (T, H, W, 3): decoded video, the same mirrored and inverted, drifting texture, noise."""
    rng = np.random.default_rng(seed)
    with resources.as_file(resources.files("xclip_export") / "data" / "bigbuckbunny-excerpt.mp4") as path:
        video = read_clip(path, num_frames=num_frames, transform=FrameTransform("videox", image_size)).frames
    # Texture with the 1/f spectrum of natural pictures, moved by a few pixels from frame to frame.
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(image_size), np.fft.rfftfreq(image_size), indexing="ij"))
    spectrum = np.fft.rfft2(rng.standard_normal((3, image_size, image_size))) / np.maximum(frequency, 1 / image_size)
    texture = np.fft.irfft2(spectrum, s=(image_size, image_size)).transpose(1, 2, 0)
    texture = np.clip(128 + 50 * texture / texture.std(), 0, 255).astype(np.uint8)
    drift = np.stack([np.roll(texture, (3 * t, 2 * t), axis=(0, 1)) for t in range(num_frames)])
    noise = rng.integers(0, 256, video.shape, dtype=np.uint8)
    return [video, 255 - video[:, :, ::-1], drift, noise]


@torch.no_grad()
def observe(tower: VisionTower, clips: Iterable[NDArray[np.uint8]]) -> dict[str, Observation]:
    """Run the tower in fp32 and note what reaches each projection.

    Returns:
        By site: ``layers.{i}.attention``, ``.out``, ``.fc1``, ``.fc2``, ``.message.attention`` and ``.message.out``.
    """
    seen: dict[str, list[Observation]] = {}

    def hook(site: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            seen.setdefault(site, []).append(Observation(x.amin(0).numpy(), x.amax(0).numpy()))

        return note

    with ExitStack() as stack:
        for site, reader in _readers(tower):
            stack.callback(reader.register_forward_pre_hook(hook(site)).remove)
        for clip in clips:
            tower(torch.from_numpy(np.ascontiguousarray(clip))[None])
    return {site: _joined(parts) for site, parts in seen.items()}


def _readers(tower: VisionTower) -> Iterator[tuple[str, nn.Module]]:
    """The projections whose inputs are quantised, by site; key projections see the most of what is shared."""
    for index, module in enumerate(tower.layers):
        layer, site = cast("VisionLayer", module), f"layers.{index}"
        yield f"{site}.attention", layer.self_attn.k_proj
        yield f"{site}.out", layer.self_attn.out_proj
        yield f"{site}.fc1", layer.mlp.fc1
        yield f"{site}.fc2", layer.mlp.fc2
        if isinstance(layer.message, Message):
            yield f"{site}.message.attention", layer.message.message_attn.k_proj
            yield f"{site}.message.out", layer.message.message_attn.out_proj


class Int8VisionGraph(VisionGraph):
    """The vision graph with its large projections in int8.

    Args:
        tower: Whose function the graph approximates.
        observations: From :func:`observe`.
        frames_per_group: As in :func:`xclip_export.fused.fused_vision_model`.
    """

    def __init__(
        self, tower: VisionTower, observations: Mapping[str, Observation], frames_per_group: int | None = None
    ) -> None:
        super().__init__(tower, frames_per_group)
        self._observations = observations
        self._affine: dict[str, Affine] = {}

    def block(self, index: int) -> Block:
        """The balanced weights of vision layer ``index``."""
        block, site = super().block(index), f"layers.{index}"
        norm1, attention = self._balanced_attention(block.norm1, block.attention, site)
        norm2, fc1 = self._balanced_mlp(block.norm2, block.fc1, site)
        # The graph's hidden activations carry the slope of QuickGELU; the tower's do not.
        self._affine[f"{site}.fc2"] = affine(self._observations[f"{site}.fc2"].times(np.float32(SLOPE)))
        return replace(block, norm1=norm1, attention=attention, norm2=norm2, fc1=fc1)

    def messenger(self, index: int) -> Messenger:
        """The balanced weights that make the message tokens of vision layer ``index``; ``fc`` stays in fp32."""
        messenger = super().messenger(index)
        norm, attention = self._balanced_attention(messenger.norm, messenger.attention, f"layers.{index}.message")
        return replace(messenger, norm=norm, attention=attention)

    def activation(self, x: str, site: str) -> str:
        """Quantise ``x`` with the static scale of ``site``, if it has one."""
        if site not in self._affine:
            return super().activation(x, site)
        return self.graph.node("QuantizeLinear", [x, *self._constants(site)], f"{x}.codes")

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:
        """uint8 rows times int8 weights, to fp32."""
        if site not in self._affine:
            return super().linear(x, weights, site, name, output)
        return self._multiply(x, quantized(weights), self._constants(site), name, output)

    def position_table(self) -> Floats:
        """The table, with the rounding of the patch embedding taken back for mid-grey pixels."""
        exact = read_linear(self.tower.patch_embedding)
        rounded = quantized(exact)
        lost = (exact.weight - rounded.codes * rounded.scales).sum(axis=0)
        table: Floats = super().position_table().copy()
        table[1:] += _MID_GREY * lost
        return table

    def patch_embedding(self, patches: str, output: str) -> str:
        """The bytes of the patches are codes already."""
        unit = self.graph.constant("pixel.scale", 1.0), self.graph.constant("pixel.zero_point", np.uint8(0))
        return self._multiply(
            patches, quantized(read_linear(self.tower.patch_embedding)), unit, "patch_embedding", output
        )

    def _balanced_attention(self, norm: Norm, weights: Projections, site: str) -> tuple[Norm, Projections]:
        """Balance norm → query, key, value and value → out, and set the scales of their inputs."""
        shift = norm_bias(norm)
        x = self._observations[f"{site}.attention"].plus(-shift)
        # A constant added to all keys shifts a row of scores by a constant, which softmax ignores; one added to all
        # values passes through attention, whose rows sum to one.
        query = with_bias(weights.query, shift @ weights.query.weight)
        mixed_shift = shift @ weights.value.weight
        out = with_bias(weights.out, mixed_shift @ weights.out.weight)
        factor = balance(x, query, weights.key, weights.value)
        query, key, value = (times(part, factor[:, None]) for part in (query, weights.key, weights.value))

        mixed = self._observations[f"{site}.out"].plus(-mixed_shift)
        share = balance(mixed, out)
        self._affine |= {
            f"{site}.attention": affine(x.times(1 / factor)),
            f"{site}.out": affine(mixed.times(1 / share)),
        }
        projections = Projections(weights.heads, query, key, times(value, 1 / share), times(out, share[:, None]))
        return replace(norm, gain=norm.gain / factor, bias=None), projections

    def _balanced_mlp(self, norm: Norm, fc1: Linear, site: str) -> tuple[Norm, Linear]:
        """Balance norm → fc1 and set the scale of its input."""
        shift = norm_bias(norm)
        x = self._observations[f"{site}.fc1"].plus(-shift)
        factor = balance(x, fc1)
        self._affine[f"{site}.fc1"] = affine(x.times(1 / factor))
        fc1 = times(with_bias(fc1, shift @ fc1.weight), factor[:, None])
        return replace(norm, gain=norm.gain / factor, bias=None), fc1

    def _constants(self, site: str) -> tuple[str, str]:
        affine = self._affine[site]
        scale = self.graph.constant(f"{site}.scale", affine.scale)
        return scale, self.graph.constant(f"{site}.zero_point", affine.zero_point)

    def _multiply(self, x: str, weights: Codes, parameters: tuple[str, str], name: str, output: str) -> str:
        graph, (scale, zero_point) = self.graph, parameters
        weight = graph.constant(f"{name}.weight", weights.codes)
        inputs = [x, weight, scale, graph.constant(f"{name}.weight_scale", weights.scales), zero_point, ""]
        if weights.bias is not None:
            inputs.append(graph.constant(f"{name}.bias", weights.bias))
        return graph.node("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def balance(x: Observation, *readers: Linear) -> Floats:
    """SmoothQuant's factors for an input and the projections that read it.

    Args:
        x: The shared input of the readers.
        readers: The projections; row j of their weights is to be multiplied by factor j and channel j of the input
            divided by it.

    Returns:
        One positive factor for each channel, with geometric mean one.
    """
    largest = np.max([np.abs(reader.weight).max(axis=1) for reader in readers], axis=0)
    factor = np.maximum(x.magnitude, 1e-6) ** _EXPONENT / np.maximum(largest, 1e-6) ** (1 - _EXPONENT)
    return cast("Floats", (factor / np.exp(np.log(factor).mean())).astype(np.float32))


def affine(x: Observation) -> Affine:
    """The scale and zero point that bring ``x`` to codes."""
    low, high = min(float(x.low.min()), 0.0), max(float(x.high.max()), 0.0)
    scale = max(high - low, 1e-6) / 255
    return Affine(np.float32(scale), np.uint8(round(-low / scale)))


def quantized(linear: Linear) -> Codes:
    """Symmetric int8 weights, one scale for each output channel."""
    scales = (np.maximum(np.abs(linear.weight).max(axis=0), 1e-12) / 127).astype(np.float32)
    return Codes(np.round(linear.weight / scales).astype(np.int8), scales, linear.bias)


def norm_bias(norm: Norm) -> Floats:
    """The bias, zeros where there is none."""
    return np.zeros_like(norm.gain) if norm.bias is None else norm.bias


def times(linear: Linear, factor: NDArray[Any]) -> Linear:
    """The projection with its weight multiplied by ``factor``, which broadcasts."""
    return replace(linear, weight=linear.weight * factor)


def with_bias(linear: Linear, extra: NDArray[Any]) -> Linear:
    """The projection with ``extra`` added to its bias."""
    return replace(linear, bias=bias_of(linear) + extra)


def _joined(parts: Sequence[Observation]) -> Observation:
    return Observation(
        np.min([part.low for part in parts], axis=0),
        np.max([part.high for part in parts], axis=0),
    )
