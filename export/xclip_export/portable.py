"""Parts of builders: all frames of a layer together, and operators of the ONNX standard only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_export.cpu import VisionGraph
from xclip_export.towers import SLOPE

if TYPE_CHECKING:
    from collections.abc import Sequence


class FlatGraph(VisionGraph):
    """Part of a builder that runs all frames of a layer together, without a loop."""

    def layer(self, index: int, x: str) -> str:
        """Run one vision layer on rows (K·(1 + P), d)."""
        site = f"layers.{index}"
        message = self.graph.reshape(self.layer_messages(index, x), [-1, 1, self.dim], f"{site}.messages")
        return self.layer_group(self.block(index), site, x, message)


class PortableGraph(VisionGraph):
    """Part of a builder that takes operators of the ONNX standard, and the weights of the traced portable graph."""

    slope = 1.0

    def gelu(self, hidden: str, output: str) -> str:
        """Apply QuickGELU, with the rest of its slope."""
        steep = hidden
        if self.slope != SLOPE:
            rest = self.graph.constant("slope", SLOPE / self.slope)
            steep = self.graph.node("Mul", [hidden, rest], f"{output}.steep")
        return self.graph.node("Mul", [hidden, self.graph.node("Sigmoid", [steep], f"{output}.gate")], output)

    def mix(self, parts: Sequence[str], heads: int, site: str, output: str) -> str:
        """Compute softmax(q·kᵀ)·v by products of matrices."""
        graph, split = self.graph, []
        for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
            # The last dimension is inferred: heads divide it.
            by_head = graph.reshape(part, [0, 0, heads, -1], f"{part}.by_head")
            split.append(graph.node("Transpose", [by_head], f"{part}.heads", perm=perm))
        query, key, value = split
        scores = graph.node("MatMul", [query, key], f"{output}.scores")
        shares = self.activation(graph.node("Softmax", [scores], f"{output}.shares", axis=-1), f"{site}.shares")
        mixed = graph.node("MatMul", [shares, value], f"{output}.heads")
        mixed = graph.node("Transpose", [mixed], f"{output}.tokens", perm=[0, 2, 1, 3])
        return graph.reshape(mixed, [0, 0, -1], output)

    def patch_rows(self, patches: str) -> str:
        """Project the bytes of the patches; TensorRT and CUDA cannot pad bytes."""
        pads = self.graph.constant("embed.pads", [0, 1, 0, 0, 0, 0])
        return self.graph.node("Pad", [self.patch_embedding(patches, "embed.patches"), pads], "embed.projected")
