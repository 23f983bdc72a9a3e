"""Vision graph in int8, for CPUs with VNNI.

Every large projection and both products of attention multiply uint8 by int8 codes; LayerNorm, softmax, SiLU, the
residual stream, the products of the message attention and the multi-frame integration transformer stay in fp32.

- Weights: symmetric, one scale for each output channel, chosen so that no CPU saturates (`quantized`).
- Activations: one static scale and zero point for each site, from calibration clips. Static scales keep a clip's result
  independent of the rest of its batch, and save the pass that finds a range at run time.
- Pixels are bytes already, and enter the patch embedding with scale 1. The rounding of its weights shifts a mid-grey
  frame by a constant, which the position table compensates.
- Probabilities have the scale 1/255, which cannot saturate. Keys and values are centred, which softmax and its sum of
  one allow, and channel j of queries and of keys is scaled to equal magnitude.
- Balancing, exact in real arithmetic (SmoothQuant, arXiv 2211.10438): channel j of a LayerNorm is divided by
  s_j = max|x_j|^a / max|w_j|^(1-a) and row j of the weights that read it multiplied by s_j, so that outlier channels do
  not set the scale of all others; the same between the value and the output projection.
- The bias of a LayerNorm moves into the biases of the projections that read it, which centres their inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xclip_export.calibration import calibration_clips, observe
from xclip_export.cpu import Sequences, VisionGraph
from xclip_export.graph import MICROSOFT
from xclip_export.weights import MID_GREY, Block, Linear, Messenger, Norm, Projections, bias_of, read_linear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from xclip_export.calibration import Observation
    from xclip_export.towers import VisionTower

    Floats = NDArray[np.float32]

_EXPONENT = 0.5
_PARTS = ("query", "key", "value")

# Instructions without VNNI add the products of two neighbouring codes in 16 bits, and saturate. 255·2·64 fits; two
# probabilities are at most 256 together, so that values may use all their bits.
_LARGEST_SUM = np.iinfo(np.int16).max // 255
_KEY_CODES = _LARGEST_SUM // 2 - 1
_VALUE_CODES = 127


@dataclass(frozen=True)
class Affine:
    """Affine quantisation x = scale·(code - zero_point); codes have the type of the zero point."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


@dataclass(frozen=True)
class Codes:
    """Projection with int8 weights: ``codes`` (in, out) times ``scales`` (out,), and its fp32 bias."""

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
        tower: The tower to build.
        calibration: Clips, uint8 RGB (T, H, W, 3), that set the activation scales; None takes
            `calibration_clips`.
        frames_per_group: As in `xclip_export.cpu.fused_vision_model`.
        seed: Seed of the default clips.

    Returns:
        A model with the inputs, outputs and layer names of the fp32 graph.
    """
    size = tower.grid * tower.patch_size
    clips = calibration_clips(tower.num_frames, size, seed) if calibration is None else calibration
    return Int8VisionGraph(tower, observe(tower, clips), frames_per_group).build()


class Int8VisionGraph(VisionGraph):
    """Builder of the vision graph with its large projections in int8.

    Args:
        tower: The tower to build.
        observations: Ranges, from `observe`.
        frames_per_group: As in `xclip_export.cpu.fused_vision_model`.
    """

    def __init__(
        self, tower: VisionTower, observations: Mapping[str, Observation], frames_per_group: int | None = None
    ) -> None:
        super().__init__(tower, frames_per_group)
        self._observations = observations
        self._affine: dict[str, Affine] = {}

    def block(self, index: int) -> Block:
        """Read and balance the weights of vision layer ``index``."""
        block, site = super().block(index), f"layers.{index}"
        norm1, attention = self._balanced_attention(block.norm1, block.attention, site, products=True)
        norm2, fc1 = self._balanced_mlp(block.norm2, block.fc1, site)
        # The graph's hidden activations carry the folded slope of QuickGELU; the tower's do not.
        self._affine[f"{site}.fc2"] = affine(self._observations[f"{site}.fc2"].times(np.float32(self.slope)))
        return replace(block, norm1=norm1, attention=attention, norm2=norm2, fc1=fc1)

    def messenger(self, index: int) -> Messenger:
        """Read and balance the weights of the message tokens of vision layer ``index``; ``fc`` stays in fp32."""
        messenger = super().messenger(index)
        site = f"layers.{index}.message"
        norm, attention = self._balanced_attention(messenger.norm, messenger.attention, site, products=False)
        return replace(messenger, norm=norm, attention=attention)

    def activation(self, x: str, site: str) -> str:
        """Quantise ``x`` with the static scale of ``site``, if it has one."""
        if site not in self._affine:
            return super().activation(x, site)
        return self.graph.node("QuantizeLinear", [x, *self._constants(site)], f"{x}.codes")

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:
        """Multiply uint8 rows by int8 weights, to fp32."""
        if site not in self._affine:
            return super().linear(x, weights, site, name, output)
        return self._multiply(x, quantized(weights), self._constants(site), name, output)

    def attention(
        self,
        queries: str,
        keys: str,
        tokens: tuple[int, int] | Sequences,
        weights: Projections,
        *,
        site: str,
        prefix: str,
    ) -> str:
        """Run an attention with both products of softmax(q·kᵀ)·v in int8 if the queries of ``site`` have a scale."""
        if isinstance(tokens, Sequences) or f"{site}.query" not in self._affine:
            return super().attention(queries, keys, tokens, weights, site=site, prefix=prefix)
        graph, dim = self.graph, weights.query.weight.shape[0]
        split = [weights.heads, dim // weights.heads]
        query = self._multiply_to_codes(queries, weights.query, site, "query", f"{prefix}.query.codes")
        query = graph.reshape(query, [-1, tokens[0], *split], f"{prefix}.query")
        query = graph.node("Transpose", [query], f"{prefix}.query.heads", perm=[0, 2, 1, 3])
        parts = []
        for part, linear, perm in (("key", weights.key, [0, 2, 3, 1]), ("value", weights.value, [0, 2, 1, 3])):
            rows = self.linear(keys, linear, f"{site}.attention", f"{site}.{part}", f"{prefix}.{part}.rows")
            codes = self.activation(rows, f"{site}.{part}")
            codes = graph.reshape(codes, [-1, tokens[1], *split], f"{prefix}.{part}")
            parts.append(graph.node("Transpose", [codes], f"{prefix}.{part}.heads", perm=perm))
        key, value = parts
        (q_scale, q_zero), (k_scale, _) = self._constants(f"{site}.query"), self._constants(f"{site}.key")
        scores = graph.node(
            "MatMulIntegerToFloat", [query, key, q_scale, k_scale, q_zero], f"{prefix}.scores", domain=MICROSOFT
        )
        probabilities = graph.node("Softmax", [scores], f"{prefix}.probabilities", axis=-1)
        share = graph.constant("probability.scale", np.float32(1 / 255)), graph.constant("code.zero", np.uint8(0))
        codes = graph.node("QuantizeLinear", [probabilities, *share], f"{prefix}.probabilities.codes")
        value_constants, out_constants = self._constants(f"{site}.value"), self._constants(f"{site}.out")
        mixed = graph.node("QLinearMatMul", [codes, *share, value, *value_constants, *out_constants], f"{prefix}.heads")
        mixed = graph.node("Transpose", [mixed], f"{prefix}.mixed", perm=[0, 2, 1, 3])
        mixed = graph.reshape(mixed, [-1, dim], f"{prefix}.mixed.rows")
        return self.linear(mixed, weights.out, f"{site}.out", f"{site}.out", f"{prefix}.out")

    def position_table(self) -> Floats:
        """Return the table, compensated for the rounding of the patch embedding on mid-grey pixels."""
        exact = read_linear(self.tower.patch_embedding)
        rounded = quantized(exact)
        lost = (exact.weight - rounded.codes * rounded.scales).sum(axis=0)
        table: Floats = super().position_table().copy()
        table[1:] += MID_GREY * lost
        return table

    def patch_embedding(self, patches: str, output: str) -> str:
        """Project the bytes of the patches, which are codes already."""
        unit = self.graph.constant("pixel.scale", 1.0), self.graph.constant("pixel.zero_point", np.uint8(0))
        return self._multiply(
            patches, quantized(read_linear(self.tower.patch_embedding)), unit, "patch_embedding", output
        )

    def _balanced_attention(
        self, norm: Norm, weights: Projections, site: str, *, products: bool
    ) -> tuple[Norm, Projections]:
        """Balance norm → query, key, value; query → key; value → out, and set the scales of the inputs.

        With ``products``, the operands of q·kᵀ and softmax·v are quantised too.
        """
        shift = norm_bias(norm)
        x = self._observations[f"{site}.attention"].plus(-shift)
        query_range, key_range, value_range = (self._observations[f"{site}.{part}"] for part in _PARTS)
        # A constant added to all keys shifts a row of scores by a constant, which softmax ignores; one added to all
        # values passes through attention, whose rows sum to one.
        query = with_bias(weights.query, shift @ weights.query.weight)
        key = with_bias(weights.key, shift @ weights.key.weight - key_range.middle)
        value = with_bias(weights.value, shift @ weights.value.weight - value_range.middle)
        out = with_bias(weights.out, value_range.middle @ weights.out.weight)
        key_range, value_range = key_range.plus(-key_range.middle), value_range.plus(-value_range.middle)
        mixed = self._observations[f"{site}.out"].plus(-self._observations[f"{site}.value"].middle)

        # Row j of the weights that read channel j of the norm, which is divided by it.
        factor = balance(x, query, key, value)
        query, key, value = (scaled_rows(part, factor) for part in (query, key, value))
        # Queries and keys meet in a product of their own: make channel j of both equally large.
        share = np.sqrt(np.maximum(query_range.magnitude, 1e-6) / np.maximum(key_range.magnitude, 1e-6))
        query, key = scaled_columns(query, 1 / share), scaled_columns(key, share)
        spread = balance(mixed, out)
        value, out = scaled_columns(value, 1 / spread), scaled_rows(out, spread)

        self._affine |= {
            f"{site}.attention": affine(x.times(1 / factor)),
            f"{site}.out": affine(mixed.times(1 / spread)),
        }
        if products:
            self._affine |= {
                f"{site}.query": affine(query_range.times(1 / share)),
                f"{site}.key": symmetric(key_range.times(share), _KEY_CODES),
                f"{site}.value": symmetric(value_range.times(1 / spread), _VALUE_CODES),
            }
        return replace(norm, gain=norm.gain / factor, bias=None), Projections(weights.heads, query, key, value, out)

    def _balanced_mlp(self, norm: Norm, fc1: Linear, site: str) -> tuple[Norm, Linear]:
        """Balance norm → fc1 and set the scale of its input."""
        shift = norm_bias(norm)
        x = self._observations[f"{site}.fc1"].plus(-shift)
        factor = balance(x, fc1)
        self._affine[f"{site}.fc1"] = affine(x.times(1 / factor))
        fc1 = scaled_rows(with_bias(fc1, shift @ fc1.weight), factor)
        return replace(norm, gain=norm.gain / factor, bias=None), fc1

    def _constants(self, site: str) -> tuple[str, str]:
        affine = self._affine[site]
        scale = self.graph.constant(f"{site}.scale", affine.scale)
        return scale, self.graph.constant(f"{site}.zero_point", affine.zero_point)

    def _multiply_to_codes(self, x: str, linear: Linear, site: str, part: str, output: str) -> str:
        """Project the codes of the attention's input to codes, without fp32 in between."""
        graph, name, weights = self.graph, f"{site}.{part}", quantized(linear)
        scale, zero_point = self._constants(f"{site}.attention")
        step = self._affine[f"{site}.attention"].scale * weights.scales
        return graph.node(
            "QGemm",
            [
                x,
                scale,
                zero_point,
                graph.constant(f"{name}.weight", weights.codes),
                graph.constant(f"{name}.weight_scale", weights.scales),
                graph.constant("weight.zero_point", np.zeros(weights.scales.shape, np.int8)),
                graph.constant(f"{name}.bias", np.round(bias_of(linear) / step).astype(np.int32)),
                *self._constants(name),
            ],
            output,
            domain=MICROSOFT,
        )

    def _multiply(self, x: str, weights: Codes, parameters: tuple[str, str], name: str, output: str) -> str:
        graph, (scale, zero_point) = self.graph, parameters
        weight = graph.constant(f"{name}.weight", weights.codes)
        inputs = [x, weight, scale, graph.constant(f"{name}.weight_scale", weights.scales), zero_point, ""]
        if weights.bias is not None:
            inputs.append(graph.constant(f"{name}.bias", weights.bias))
        return graph.node("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def balance(x: Observation, *readers: Linear) -> Floats:
    """Compute SmoothQuant's factors (arXiv 2211.10438) for an input and the projections that read it.

    Args:
        x: Range of the input.
        readers: The projections; factor j multiplies row j of their weights and divides channel j of the input.

    Returns:
        One positive factor for each channel, with geometric mean one.
    """
    largest = np.max([np.abs(reader.weight).max(axis=1) for reader in readers], axis=0)
    factor = np.maximum(x.magnitude, 1e-6) ** _EXPONENT / np.maximum(largest, 1e-6) ** (1 - _EXPONENT)
    return cast("Floats", (factor / np.exp(np.log(factor).mean())).astype(np.float32))


def affine(x: Observation) -> Affine:
    """Choose scale and zero point of uint8 codes for a range."""
    low, high = min(float(x.low.min()), 0.0), max(float(x.high.max()), 0.0)
    scale = max(high - low, 1e-6) / 255
    return Affine(np.float32(scale), np.uint8(round(-low / scale)))


def symmetric(x: Observation, codes: int) -> Affine:
    """Choose the scale of int8 codes from -``codes`` to ``codes`` for a range."""
    return Affine(np.float32(max(float(x.magnitude.max()), 1e-6) / codes), np.int8(0))


def quantized(linear: Linear) -> Codes:
    """Quantise weights to symmetric int8, with one scale for each output channel, so that no CPU saturates.

    Instructions without VNNI add the products of rows 2i and 2i + 1 with two uint8 codes in 16 bits. The scale leaves
    every such sum within them: w(2i) + w(2i + 1) is at most 128 in codes, so at most 255·128 with activations.
    """
    weight = linear.weight
    pairs = np.pad(weight, ((0, weight.shape[0] % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    # Opposite signs cancel; a product with the activation's zero takes one of them away.
    same_sign = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)).max(axis=0)
    # Both are rounded, so their sum may grow by one.
    scales = np.maximum(np.abs(weight).max(axis=0) / 127, same_sign / (_LARGEST_SUM - 0.5))
    scales = np.maximum(scales, 1e-14).astype(np.float32)
    return Codes(np.round(weight / scales).astype(np.int8), scales, linear.bias)


def norm_bias(norm: Norm) -> Floats:
    """Return the bias, or zeros if the norm has none."""
    return np.zeros_like(norm.gain) if norm.bias is None else norm.bias


def scaled_rows(linear: Linear, factor: NDArray[Any]) -> Linear:
    """Scale the rows of a projection by ``factor`` (in,), for an input divided by it."""
    return replace(linear, weight=linear.weight * factor[:, None])


def scaled_columns(linear: Linear, factor: NDArray[Any]) -> Linear:
    """Scale the output of a projection by ``factor`` (out,)."""
    return Linear(linear.weight * factor, None if linear.bias is None else linear.bias * factor)


def with_bias(linear: Linear, extra: NDArray[Any]) -> Linear:
    """Add ``extra`` to the bias of a projection."""
    return replace(linear, bias=bias_of(linear) + extra)
