"""Protobuf messages of Triton and ONNX (extra [triton])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import MissingExtraError

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig
except ModuleNotFoundError as error:
    feature = f"exporting to Triton (missing: {error.name})"
    raise MissingExtraError(feature, "triton") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

# The fields of onnx.proto3 that an initializer needs, as the runtime does without the onnx package.
_ONNX_SUBSET = """
name: "xclip_onnx_initializer.proto" package: "xclip_onnx" syntax: "proto3"
message_type { name: "Model"
  field { name: "graph" number: 7 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Graph" } }
message_type { name: "Graph"
  field { name: "initializer" number: 5 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Tensor" } }
message_type { name: "Tensor"
  field { name: "dims" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
  field { name: "data_type" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "name" number: 8 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "raw_data" number: 9 label: LABEL_OPTIONAL type: TYPE_BYTES } }
"""
_FLOAT = 1


def to_pbtxt(config: Mapping[str, Any]) -> str:
    """Return a model configuration, a JSON-like mapping of Triton's ModelConfig, as text for config.pbtxt."""
    text: str = text_format.MessageToString(json_format.ParseDict(config, ModelConfig()), as_utf8=True)
    return text


def initializer(name: str, values: NDArray[np.float32]) -> bytes:
    """Return bytes to append to a serialised ONNX graph so that its input `name` defaults to `values`.

    Concatenated protobuf messages are merged and their repeated fields joined
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins), so an appended ModelProto adds its initializers.
    An initializer with the name of an input is the input's default value (ONNX IR, since version 4).
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_ONNX_SUBSET, descriptor_pb2.FileDescriptorProto()))
    model = message_factory.GetMessageClass(pool.FindMessageTypeByName("xclip_onnx.Model"))()
    model.graph.initializer.add(dims=values.shape, data_type=_FLOAT, name=name, raw_data=values.astype("<f4").tobytes())
    encoded: bytes = model.SerializeToString()
    return encoded
