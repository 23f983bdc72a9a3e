"""Vision graph for ONNX Runtime's CUDA execution provider, fp16 where that is safe.

The graph computes the function of `xclip_export.towers.VisionTower`. Every node has a CUDA kernel for its types,
nothing is computed from shapes (ONNX Runtime would place that on the CPU), and no tensor crosses between host and
device.

- ``SkipLayerNormalization`` adds bias and residual and normalises in one pass over memory, since memory is the
  bottleneck: at the fp16 peak the arithmetic of a clip takes less time than moving its activations in fp32 would.
- ``MultiHeadAttention`` takes query, key and value as separate inputs. Keys outnumber queries by the message token, so
  they cannot be packed; flash attention reads this layout in place if it has no bias.
- The provider's ``Gemm`` writes the bias and then adds the product to it, a pass over memory more than cuDNN's
  convolution with ``fuse_conv_bias`` takes. So products of all tokens that have a bias are 1x1 ``Conv``, between two
  Transposes that ``prefer_nhwc`` cancels, and the query bias is folded into the norm in front where fp16 allows.
- fp32: the statistics of LayerNorm, softmax and the sums of every product (inside the kernels); the sum over frames,
  the multi-frame integration transformer and all final projections (in the graph).
- Pixels enter centred, and patch embedding and position table are scaled by a power of two that LayerNorm cancels:
  weights divided by 255 would otherwise reach fp16's subnormal numbers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import TensorProto

from xclip_export.cpu import VisionGraph
from xclip_export.graph import MICROSOFT
from xclip_export.weights import (
    MID_GREY,
    Linear,
    Norm,
    Projections,
    array,
    bias_of,
    fold_query_bias,
    matrix,
    read_norm,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    from xclip_export.towers import ConstantMessage, VisionTower
    from xclip_export.weights import Block, Messenger

    Floats = NDArray[np.float32]


def fp16_vision_model(tower: VisionTower) -> ModelProto:
    """Build the graph.

    Args:
        tower: The tower to build.

    Returns:
        A model with input pixel_values uint8 (batch_size, T, H, W, 3) and outputs video_embeds float32
        (batch_size, D) and img_features float32 (batch_size, P, D). The output of layer i is the tensor
        ``layers.{i}.output``, rows (batch_size · T · (1 + P), d) in fp16.
    """
    return HalfVisionGraph(tower).build()


class HalfVisionGraph(VisionGraph):
    """Builder of the vision graph with its encoder in fp16; all frames go through a layer together.

    Args:
        tower: The tower to build.
    """

    def __init__(self, tower: VisionTower) -> None:
        super().__init__(tower, tower.num_frames)
        self._dtype: type[np.float16 | np.float32] = np.float16

    def build(self) -> ModelProto:
        """Build the model."""
        x, normed = self.encode()
        cls = self.as_float(self.clips(self.cls_rows(x, "cls")), "cls.float")
        self._dtype = np.float32
        self.video_embeds(cls)
        frames = self.graph.reshape(normed, [-1, self.frames, 1 + self.patches, self.dim], "features.frames")
        axis = self.graph.constant("index.1", [1])
        frames = self.as_float(frames, "features.float")
        self.project_features(self.graph.node("ReduceSum", [frames, axis], "features", keepdims=0))
        return self.graph.model()

    def encode(self) -> tuple[str, str]:
        """Run all vision layers; return rows (B·T·(1 + P), d), plain and normed for the prompts."""
        blocks = [self.block(index) for index in range(len(self.tower.layers))]
        last = Norm(np.ones(self.dim, np.float32), None, self.tower.prompts_norm.eps)
        following = [(block.norm1, f"layers.{i}.norm1") for i, block in enumerate(blocks)][1:]
        x = self.rows(self.tokens(), "embed.rows")
        normed = self.norm(x, blocks[0].norm1, "layers.0.norm1", "layers.0.norm1")
        for index, (block, (norm, site)) in enumerate(zip(blocks, [*following, (last, "prompts_norm")], strict=True)):
            x, normed = self.encoder_layer(index, block, x, normed, norm=norm, site=site)
        return x, normed

    def block(self, index: int) -> Block:
        """Read the weights of a vision layer, its query bias folded."""
        block = super().block(index)
        norm, attention = fold_query_bias(block.norm1, block.attention)
        return replace(block, norm1=norm, attention=attention)

    def messenger(self, index: int) -> Messenger:
        """Read the weights of a layer's message tokens, their query bias folded."""
        messenger = super().messenger(index)
        norm, attention = fold_query_bias(messenger.norm, messenger.attention)
        return replace(messenger, norm=norm, attention=attention)

    def pixels(self) -> str:
        """Declare the input, uint8 (B, T, H, W, 3)."""
        size = self.tower.grid * self.tower.patch_size
        return self.graph.input("pixel_values", np.uint8, ["batch_size", self.frames, size, size, 3])

    def tokens(self) -> str:
        """Embed uint8 frames as the tokens of layer 0, fp16 (B·T, 1 + P, d)."""
        graph, tower, grid, patch = self.graph, self.tower, self.tower.grid, self.tower.patch_size
        pixels = self.pixels()
        x = graph.reshape(pixels, [-1, grid, patch, grid, patch * 3], "patches")
        x = graph.node("Transpose", [x], "patches.transposed", perm=[0, 1, 3, 2, 4])
        x = graph.reshape(x, [-1, self.patches, patch * patch * 3], "patches.flat")
        x = graph.node("Cast", [x], "patches.half", to=TensorProto.FLOAT16)
        x = graph.node("Sub", [x, graph.constant("mid_grey", np.float16(MID_GREY))], "patches.centred")

        weight = matrix(tower.patch_embedding.weight)
        table = array(tower.position_table).copy()
        table[1:] += MID_GREY * weight.sum(axis=0, dtype=np.float64).astype(np.float32)
        # A largest weight of about 1/8 is as far from subnormal weights as from overflowing sums.
        scale = np.float32(2.0 ** math.floor(-3 - math.log2(float(np.abs(weight).max()))))
        x = graph.node("MatMul", [x, self.weight("patch_embedding.weight", weight * scale)], "embed.projected")
        # CUDA has no Pad kernel for uint8, so the row of the class token is added after the projection.
        x = graph.node("Pad", [x, graph.constant("embed.pads", [0, 1, 0, 0, 0, 0])], "embed.padded")
        x = graph.node("Add", [x, self.weight("position_table", table * scale)], "embed.positioned")
        norm = read_norm(tower.pre_layernorm)
        norm = replace(norm, epsilon=norm.epsilon * float(scale) ** 2)
        return self.norm(x, norm, "pre_layernorm", "embed.output")

    def encoder_layer(self, index: int, block: Block, x: str, normed: str, *, norm: Norm, site: str) -> tuple[str, str]:
        """Run one vision layer.

        Args:
            index: Number of the layer.
            block: Weights of the layer.
            x: Input rows (B·T·(1 + P), d).
            normed: Input rows after the layer's first norm.
            norm: Norm of the output: the next layer's first norm, or the norm of the prompt features.
            site: Prefix of the names of that norm's weights.

        Returns:
            Output rows, and output rows after ``norm``.
        """
        graph, name, tokens, dim = self.graph, f"layers.{index}", 1 + self.patches, self.dim
        message = self.message(index, block, x)
        normed = graph.reshape(normed, [-1, tokens, dim], f"{name}.normed")
        context = self.rows(graph.node("Concat", [normed, message], f"{name}.context", axis=1), f"{name}.keys")
        mixed = self.attention(
            self.rows(normed, f"{name}.queries"),
            context,
            (tokens, tokens + 1),
            without_out_bias(block.attention),
            site=name,
            prefix=name,
        )
        x, normed = self.skip_norm(
            mixed, x, block.attention.out, block.norm2, site=f"{name}.norm2", output=f"{name}.attended"
        )
        hidden = self.linear(normed, block.fc1, f"{name}.fc1", f"{name}.fc1", f"{name}.fc1")
        hidden = self.gelu(hidden, f"{name}.silu")
        hidden = self.project(hidden, replace(block.fc2, bias=None), f"{name}.fc2", f"{name}.fc2")
        return self.skip_norm(hidden, x, block.fc2, norm, site=site, output=f"{name}.output")

    def message(self, index: int, block: Block, x: str) -> str:
        """Compute the message tokens of a layer after its first norm, (B·T, 1, d)."""
        graph, site, norm = self.graph, f"layers.{index}.message", f"layers.{index}.norm1"
        cls = self.cls_rows(x, f"{site}.cls")
        if index == 0:
            shift = array(cast("ConstantMessage", self.tower.layers[0].message).shift)
            told = graph.node("Add", [cls, self.weight(f"{site}.shift", shift)], f"{site}.told")
            normed = self.norm(told, block.norm1, norm, f"{site}.normed")
        else:
            weights = self.messenger(index)
            base, inner = self.message_rows(weights, site, cls, site)
            keys, lengths = self.message_keys(weights, site, cls, inner)
            projections = without_out_bias(weights.attention)
            mixed = self.attention(inner, keys, lengths, projections, site=site, prefix=site)
            _, normed = self.skip_norm(
                mixed, base, weights.attention.out, block.norm1, site=norm, output=f"{site}.told"
            )
        return graph.reshape(normed, [-1, 1, self.dim], f"{site}.tokens")

    def skip_norm(self, x: str, skip: str, linear: Linear, norm: Norm, *, site: str, output: str) -> tuple[str, str]:
        """Add the bias of ``linear`` and the residual ``skip`` to the rows ``x``; return the sum, plain and normed."""
        graph = self.graph
        inputs = [x, skip, self.weight(f"{site}.gain", norm.gain)]
        inputs.append("" if norm.bias is None else self.weight(f"{site}.bias", norm.bias))
        inputs.append(self.weight(f"{output}.bias", bias_of(linear)))
        outputs = [f"{output}.normed", "", "", output]
        graph.nodes("SkipLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=norm.epsilon)
        return output, outputs[0]

    def as_float(self, x: str, output: str) -> str:
        """Cast ``x`` to fp32."""
        return self.graph.node("Cast", [x], output, to=TensorProto.FLOAT)

    def weight(self, name: str, value: Floats) -> str:
        """Store a parameter in the precision of the current part."""
        return self.graph.constant(name, value.astype(self._dtype))

    def project(self, x: str, weights: Linear, site: str, output: str) -> str:
        """Project rows (rows, in) in the precision of the current part."""
        inputs = [x, self.weight(f"{site}.weight", weights.weight)]
        if weights.bias is None:
            return self.graph.node("MatMul", inputs, output)
        return self.graph.node("Gemm", [*inputs, self.weight(f"{site}.bias", weights.bias)], output)

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:
        """Project rows, those of all tokens with a bias as a convolution; messages are too few for it to matter."""
        half, message = self._dtype == np.float16, ".message." in site
        if weights.bias is None or message or not half:
            return self.project(x, weights, name, output)
        return self.convolve(x, weights, name, output)

    def convolve(self, x: str, weights: Linear, site: str, output: str) -> str:
        """Project the rows (B·T·(1 + P), in) of all tokens as a 1x1 convolution with a bias."""
        graph, (size, channels) = self.graph, weights.weight.shape
        x = graph.reshape(x, [-1, 1 + self.patches, 1, size], f"{output}.frames")
        x = graph.node("Transpose", [x], f"{output}.channels_first", perm=[0, 3, 1, 2])
        kernel = self.weight(f"{site}.kernel", weights.weight.T.reshape(channels, size, 1, 1))
        x = graph.node("Conv", [x, kernel, self.weight(f"{site}.bias", bias_of(weights))], f"{output}.convolved")
        x = graph.node("Transpose", [x], f"{output}.channels_last", perm=[0, 2, 3, 1])
        return graph.reshape(x, [-1, channels], output)

    def norm(self, x: str, norm: Norm, site: str, output: str) -> str:
        """Apply LayerNorm over the last axis, with statistics in fp32."""
        inputs = [x, self.weight(f"{site}.gain", norm.gain)]
        if norm.bias is not None:
            inputs.append(self.weight(f"{site}.bias", norm.bias))
        return self.graph.node(
            "LayerNormalization", inputs, output, axis=-1, epsilon=norm.epsilon, stash_type=TensorProto.FLOAT
        )


def without_out_bias(weights: Projections) -> Projections:
    """Drop the bias of the output projection, which the norm behind it adds."""
    return replace(weights, out=replace(weights.out, bias=None))
