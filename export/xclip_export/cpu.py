"""Vision graph in fp32, authored for ONNX Runtime's CPU execution provider.

The graph computes the function of `xclip_export.towers.VisionTower` with the fastest kernels of the provider
(``com.microsoft.MultiHeadAttention`` without mask or bias takes its flash path, ``QuickGelu`` with alpha 1 its
vectorised SiLU path), and is cache-blocked: frames go through attention and MLP in groups, one group after the other,
so that the 4d-wide activation of the MLP stays in cache. Only the message attention spans all frames. A layer is a
``Scan`` over the groups of all clips: its weights are packed once, and a clip of a batch takes the same steps as alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from xclip_export.graph import MICROSOFT, GraphBuilder
from xclip_export.towers import SLOPE
from xclip_export.weights import (
    Linear,
    Messenger,
    Norm,
    array,
    bias_of,
    matrix,
    read_attention,
    read_block,
    read_linear,
    read_norm,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from xclip_export.towers import ConstantMessage, EncoderLayer, Message, VisionLayer, VisionTower
    from xclip_export.weights import Block, Projections

    Floats = NDArray[np.float32]

# Rows (frames times tokens) that go through a layer together; measured in benchmarks/cpu-log.md.
_ROWS_PER_GROUP = 800


def fused_vision_model(tower: VisionTower, *, frames_per_group: int | None = None) -> ModelProto:
    """Build the graph.

    Args:
        tower: The tower to build.
        frames_per_group: Frames that go through a layer together, a divisor of the tower's number of frames. None takes
            the fastest as measured.

    Returns:
        A model with input pixel_values uint8 (batch_size, T, H, W, 3) and outputs video_embeds float32
        (batch_size, D) and img_features float32 (batch_size, P, D). The output of layer i is the tensor
        ``layers.{i}.output``, float32 (groups, G·(1 + P), d).

    Raises:
        ValueError: ``frames_per_group`` does not divide the number of frames.
    """
    return VisionGraph(tower, frames_per_group).build()


class Sequences(NamedTuple):
    """Names of int64 tensors that gather rows into sequences whose lengths differ."""

    queries: str
    """Rows of queries, (sequences, longest)."""
    keys: str
    """Rows of keys, (sequences, tokens)."""
    answers: str
    """Of each query its place among those gathered, (queries,)."""


class VisionGraph:
    """Builder of the graph; subclasses override the methods that touch a projection for other precisions.

    Args:
        tower: The tower to build.
        frames_per_group: As in `fused_vision_model`.
    """

    slope: float = SLOPE
    """Slope of QuickGELU that is folded into the weights of the MLP; 1 leaves it to `gelu`."""

    def __init__(self, tower: VisionTower, frames_per_group: int | None = None) -> None:
        self.tower, self.graph = tower, GraphBuilder("vision")
        self.frames, self.dim, self.patches = tower.num_frames, tower.embed_dim, tower.grid**2
        self.group = group_size(self.frames, 1 + self.patches, frames_per_group)
        self.group_rows = [self.group * (1 + self.patches), self.dim]

    def build(self) -> ModelProto:
        """Build the model."""
        x = self.embed()
        for index in range(len(self.tower.layers)):
            x = self.layer(index, x)
        self.video_embeds(self.clips(self.cls_rows(x, "cls")))
        self.img_features(x)
        return self.graph.model()

    def each_group(
        self,
        name: str,
        parts: Mapping[str, tuple[type[np.generic], Sequence[int]]],
        write: Callable[..., str],
        shape: Sequence[int],
    ) -> str:
        """Run the same nodes on every group, one after the other, so that intermediate results stay in cache.

        Args:
            name: Name of the result.
            parts: Tensors with one part for each group along their first axis; type and shape of a part.
            write: Called once with the names of a group's parts; adds the nodes and returns the name of their result.
            shape: Shape of a group's result, float32.

        Returns:
            Name of the results of all groups, float32 (groups, *shape).
        """
        outer, self.graph = self.graph, self.graph.body(f"{name}.group")
        result = write(*(self.graph.input(f"{name}.group.{i}", *part) for i, part in enumerate(parts.values())))
        self.graph.output(result, np.float32, shape)
        body, self.graph = self.graph, outer
        return outer.scan(body, list(parts), [name])[0]

    def block(self, index: int) -> Block:
        """Read the weights of vision layer ``index``, as the graph uses them."""
        return self.read_block(cast("VisionLayer", self.tower.layers[index]))

    def read_block(self, layer: VisionLayer | EncoderLayer) -> Block:
        """Read the weights of a layer, as `gelu` needs them."""
        return read_block(layer, self.slope)

    def messenger(self, index: int) -> Messenger:
        """Read the weights of the message tokens of vision layer ``index`` ≥ 1."""
        message = cast("Message", self.tower.layers[index].message)
        return Messenger(
            read_linear(message.message_fc), read_norm(message.message_ln), read_attention(message.message_attn)
        )

    def activation(self, x: str, site: str) -> str:  # noqa: ARG002 - other precisions need the site
        """Prepare ``x`` for the products of ``site``, which share it."""
        return x

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:  # noqa: ARG002 - see activation
        """Project rows ``x`` (rows, in), prepared by `activation` for ``site``, to (rows, out)."""
        return self.project(x, weights, name, output)

    def patch_embedding(self, patches: str, output: str) -> str:
        """Project the bytes of the patches (frames, tokens, bytes) to (frames, tokens, d)."""
        weight = self.graph.constant("patch_embedding.weight", matrix(self.tower.patch_embedding.weight))
        return self.graph.node("MatMul", [self.graph.node("Cast", [patches], f"{output}.bytes", to=1), weight], output)

    def position_table(self) -> Floats:
        """Return the table that is added to the projected patches, (1 + P, d)."""
        return array(self.tower.position_table)

    def embed(self) -> str:
        """Embed uint8 frames as the tokens of layer 0, (groups, G·(1 + P), d)."""
        size, group = self.tower.grid * self.tower.patch_size, self.group
        pixels = self.graph.input("pixel_values", np.uint8, ["batch_size", self.frames, size, size, 3])
        pixels = self.graph.reshape(pixels, [-1, group, size, size, 3], "pixels")
        part = (np.uint8, [group, size, size, 3])
        return self.each_group("embed.output", {pixels: part}, self.embed_group, self.group_rows)

    def embed_group(self, pixels: str) -> str:
        """Embed the uint8 frames (G, H, W, 3) of one group as rows (G·(1 + P), d)."""
        graph, grid, patch = self.graph, self.tower.grid, self.tower.patch_size
        x = graph.reshape(pixels, [-1, grid, patch, grid, patch * 3], "patches")
        x = graph.node("Transpose", [x], "patches.transposed", perm=[0, 1, 3, 2, 4])
        x = graph.reshape(x, [-1, self.patches, patch * patch * 3], "patches.flat")
        x = self.patch_rows(x)
        x = graph.node("Add", [x, graph.constant("position_table", self.position_table())], "embed.positioned")
        return self.norm(
            self.rows(x, "embed.rows"), read_norm(self.tower.pre_layernorm), "pre_layernorm", "embed.normed"
        )

    def patch_rows(self, patches: str) -> str:
        """Project the bytes of the patches (frames, P, bytes) to (frames, 1 + P, d)."""
        # A black patch in front of every frame keeps a row free for the class token.
        pads = self.graph.constant("embed.pads", [0, 1, 0, 0, 0, 0])
        return self.patch_embedding(self.graph.node("Pad", [patches, pads], "patches.padded"), "embed.projected")

    def layer(self, index: int, x: str) -> str:
        """Run one vision layer on (groups, G·(1 + P), d)."""
        block, site = self.block(index), f"layers.{index}"
        message = self.graph.reshape(self.layer_messages(index, x), [-1, self.group, 1, self.dim], f"{site}.messages")
        parts = {x: (np.float32, self.group_rows), message: (np.float32, [self.group, 1, self.dim])}
        return self.each_group(f"{site}.output", parts, partial(self.layer_group, block, site), self.group_rows)

    def layer_group(self, block: Block, site: str, x: str, message: str) -> str:
        """Run one vision layer on the rows ``x`` (G·(1 + P), d) and the ``message`` (G, 1, d) of one group."""
        graph, tokens, prefix = self.graph, 1 + self.patches, f"{site}.group"
        normed = self.norm(x, block.norm1, f"{site}.norm1", f"{prefix}.norm1")
        message = self.norm(message, block.norm1, f"{site}.norm1", f"{prefix}.message")
        normed, message = (self.activation(part, f"{site}.attention") for part in (normed, message))
        frames = graph.reshape(normed, [-1, tokens, self.dim], f"{prefix}.frames")
        keys = self.rows(graph.node("Concat", [frames, message], f"{prefix}.context", axis=1), f"{prefix}.keys")
        mixed = self.attention(normed, keys, (tokens, tokens + 1), block.attention, site=site, prefix=prefix)
        x = graph.node("Add", [mixed, x], f"{prefix}.attended")
        # Computed in the output buffer of the Scan: a Reshape behind it would copy.
        return graph.node("Add", [self.mlp(x, block, site, prefix), x], f"{prefix}.output")

    def layer_messages(self, index: int, x: str) -> str:
        """Compute the message tokens of a vision layer from its input, rows (B·T, d)."""
        site = f"layers.{index}"
        cls = self.cls_rows(x, f"{site}.cls")
        if index == 0:
            return self.first_messages(cls, f"{site}.message")
        return self.messages(self.messenger(index), f"{site}.message", cls)

    def first_messages(self, cls: str, output: str) -> str:
        """Compute the message tokens of layer 0, rows (B·T, d): the class tokens plus a constant."""
        message = cast("ConstantMessage", self.tower.layers[0].message)
        shift = self.graph.constant("layers.0.message.shift", array(message.shift))
        return self.graph.node("Add", [cls, shift], output)

    def messages(self, messenger: Messenger, site: str, cls: str) -> str:
        """Compute the message tokens of a later layer from the class tokens, both rows (B·T, d)."""
        base, normed = self.message_rows(messenger, site, cls, site)
        keys, lengths = self.message_keys(messenger, site, cls, normed)
        mixed = self.attention(normed, keys, lengths, messenger.attention, site=site, prefix=site)
        return self.graph.node("Add", [base, mixed], f"{site}.told")

    def message_rows(self, messenger: Messenger, site: str, cls: str, prefix: str) -> tuple[str, str]:
        """Project class tokens, rows, to message tokens, plain and normed for the message attention."""
        base = self.project(cls, messenger.fc, f"{site}.fc", f"{prefix}.fc")
        normed = self.norm(base, messenger.norm, f"{site}.norm", f"{prefix}.norm")
        return base, self.activation(normed, f"{site}.attention")

    def message_keys(
        self,
        messenger: Messenger,  # noqa: ARG002 - other graphs need it
        site: str,  # noqa: ARG002
        cls: str,  # noqa: ARG002
        normed: str,
    ) -> tuple[str, tuple[int, int] | Sequences]:
        """Return the rows that the messages attend to, and the lengths of a sequence of queries and of keys."""
        return normed, (self.frames, self.frames)

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
        """Run an attention: projections, softmax(q·kᵀ)·v and output projection.

        Args:
            queries: Rows (sequences · tokens[0], d), prepared by `activation`.
            keys: Rows (sequences · tokens[1], d), prepared likewise.
            tokens: Lengths of a sequence of queries and of keys, or the rows of each sequence.
            weights: Weights of the attention.
            site: Prefix of the weights' names.
            prefix: Prefix of the tensors' names.

        Returns:
            Rows, one for each query, (queries, d).
        """
        dim, parts = weights.query.weight.shape[0], []
        for part, rows, length, linear in (
            ("query", queries, tokens[0], weights.query),
            ("key", keys, tokens[1], weights.key),
            ("value", keys, tokens[1], weights.value),
        ):
            projected = self.linear(rows, linear, f"{site}.attention", f"{site}.{part}", f"{prefix}.{part}.rows")
            projected = self.activation(projected, f"{site}.{part}")
            if isinstance(length, str):
                parts.append(self.graph.node("Gather", [projected, length], f"{prefix}.{part}", axis=0))
            else:
                parts.append(self.graph.reshape(projected, [-1, length, dim], f"{prefix}.{part}"))
        mixed = self.rows(self.mix(parts, weights.heads, site, f"{prefix}.mixed"), f"{prefix}.mixed.rows")
        if isinstance(tokens, Sequences):
            mixed = self.graph.node("Gather", [mixed, tokens.answers], f"{prefix}.answers", axis=0)
        mixed = self.activation(mixed, f"{site}.out")
        return self.linear(mixed, weights.out, f"{site}.out", f"{site}.out", f"{prefix}.out")

    def mix(self, parts: Sequence[str], heads: int, site: str, output: str) -> str:  # noqa: ARG002 - see activation
        """Compute softmax(q·kᵀ)·v of queries, keys and values (sequences, tokens, d) that are already scaled."""
        return self.graph.node("MultiHeadAttention", parts, output, domain=MICROSOFT, num_heads=heads, scale=1.0)

    def gelu(self, hidden: str, output: str) -> str:
        """Apply QuickGELU, whose slope is folded into the weights."""
        return self.graph.node("QuickGelu", [hidden], output, domain=MICROSOFT, alpha=1.0)

    def mlp(self, x: str, block: Block, site: str, prefix: str) -> str:
        """Run norm2, fc1, SiLU and fc2 on rows (rows, d)."""
        normed = self.activation(self.norm(x, block.norm2, f"{site}.norm2", f"{prefix}.norm2"), f"{site}.fc1")
        hidden = self.linear(normed, block.fc1, f"{site}.fc1", f"{site}.fc1", f"{prefix}.fc1")
        hidden = self.gelu(hidden, f"{prefix}.silu")
        return self.linear(
            self.activation(hidden, f"{site}.fc2"), block.fc2, f"{site}.fc2", f"{site}.fc2", f"{prefix}.fc2"
        )

    def cls_rows(self, x: str, output: str) -> str:
        """Slice the class tokens from tokens (…, d), as rows (B·T, d)."""
        frames = self.graph.reshape(x, [-1, 1 + self.patches, self.dim], f"{output}.frames")
        start, end, axis = (self.graph.constant(f"index.{i}", [i]) for i in (0, 1, 1))
        return self.rows(self.graph.node("Slice", [frames, start, end, axis], f"{output}.tokens"), output)

    def clips(self, x: str) -> str:
        """Reshape rows (B·T, d) to (B, T, d)."""
        return self.graph.reshape(x, [-1, self.frames, self.dim], f"{x}.clips")

    def video_embeds(self, cls: str) -> None:
        """Compute video_embeds from the class tokens (B, T, d) of the last layer, by the MIT."""
        self.integrate(self.frame_embeds(cls, "frames"))

    def frame_embeds(self, cls: str, output: str) -> str:
        """Project class tokens (…, d) of the last layer to frame embeddings (…, D)."""
        x = self.norm(cls, read_norm(self.tower.post_layernorm), "post_layernorm", "cls.normed")
        weight = self.graph.constant("visual_projection.weight", matrix(self.tower.visual_projection.weight))
        return self.graph.node("MatMul", [x, weight], output)

    def integrate(self, frames: str) -> None:
        """Compute video_embeds from the frame embeddings (B, T, D), by the MIT."""
        graph, tower = self.graph, self.tower
        dim = tower.visual_projection.out_features
        positioned = graph.node("Add", [frames, graph.constant("mit.position", array(tower.mit_position))], "mit.input")
        x = self.rows(positioned, "mit.rows")
        for index, layer in enumerate(tower.mit):
            block, site = self.read_block(cast("EncoderLayer", layer)), f"mit.{index}"
            normed = self.activation(self.norm(x, block.norm1, f"{site}.norm1", f"{site}.norm1"), f"{site}.attention")
            mixed = self.attention(normed, normed, (self.frames, self.frames), block.attention, site=site, prefix=site)
            x = graph.node("Add", [x, mixed], f"{site}.attended")
            x = graph.node("Add", [x, self.mlp(x, block, site, site)], f"{site}.output")
        x = graph.node("Add", [graph.reshape(x, [-1, self.frames, dim], "mit.clips"), frames], "mit.sum")
        graph.node("ReduceMean", [x, graph.constant("index.1", [1])], "video_embeds", keepdims=0)
        graph.output("video_embeds", np.float32, ["batch_size", dim])

    def img_features(self, x: str) -> None:
        """Compute img_features from the tokens of the last layer: the frame mean of the normed patches, projected."""
        shape = [1 + self.patches, self.dim]
        sums = self.each_group("features.groups", {x: (np.float32, self.group_rows)}, self.features_group, shape)
        sums = self.graph.reshape(sums, [-1, self.frames // self.group, *shape], "features.clips")
        axis = self.graph.constant("index.1", [1])
        self.project_features(self.graph.node("ReduceSum", [sums, axis], "features", keepdims=0))

    def features_group(self, x: str) -> str:
        """Sum the normed tokens over the frames of one group, (1 + P, d)."""
        frames = self.graph.reshape(self.prompts_norm(x), [-1, 1 + self.patches, self.dim], "features.frames")
        return self.graph.node("ReduceSum", [frames, self.graph.constant("index.0", [0])], "features.sum", keepdims=0)

    def prompts_norm(self, x: str) -> str:
        """Norm the tokens of the last layer, rows, for the prompts."""
        norm = Norm(np.ones(self.dim, np.float32), None, self.tower.prompts_norm.eps)
        return self.norm(x, norm, "prompts_norm", "features.normed")

    def project_features(self, total: str) -> None:
        """Compute img_features from the fp32 sum of the normed tokens over the frames, (B, 1 + P, d)."""
        self.add_features_bias(self.project_patches(total, "features.projected"))

    def project_patches(self, tokens: str, output: str) -> str:
        """Project normed tokens (…, 1 + P, d) of a frame, or their sum over frames, to its share of img_features."""
        graph, axis = self.graph, self.graph.constant("index.1", [1])
        start, end = graph.constant("index.1", [1]), graph.constant("index.tokens", [1 + self.patches])
        patches = graph.node("Slice", [tokens, start, end, axis], "features.patches")
        projection = read_linear(self.tower.prompts_projection)
        weight = graph.constant("prompts_projection.weight", projection.weight / np.float32(self.frames))
        return graph.node("MatMul", [patches, weight], output)

    def add_features_bias(self, total: str) -> None:
        """Add the bias of the projection to the sum of all frames' shares, (B, P, D): img_features."""
        bias = bias_of(read_linear(self.tower.prompts_projection))
        self.graph.node("Add", [total, self.graph.constant("prompts_projection.bias", bias)], "img_features")
        self.graph.output("img_features", np.float32, ["batch_size", self.patches, len(bias)])

    def rows(self, x: str, output: str) -> str:
        """Flatten (sequences, tokens, d) to rows (sequences · tokens, d)."""
        return self.graph.node("Flatten", [x], output, axis=2)

    def project(self, x: str, weights: Linear, site: str, output: str) -> str:
        """Project rows (rows, in) in fp32."""
        inputs = [x, self.graph.constant(f"{site}.weight", weights.weight)]
        if weights.bias is None:
            return self.graph.node("MatMul", inputs, output)
        return self.graph.node("Gemm", [*inputs, self.graph.constant(f"{site}.bias", weights.bias)], output)

    def norm(self, x: str, norm: Norm, site: str, output: str) -> str:
        """Apply LayerNorm over the last axis."""
        inputs = [x, self.graph.constant(f"{site}.gain", norm.gain)]
        if norm.bias is not None:
            inputs.append(self.graph.constant(f"{site}.bias", norm.bias))
        return self.graph.node("LayerNormalization", inputs, output, axis=-1, epsilon=norm.epsilon)


def group_size(frames: int, tokens: int, requested: int | None) -> int:
    """Choose the frames per group: as requested, or the largest divisor of ``frames`` that keeps a group in cache."""
    if requested is not None:
        if requested < 1 or frames % requested:
            message = f"frames_per_group {requested} does not divide the clip's {frames} frames: choose a divisor"
            raise ValueError(message)
        return requested
    fitting = [g for g in range(1, frames + 1) if frames % g == 0 and g * tokens <= _ROWS_PER_GROUP]
    return max(fitting, default=1)
