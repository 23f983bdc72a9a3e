"""Vision graph in int8 for every engine: QuantizeLinear and DequantizeLinear around operators of the ONNX standard.

The same arithmetic as `xclip_export.int8`, whose scales, balancing and weights it takes, written as engines expect it
that bring int8 kernels of their own: OpenVINO runs a product between two DequantizeLinear in int8. Every projection of
the vision layers and both products of their attention are such products; ONNX Runtime computes the same codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xclip_export.int8 import Affine, Int8VisionGraph, quantized
from xclip_export.portable import FlatGraph, PortableGraph
from xclip_export.towers import SLOPE
from xclip_export.weights import read_linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from xclip_export.calibration import Observation
    from xclip_export.cpu import Sequences
    from xclip_export.int8 import Codes
    from xclip_export.towers import VisionTower
    from xclip_export.weights import Block, Linear, Projections


class QdqVisionGraph(PortableGraph, FlatGraph, Int8VisionGraph):
    """Builder of the portable vision graph in int8.

    Args:
        tower: The tower to build.
        observations: Ranges, from `xclip_export.calibration.observe`.
    """

    slope = SLOPE

    def __init__(self, tower: VisionTower, observations: Mapping[str, Observation]) -> None:
        super().__init__(tower, observations)
        self._affine["pixels"] = Affine(np.float32(1), np.uint8(0))

    def build(self) -> ModelProto:
        """Build the model."""
        size = self.tower.grid * self.tower.patch_size
        x = self.embed_group(self.graph.input("pixel_values", np.uint8, ["batch_size", self.frames, size, size, 3]))
        for index in range(len(self.tower.layers)):
            x = self.layer(index, x)
        self.video_embeds(self.clips(self.cls_rows(x, "cls")))
        frames = self.graph.reshape(
            self.prompts_norm(x), [-1, self.frames, 1 + self.patches, self.dim], "features.frames"
        )
        axis = self.graph.constant("index.1", [1])
        self.project_features(self.graph.node("ReduceSum", [frames, axis], "features", keepdims=0))
        return self.graph.model()

    def block(self, index: int) -> Block:
        """Read and balance the weights of vision layer ``index``."""
        block = super().block(index)
        site = f"layers.{index}"
        self._affine |= {
            # OpenVINO multiplies two activations in int8 only where neither has a zero point.
            f"{site}.query": without_zero_point(self._affine[f"{site}.query"]),
            # Cannot saturate: a probability is at most 1.
            f"{site}.shares": Affine(np.float32(1 / 255), np.uint8(0)),
        }
        return block

    def activation(self, x: str, site: str) -> str:
        """Round ``x`` to the codes of ``site``, if it has a scale."""
        if site not in self._affine:
            return x
        codes = super().activation(x, site)
        return self.graph.node("DequantizeLinear", [codes, *self._constants(site)], f"{x}.rounded")

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
        """Run an attention; its products are those of the portable graph."""
        return super(Int8VisionGraph, self).attention(queries, keys, tokens, weights, site=site, prefix=prefix)

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:
        """Multiply rows rounded to codes by rounded weights."""
        if site not in self._affine:
            return self.project(x, weights, name, output)
        return self._product(x, quantized(weights), name, output)

    def patch_embedding(self, patches: str, output: str) -> str:
        """Project the bytes of the patches, which are codes already."""
        # Cast first, since TensorRT allows uint8 only as a graph input.
        pixels = self.activation(self.graph.node("Cast", [patches], f"{output}.bytes", to=1), "pixels")
        return self._product(pixels, quantized(read_linear(self.tower.patch_embedding)), "patch_embedding", output)

    def _product(self, x: str, weights: Codes, name: str, output: str) -> str:
        graph = self.graph
        codes, scales = (
            graph.constant(f"{name}.weight", weights.codes),
            graph.constant(f"{name}.weight_scale", weights.scales),
        )
        weight = graph.node("DequantizeLinear", [codes, scales], f"{name}.weight.rounded", axis=1)
        if weights.bias is None:
            return graph.node("MatMul", [x, weight], output)
        product = graph.node("MatMul", [x, weight], f"{output}.product")
        return graph.node("Add", [product, graph.constant(f"{name}.bias", weights.bias)], output)


def without_zero_point(asymmetric: Affine) -> Affine:
    """Choose int8 codes without a zero point that cover the range of uint8 codes with one."""
    zero = int(asymmetric.zero_point)
    return Affine(np.float32(asymmetric.scale * max(zero, 255 - zero) / 127), np.int8(0))
