"""The vision graph authored for ONNX Runtime's CPU provider, fp32.

It computes what :class:`xclip_export.towers.VisionTower` computes, with the kernels that provider runs best
(``com.microsoft.MultiHeadAttention`` without mask or bias takes its flash path, ``QuickGelu`` with alpha 1 its
vectorised SiLU path), and cache-blocked: frames go through attention and MLP in groups, one group after the other, so
that the 4d-wide activation of the MLP stays in cache. Only the message attention sees all frames. A layer is a ``Scan``
over the groups of all clips: its weights are prepared once, and a clip of a batch takes the steps that it takes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from xclip_export.graph import MICROSOFT, GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch import Tensor, nn

    from xclip_export.towers import Attention, ConstantMessage, EncoderLayer, Message, VisionLayer, VisionTower

    Floats = NDArray[np.float32]

# The slope of QuickGELU, which becomes SiLU when fc1 is scaled by it and fc2 divided:
# x·sigmoid(1.702x) = SiLU(1.702x) / 1.702.
SLOPE = 1.702

# Rows (frames times tokens) that go through a layer together; benchmarks/cpu-log.md has the sizes that were measured.
_ROWS_PER_GROUP = 800


@dataclass(frozen=True)
class Linear:
    """y = x·weight + bias, with ``weight`` (in, out) stored the way ONNX Runtime multiplies."""

    weight: Floats
    bias: Floats | None


@dataclass(frozen=True)
class Norm:
    """LayerNorm over the last axis; ``bias`` None leaves the shift out."""

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
    """Weights that make the message tokens of a layer from its class tokens."""

    fc: Linear
    norm: Norm
    attention: Projections


def fused_vision_model(tower: VisionTower, *, frames_per_group: int | None = None) -> ModelProto:
    """Build the graph.

    Args:
        tower: Whose function the graph computes.
        frames_per_group: Frames that go through a layer together; must divide the tower's number of frames. None takes
            the measured best.

    Returns:
        A model with input pixel_values uint8 (batch_size, T, H, W, 3) and outputs video_embeds float32
        (batch_size, D) and img_features float32 (batch_size, P, D). The output of layer i is the tensor
        ``layers.{i}.output``, float32 (groups, G·(1 + P), d).

    Raises:
        ValueError: When ``frames_per_group`` does not divide the number of frames.
    """
    return VisionGraph(tower, frames_per_group).build()


class VisionGraph:
    """Writes a vision tower as a graph; the methods that touch a projection can be overridden for other precisions.

    Args:
        tower: Whose function the graph computes.
        frames_per_group: As in :func:`fused_vision_model`.
    """

    def __init__(self, tower: VisionTower, frames_per_group: int | None = None) -> None:
        self.tower, self.graph = tower, GraphBuilder("vision")
        self.frames, self.dim, self.patches = tower.num_frames, tower.embed_dim, tower.grid**2
        self.group = group_size(self.frames, 1 + self.patches, frames_per_group)
        self.group_rows = [self.group * (1 + self.patches), self.dim]

    def build(self) -> ModelProto:
        """The finished model."""
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
        """Do the same with every group, one after the other, so that what lies between stays in cache.

        Args:
            name: Of the result.
            parts: Tensors that hold a part for each group along their first axis; type and shape of a part.
            write: Called once with the names of a group's parts; adds the nodes and returns the name of their result.
            shape: Of a group's result, float32.

        Returns:
            The results of all groups, float32 (groups, *shape).
        """
        outer, self.graph = self.graph, self.graph.body(f"{name}.group")
        result = write(*(self.graph.input(f"{name}.group.{i}", *part) for i, part in enumerate(parts.values())))
        self.graph.output(result, np.float32, shape)
        body, self.graph = self.graph, outer
        return outer.scan(body, list(parts), [name])[0]

    def block(self, index: int) -> Block:
        """The weights of vision layer ``index``, as the graph uses them."""
        return read_block(cast("VisionLayer", self.tower.layers[index]))

    def messenger(self, index: int) -> Messenger:
        """The weights that make the message tokens of vision layer ``index``, which is not the first."""
        message = cast("Message", self.tower.layers[index].message)
        return Messenger(
            read_linear(message.message_fc), read_norm(message.message_ln), read_attention(message.message_attn)
        )

    def activation(self, x: str, site: str) -> str:  # noqa: ARG002 - other precisions need the site
        """Prepare ``x`` for the projections of ``site``, which share it."""
        return x

    def linear(self, x: str, weights: Linear, site: str, name: str, output: str) -> str:  # noqa: ARG002 - see activation
        """Project rows ``x`` (rows, in), prepared by :meth:`activation` for ``site``, to (rows, out)."""
        return self.project(x, weights, name, output)

    def patch_embedding(self, patches: str, output: str) -> str:
        """Project the bytes of the patches (frames, tokens, bytes) to (frames, tokens, d)."""
        weight = self.graph.constant("patch_embedding.weight", matrix(self.tower.patch_embedding.weight))
        return self.graph.node("MatMul", [self.graph.node("Cast", [patches], f"{output}.bytes", to=1), weight], output)

    def position_table(self) -> Floats:
        """What is added to the projected patches, (1 + P, d)."""
        return array(self.tower.position_table)

    def embed(self) -> str:
        """uint8 frames → the tokens that enter layer 0, (groups, G·(1 + P), d)."""
        size, group = self.tower.grid * self.tower.patch_size, self.group
        pixels = self.graph.input("pixel_values", np.uint8, ["batch_size", self.frames, size, size, 3])
        pixels = self.graph.reshape(pixels, [-1, group, size, size, 3], "pixels")
        part = (np.uint8, [group, size, size, 3])
        return self.each_group("embed.output", {pixels: part}, self.embed_group, self.group_rows)

    def embed_group(self, pixels: str) -> str:
        """uint8 frames (G, H, W, 3) of one group → rows (G·(1 + P), d)."""
        graph, grid, patch = self.graph, self.tower.grid, self.tower.patch_size
        x = graph.reshape(pixels, [-1, grid, patch, grid, patch * 3], "patches")
        x = graph.node("Transpose", [x], "patches.transposed", perm=[0, 1, 3, 2, 4])
        x = graph.reshape(x, [-1, self.patches, patch * patch * 3], "patches.flat")
        # A black patch in front of every frame keeps a row free for the class token.
        x = graph.node("Pad", [x, graph.constant("embed.pads", [0, 1, 0, 0, 0, 0])], "patches.padded")
        x = self.patch_embedding(x, "embed.projected")
        x = graph.node("Add", [x, graph.constant("position_table", self.position_table())], "embed.positioned")
        return self.norm(
            self.rows(x, "embed.rows"), read_norm(self.tower.pre_layernorm), "pre_layernorm", "embed.normed"
        )

    def layer(self, index: int, x: str) -> str:
        """One vision layer, (groups, G·(1 + P), d)."""
        block, site = self.block(index), f"layers.{index}"
        cls = self.cls_rows(x, f"{site}.cls")
        if index == 0:
            told = self.first_messages(cls, f"{site}.message")
        else:
            told = self.messages(self.messenger(index), f"{site}.message", cls)
        message = self.graph.reshape(told, [-1, self.group, 1, self.dim], f"{site}.messages")
        parts = {x: (np.float32, self.group_rows), message: (np.float32, [self.group, 1, self.dim])}
        return self.each_group(f"{site}.output", parts, partial(self.layer_group, block, site), self.group_rows)

    def layer_group(self, block: Block, site: str, x: str, message: str) -> str:
        """One vision layer for one group: rows ``x`` (G·(1 + P), d) and ``message`` (G, 1, d) → rows."""
        graph, tokens, prefix = self.graph, 1 + self.patches, f"{site}.group"
        normed = self.norm(x, block.norm1, f"{site}.norm1", f"{prefix}.norm1")
        message = self.norm(message, block.norm1, f"{site}.norm1", f"{prefix}.message")
        normed, message = (self.activation(part, f"{site}.attention") for part in (normed, message))
        frames = graph.reshape(normed, [-1, tokens, self.dim], f"{prefix}.frames")
        keys = self.rows(graph.node("Concat", [frames, message], f"{prefix}.context", axis=1), f"{prefix}.keys")
        mixed = self.attention(normed, keys, (tokens, tokens + 1), block.attention, site=site, prefix=prefix)
        x = graph.node("Add", [mixed, x], f"{prefix}.attended")
        # Computed where the scan wants it: a Reshape behind it would copy.
        return graph.node("Add", [self.mlp(x, block, site, prefix), x], f"{prefix}.output")

    def first_messages(self, cls: str, output: str) -> str:
        """The message tokens of layer 0, rows (B·T, d): a constant away from the class tokens."""
        message = cast("ConstantMessage", self.tower.layers[0].message)
        shift = self.graph.constant("layers.0.message.shift", array(message.shift))
        return self.graph.node("Add", [cls, shift], output)

    def messages(self, messenger: Messenger, site: str, cls: str) -> str:
        """The message tokens of a later layer, rows (B·T, d), from the class tokens, rows likewise."""
        base = self.project(cls, messenger.fc, f"{site}.fc", f"{site}.fc")
        normed = self.activation(self.norm(base, messenger.norm, f"{site}.norm", f"{site}.norm"), f"{site}.attention")
        mixed = self.attention(normed, normed, (self.frames, self.frames), messenger.attention, site=site, prefix=site)
        return self.graph.node("Add", [base, mixed], f"{site}.told")

    def attention(
        self, queries: str, keys: str, tokens: tuple[int, int], weights: Projections, *, site: str, prefix: str
    ) -> str:
        """Projections, softmax(q·kᵀ)·v and output projection.

        Args:
            queries: Rows (sequences · tokens[0], d), prepared by :meth:`activation`.
            keys: Rows (sequences · tokens[1], d), prepared likewise.
            tokens: Length of a sequence of queries and of keys.
            weights: Of the attention.
            site: Begins the names of the weights.
            prefix: Begins the names of the tensors.

        Returns:
            Rows (sequences · tokens[0], d).
        """
        dim, parts = weights.query.weight.shape[0], []
        for part, rows, length, linear in (
            ("query", queries, tokens[0], weights.query),
            ("key", keys, tokens[1], weights.key),
            ("value", keys, tokens[1], weights.value),
        ):
            projected = self.linear(rows, linear, f"{site}.attention", f"{site}.{part}", f"{prefix}.{part}.rows")
            parts.append(self.graph.reshape(projected, [-1, length, dim], f"{prefix}.{part}"))
        mixed = self.graph.node(
            "MultiHeadAttention", parts, f"{prefix}.mixed", domain=MICROSOFT, num_heads=weights.heads, scale=1.0
        )
        mixed = self.activation(self.rows(mixed, f"{prefix}.mixed.rows"), f"{site}.out")
        return self.linear(mixed, weights.out, f"{site}.out", f"{site}.out", f"{prefix}.out")

    def mlp(self, x: str, block: Block, site: str, prefix: str) -> str:
        """norm2 → fc1 → SiLU → fc2 on rows (rows, d)."""
        normed = self.activation(self.norm(x, block.norm2, f"{site}.norm2", f"{prefix}.norm2"), f"{site}.fc1")
        hidden = self.linear(normed, block.fc1, f"{site}.fc1", f"{site}.fc1", f"{prefix}.fc1")
        hidden = self.graph.node("QuickGelu", [hidden], f"{prefix}.silu", domain=MICROSOFT, alpha=1.0)
        return self.linear(
            self.activation(hidden, f"{site}.fc2"), block.fc2, f"{site}.fc2", f"{site}.fc2", f"{prefix}.fc2"
        )

    def cls_rows(self, x: str, output: str) -> str:
        """The class tokens of tokens (…, d), as rows (B·T, d)."""
        frames = self.graph.reshape(x, [-1, 1 + self.patches, self.dim], f"{output}.frames")
        start, end, axis = (self.graph.constant(f"index.{i}", [i]) for i in (0, 1, 1))
        return self.rows(self.graph.node("Slice", [frames, start, end, axis], f"{output}.tokens"), output)

    def clips(self, x: str) -> str:
        """Rows (B·T, d) → (B, T, d)."""
        return self.graph.reshape(x, [-1, self.frames, self.dim], f"{x}.clips")

    def video_embeds(self, cls: str) -> None:
        """Class tokens (B, T, d) of the last layer → video_embeds, through the multi-frame integration transformer."""
        graph, tower = self.graph, self.tower
        dim = tower.visual_projection.out_features
        x = self.norm(cls, read_norm(tower.post_layernorm), "post_layernorm", "cls.normed")
        weight = graph.constant("visual_projection.weight", matrix(tower.visual_projection.weight))
        frames = graph.node("MatMul", [x, weight], "frames")
        positioned = graph.node("Add", [frames, graph.constant("mit.position", array(tower.mit_position))], "mit.input")
        x = self.rows(positioned, "mit.rows")
        for index, layer in enumerate(tower.mit):
            block, site = read_block(cast("EncoderLayer", layer)), f"mit.{index}"
            normed = self.activation(self.norm(x, block.norm1, f"{site}.norm1", f"{site}.norm1"), f"{site}.attention")
            mixed = self.attention(normed, normed, (self.frames, self.frames), block.attention, site=site, prefix=site)
            x = graph.node("Add", [x, mixed], f"{site}.attended")
            x = graph.node("Add", [x, self.mlp(x, block, site, site)], f"{site}.output")
        x = graph.node("Add", [graph.reshape(x, [-1, self.frames, dim], "mit.clips"), frames], "mit.sum")
        graph.node("ReduceMean", [x, graph.constant("index.1", [1])], "video_embeds", keepdims=0)
        graph.output("video_embeds", np.float32, ["batch_size", dim])

    def img_features(self, x: str) -> None:
        """Tokens of the last layer → img_features: the frame mean of the normed patches, projected."""
        shape = [1 + self.patches, self.dim]
        sums = self.each_group("features.groups", {x: (np.float32, self.group_rows)}, self.features_group, shape)
        sums = self.graph.reshape(sums, [-1, self.frames // self.group, *shape], "features.clips")
        axis = self.graph.constant("index.1", [1])
        self.project_features(self.graph.node("ReduceSum", [sums, axis], "features", keepdims=0))

    def features_group(self, x: str) -> str:
        """The sum of the normed tokens over the frames of one group, (1 + P, d)."""
        norm = Norm(np.ones(self.dim, np.float32), None, self.tower.prompts_norm.eps)
        normed = self.norm(x, norm, "prompts_norm", "features.normed")
        frames = self.graph.reshape(normed, [-1, 1 + self.patches, self.dim], "features.frames")
        return self.graph.node("ReduceSum", [frames, self.graph.constant("index.0", [0])], "features.sum", keepdims=0)

    def project_features(self, total: str) -> None:
        """The fp32 sum of the normed tokens over the frames, (B, 1 + P, d) → img_features."""
        graph, axis = self.graph, self.graph.constant("index.1", [1])
        start, end = graph.constant("index.1", [1]), graph.constant("index.tokens", [1 + self.patches])
        total = graph.node("Slice", [total, start, end, axis], "features.patches")
        projection = read_linear(self.tower.prompts_projection)
        weight = graph.constant("prompts_projection.weight", projection.weight / np.float32(self.frames))
        x = graph.node("MatMul", [total, weight], "features.projected")
        graph.node("Add", [x, graph.constant("prompts_projection.bias", bias_of(projection))], "img_features")
        graph.output("img_features", np.float32, ["batch_size", self.patches, projection.weight.shape[1]])

    def rows(self, x: str, output: str) -> str:
        """(sequences, tokens, d) → rows (sequences · tokens, d)."""
        return self.graph.node("Flatten", [x], output, axis=2)

    def project(self, x: str, weights: Linear, site: str, output: str) -> str:
        """fp32 projection of rows (rows, in)."""
        inputs = [x, self.graph.constant(f"{site}.weight", weights.weight)]
        if weights.bias is None:
            return self.graph.node("MatMul", inputs, output)
        return self.graph.node("Gemm", [*inputs, self.graph.constant(f"{site}.bias", weights.bias)], output)

    def norm(self, x: str, norm: Norm, site: str, output: str) -> str:
        """LayerNorm over the last axis."""
        inputs = [x, self.graph.constant(f"{site}.gain", norm.gain)]
        if norm.bias is not None:
            inputs.append(self.graph.constant(f"{site}.bias", norm.bias))
        return self.graph.node("LayerNormalization", inputs, output, axis=-1, epsilon=norm.epsilon)


def group_size(frames: int, tokens: int, requested: int | None) -> int:
    """Frames per group: what was asked for, else the largest divisor of ``frames`` that keeps a group in cache."""
    if requested is not None:
        if requested < 1 or frames % requested:
            message = f"frames_per_group {requested} does not divide the clip's {frames} frames: choose a divisor"
            raise ValueError(message)
        return requested
    fitting = [g for g in range(1, frames + 1) if frames % g == 0 and g * tokens <= _ROWS_PER_GROUP]
    return max(fitting, default=1)


def read_block(layer: VisionLayer | EncoderLayer) -> Block:
    """The weights of a layer, with the slope of QuickGELU folded into the MLP."""
    fc1, fc2 = read_linear(layer.mlp.fc1), read_linear(layer.mlp.fc2)
    slope = np.float32(SLOPE)
    return Block(
        norm1=read_norm(layer.layer_norm1),
        attention=read_attention(layer.self_attn),
        norm2=read_norm(layer.layer_norm2),
        fc1=Linear(fc1.weight * slope, bias_of(fc1) * slope),
        fc2=Linear(fc2.weight / slope, fc2.bias),
    )


def read_attention(attention: Attention) -> Projections:
    """The weights of an attention."""
    return Projections(
        heads=attention.num_heads,
        query=read_linear(attention.q_proj),
        key=read_linear(attention.k_proj),
        value=read_linear(attention.v_proj),
        out=read_linear(attention.out_proj),
    )


def read_linear(layer: nn.Linear) -> Linear:
    """The weights of a linear layer."""
    return Linear(matrix(layer.weight), None if layer.bias is None else array(layer.bias))


def read_norm(layer: nn.LayerNorm) -> Norm:
    """The weights of a LayerNorm."""
    return Norm(array(layer.weight), array(layer.bias), layer.eps)


def array(tensor: Tensor) -> Floats:
    """A parameter as float32."""
    return tensor.detach().float().numpy()


def matrix(weight: Tensor) -> Floats:
    """A torch weight (out, in) as a contiguous (in, out) matrix."""
    return np.ascontiguousarray(array(weight).T)


def bias_of(linear: Linear) -> Floats:
    """The bias, zeros where there is none."""
    return np.zeros(linear.weight.shape[1], np.float32) if linear.bias is None else linear.bias
