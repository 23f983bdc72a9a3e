"""A vision and a prompt graph of a few numbers, with the names and axes of the real ones."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import onnx
from onnx import parser

from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session

CLIP = (2, 4, 4, 3)

VISION = """
<ir_version: 9, opset_import: ["" : 18]>
vision (uint8[batch_size,2,4,4,3] pixel_values)
    => (float[batch_size,3] video_embeds, float[batch_size,16,3] img_features)
<int64[2] frames = {1, 3}, int64[2] all = {1, 2}, int64[1] time = {1}, int64[3] flat = {-1, 16, 3}>
{
    bytes = Cast<to = 1>(pixel_values)
    video_embeds = ReduceMean<keepdims = 0>(bytes, everything)
    mean = ReduceMean<keepdims = 0>(bytes, time)
    img_features = Reshape(mean, flat)
}
""".replace("<int64[2] frames = {1, 3}, int64[2] all = {1, 2}, ", "<int64[3] everything = {1, 2, 3}, ")

PROMPT = """
<ir_version: 9, opset_import: ["" : 18]>
prompt (float[batch_size,3] video_embeds, float[batch_size,16,3] img_features, float[num_labels,3] text_embeds)
    => (float[batch_size,num_labels] logits_per_video)
<int64[2] patches = {1, 2}>
{
    columns = Transpose<perm = [1, 0]>(text_embeds)
    cosines = MatMul(video_embeds, columns)
    offset = ReduceMax<keepdims = 0>(img_features, patches)
    one = Unsqueeze(offset, axis)
    logits_per_video = Add(cosines, one)
}
""".replace("<int64[2] patches = {1, 2}>", "<int64[2] patches = {1, 2}, int64[1] axis = {1}>")


def write_graphs(folder):
    """The two graphs as files."""
    paths = []
    for name, text in (("vision", VISION), ("prompt", PROMPT)):
        model = parser.parse_model(text)
        onnx.checker.check_model(model, full_check=True)
        paths.append(folder / f"{name}.onnx")
        onnx.save(model, paths[-1])
    return paths


def clips(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *CLIP), dtype=np.uint8)


def expected_logits(pixels, embeds):
    values = pixels.astype(np.float32)
    return values.mean((1, 2, 3)) @ embeds.T + values.mean(1).max((1, 2, 3))[:, None]


class FakeCudaSession(Session):
    """The CPU provider with the manners of CUDA: memory of its own, fixed shapes, and graphs that are replayed.

    A graph is captured at the first run with its number; a replay with another binding or from another thread, which
    on a GPU would compute on the wrong memory, raises.
    """

    def __init__(self, path):
        super().__init__(path, SessionOptions("cpu"))
        self.options = replace(SessionOptions("cuda"), provider_options={})
        self.captured = {}
        self.batches = []

    @property
    def memory(self):
        return "cuda"

    def tensor(self, shape, dtype):
        value = super_tensor(self, shape, dtype)
        value.update_inplace(np.full(shape, 99, dtype))
        return value

    def tensor_of(self, array):
        value = super_tensor(self, array.shape, array.dtype.type)
        value.update_inplace(array)
        return value

    def run_bound(self, binding, graph_id):
        here = (binding, threading.get_ident())
        assert self.captured.setdefault(graph_id, here) == here, "a CUDA graph was replayed elsewhere"
        self.batches.append(binding.io.get_outputs()[0].shape()[0])
        self._session.run_with_iobinding(binding.io)


def super_tensor(session, shape, dtype):
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, "cpu", 0)
