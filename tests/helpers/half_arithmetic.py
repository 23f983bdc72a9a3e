"""A second opinion on fp16 graphs: every node rounds its result, as a GPU does.

ONNX Runtime's CPU provider runs fp16 nodes in fp32 and removes the casts between them, so that most roundings never
happen there. Here each node reads and writes its declared type; products, statistics and softmax add up in fp32, as
in ONNX Runtime's CUDA kernels, and QuickGelu computes in fp16 throughout, as its CUDA kernel does.
"""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper


def run_as_gpu(model, feeds):
    """Run a vision graph node by node.

    Returns:
        Every tensor of the graph, by name.
    """
    tensors = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer} | feeds
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [tensors[name] if name else None for name in node.input]
        outputs = KERNELS[node.op_type](*inputs, **attributes)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        tensors |= {name: value for name, value in zip(node.output, outputs, strict=True) if name}
    return tensors


def product(a, b):
    return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)


def gemm(a, b, c):
    return (a.astype(np.float32) @ b.astype(np.float32) + c.astype(np.float32)).astype(a.dtype)


def convolve(x, kernel, bias):
    wide = np.einsum("nchw,oc->nohw", x.astype(np.float32), kernel[:, :, 0, 0].astype(np.float32), optimize=True)
    return (wide + bias.astype(np.float32)[:, None, None]).astype(x.dtype)


def layer_norm(x, gain, bias=None, *, epsilon, axis=-1, stash_type=1):
    wide = x.astype(np.float32)
    wide = wide - wide.mean(-1, keepdims=True)
    normed = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + epsilon) * gain.astype(np.float32)
    return (normed if bias is None else normed + bias.astype(np.float32)).astype(x.dtype)


def skip_layer_norm(x, skip, gain, beta, bias, *, epsilon):
    total = (x.astype(np.float32) + skip.astype(np.float32) + bias.astype(np.float32)).astype(x.dtype)
    return layer_norm(total, gain, beta, epsilon=epsilon), None, None, total


def attention(query, key, value, *, num_heads, scale):
    def heads(x):
        return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3).astype(np.float32)

    scores = heads(query) @ heads(key).swapaxes(-1, -2) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    # flash attention feeds the weights to the tensor cores in the type of the values
    mixed = weights.astype(value.dtype).astype(np.float32) @ heads(value) / weights.sum(-1, keepdims=True)
    return mixed.transpose(0, 2, 1, 3).reshape(query.shape).astype(query.dtype)


def quick_gelu(x, *, alpha):
    v, one = x * x.dtype.type(alpha), x.dtype.type(1)
    small = np.exp(-np.abs(v).astype(np.float32)).astype(x.dtype)
    return x * np.where(v >= 0, one / (one + small), one - one / (one + small))


def slices(x, start, end, axes):
    index = [slice(None)] * x.ndim
    for first, last, axis in zip(start, end, axes, strict=True):
        index[axis] = slice(first, last)
    return x[tuple(index)]


KERNELS = {
    "Add": np.add,
    "Cast": lambda x, *, to: x.astype(helper.tensor_dtype_to_np_dtype(to)),
    "Conv": convolve,
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Flatten": lambda x, *, axis: x.reshape(int(np.prod(x.shape[:axis])), -1),
    "Gemm": gemm,
    "LayerNormalization": layer_norm,
    "MatMul": product,
    "MultiHeadAttention": attention,
    "Pad": lambda x, pads: np.pad(x, list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))),
    "QuickGelu": quick_gelu,
    "ReduceMean": lambda x, axes, *, keepdims: x.mean(tuple(axes), keepdims=bool(keepdims)),
    "ReduceSum": lambda x, axes, *, keepdims: x.sum(tuple(axes), keepdims=bool(keepdims)),
    "Reshape": lambda x, shape: x.reshape(shape),
    "SkipLayerNormalization": skip_layer_norm,
    "Slice": slices,
    "Sub": np.subtract,
    "Transpose": lambda x, *, perm: x.transpose(perm),
}
