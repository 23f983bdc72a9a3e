"""Graphs for streams: what new frames add to a window whose other frames are cached.

Frames see each other only through one message token a layer, computed from the class tokens of all frames. Here a frame
keeps the class tokens that it had when it was new, so that a window costs its new frames and the head. That is an
approximation, except where all frames are new: see docs/streaming.md.

The stream graph runs K new frames beside the T - K cached ones of their stream, or those of several streams together.
The head graph makes of T frames what the prompt graph takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from xclip_export.cpu import Sequences, VisionGraph
from xclip_export.fp16 import HalfVisionGraph
from xclip_export.int8 import Int8VisionGraph
from xclip_export.portable import FlatGraph, PortableGraph
from xclip_export.qdq import QdqVisionGraph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from xclip_export.calibration import Observation
    from xclip_export.towers import VisionTower
    from xclip_export.weights import Messenger
    from xclip_runtime.bundle import Precision, Target

NEW, CACHED = "new_frames", "cached_frames"


def stream_model(
    tower: VisionTower, precision: Precision, target: Target, observations: Mapping[str, Observation]
) -> ModelProto:
    """Build the stream graph of a precision and target.

    Args:
        tower: The tower to build.
        precision: As that of the vision graph.
        target: "any" takes operators of the ONNX standard only; fp32 and int8.
        observations: Those of the int8 vision graph, whose scales it takes; other precisions need none.

    Returns:
        A model with inputs pixel_values uint8 (K, H, W, 3) and cached_tokens float32 (L - 1, C, d) for L layers, and
        the rows of S streams: key_rows int64 (S, T), those of its frames in any order among the cached and then the new
        ones; query_rows int64 (S, N), those of its new frames among the new ones, the last repeated up to the N of the
        stream with most; answer_rows int64 (K,), the place of each new frame in the flattened query_rows. Its outputs
        are class_tokens float32 (L - 1, K, d), to be cached, frame_embeds float32 (K, D) and patch_features float32
        (K, P, D), for the head graph. `xclip_runtime.inference.cached_frames.stream_feeds` makes the inputs.
    """
    if precision == "fp16":
        return HalfStreamGraph(tower).build()
    if precision == "int8":
        return (QdqStreamGraph if target == "any" else Int8StreamGraph)(tower, observations).build()
    return PortableStreamGraph(tower).build() if target == "any" else StreamGraph(tower).build()


def head_model(tower: VisionTower) -> ModelProto:
    """Build the head graph, of standard operators and for every precision.

    Returns:
        A model with inputs frame_embeds float32 (B, T, D), in order, and patch_features float32 (B, T, P, D), in any
        order; and outputs video_embeds float32 (B, D) and img_features float32 (B, P, D).
    """
    return HeadGraph(tower).build()


class CachedMessages(VisionGraph):
    """Part of a builder whose message tokens also hear the cached frames."""

    def declare(self) -> str:
        """Declare the inputs; return the new frames."""
        graph, size = self.graph, self.tower.grid * self.tower.patch_size
        frames = graph.input("pixel_values", np.uint8, [NEW, size, size, 3])
        self.cached = graph.input("cached_tokens", np.float32, [len(self.tower.layers) - 1, CACHED, self.dim])
        self.tokens_of: list[str] = []
        # Sequences, since the masked parts of one are not computed by the kernel of the exact graph: in int8 its other
        # rounding would move logits by 0.01.
        self.rows_of = Sequences(
            graph.input("query_rows", np.int64, ["streams", "longest"]),
            graph.input("key_rows", np.int64, ["streams", self.frames]),
            graph.input("answer_rows", np.int64, [NEW]),
        )
        return frames

    def message_keys(self, messenger: Messenger, site: str, cls: str, normed: str) -> tuple[str, Sequences]:  # noqa: ARG002 - the queries
        """Let the new frames' messages attend to the class tokens of all frames of their stream."""
        layer = len(self.tokens_of)
        self.tokens_of.append(cls)
        index = self.graph.constant(f"layer.{layer}", np.int64(layer))
        cached = self.graph.node("Gather", [self.cached, index], f"{site}.cached", axis=0)
        everyone = self.graph.node("Concat", [self.as_computed(cached, site), cls], f"{site}.everyone", axis=0)
        _, keys = self.message_rows(messenger, site, everyone, f"{site}.all")
        return keys, self.rows_of

    def as_computed(self, cached: str, site: str) -> str:  # noqa: ARG002 - see `HalfStreamGraph`
        """Convert cached class tokens to the type that the graph computes in."""
        return cached

    def as_float(self, x: str, output: str) -> str:  # noqa: ARG002 - see `HalfStreamGraph`
        """Convert to fp32."""
        return x

    def finish(self, x: str, normed: str) -> ModelProto:
        """Declare the outputs, from the tokens of the last layer and the same normed for the prompts, both rows."""
        graph, dim = self.graph, self.tower.visual_projection.out_features
        rows = [graph.reshape(cls, [1, -1, self.dim], f"{cls}.layer") for cls in self.tokens_of]
        tokens = graph.node("Concat", rows, "class_tokens.all", axis=0)
        graph.node("Cast", [tokens], "class_tokens", to=TensorProto.FLOAT)
        graph.output("class_tokens", np.float32, [len(rows), NEW, self.dim])
        cls = self.as_float(self.cls_rows(x, "cls"), "cls.float")
        frames = self.as_float(
            graph.reshape(normed, [-1, 1 + self.patches, self.dim], "features.frames"), "features.float"
        )
        self.end_precision()
        self.frame_embeds(cls, "frame_embeds")
        graph.output("frame_embeds", np.float32, [NEW, dim])
        self.project_patches(frames, "patch_features")
        graph.output("patch_features", np.float32, [NEW, self.patches, dim])
        return graph.model()

    def end_precision(self) -> None:
        """Compute in fp32 from here."""


class StreamGraph(CachedMessages, FlatGraph):
    """Builder of the stream graph in fp32; all new frames go through a layer together."""

    def build(self) -> ModelProto:
        """Build the model."""
        x = self.embed_group(self.declare())
        for index in range(len(self.tower.layers)):
            x = self.layer(index, x)
        return self.finish(x, self.prompts_norm(x))


class Int8StreamGraph(StreamGraph, Int8VisionGraph):
    """Builder of the stream graph in int8, with the weights and scales of the int8 vision graph."""


class QdqStreamGraph(StreamGraph, QdqVisionGraph):
    """Builder of the portable stream graph in int8, with the weights and scales of the portable vision graph."""


class HalfStreamGraph(CachedMessages, HalfVisionGraph):
    """Builder of the stream graph in fp16."""

    def build(self) -> ModelProto:
        """Build the model."""
        return self.finish(*self.encode())

    def pixels(self) -> str:
        """Declare the inputs; return the new frames."""
        return self.declare()

    def as_computed(self, cached: str, site: str) -> str:
        """Convert cached class tokens to fp16, which they were before."""
        return self.graph.node("Cast", [cached], f"{site}.cached.half", to=TensorProto.FLOAT16)

    def as_float(self, x: str, output: str) -> str:
        """Convert to fp32."""
        return HalfVisionGraph.as_float(self, x, output)

    def end_precision(self) -> None:
        """Compute in fp32 from here."""
        self._dtype = np.float32


class PortableStreamGraph(PortableGraph, StreamGraph):
    """Builder of the stream graph in fp32 of standard operators."""


class HeadGraph(PortableGraph):
    """Builder of the head graph."""

    def build(self) -> ModelProto:
        """Build the model."""
        graph, dim = self.graph, self.tower.visual_projection.out_features
        frames = graph.input("frame_embeds", np.float32, ["batch_size", self.frames, dim])
        features = graph.input("patch_features", np.float32, ["batch_size", self.frames, self.patches, dim])
        self.integrate(frames)
        axis = graph.constant("index.1", [1])
        self.add_features_bias(graph.node("ReduceSum", [features, axis], "features", keepdims=0))
        return graph.model()
