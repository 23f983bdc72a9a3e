"""Messages are bounded before protobuf sees them."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from tritonclient.grpc import service_pb2 as messages

from helpers.fuzz_protocol import ENCODED, MESSAGES, check_message
from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import wire


@settings(max_examples=150, deadline=None)
@given(ENCODED)
def test_no_message_does_worse_than_a_tensor_error(data):
    assert check_message(data) in {"parsed", "refused"}


@settings(max_examples=30, deadline=None)
@given(MESSAGES)
def test_what_is_accepted_is_what_protobuf_reads(data):
    try:
        parsed = wire.parse(data, messages.ModelInferRequest)
    except TensorError:
        return
    assert parsed.SerializeToString(deterministic=True) == messages.ModelInferRequest.FromString(
        data
    ).SerializeToString(deterministic=True)


def test_every_kind_of_field_is_read():
    message = messages.ModelInferRequest()
    message.inputs.add().contents.fp64_contents.extend([1.0, 2.0])
    message.inputs.add().contents.fp32_contents.extend([1.0])
    for field, value in (("int64_param", -1), ("double_param", 1.0), ("bool_param", True), ("string_param", "a")):
        setattr(message.parameters[field], field, value)
    fixed32 = b"\xfd\x3f1234"  # an unknown field of 4 bytes

    assert wire.parse(message.SerializeToString() + fixed32, messages.ModelInferRequest).inputs == message.inputs


def test_fields_count_in_whatever_message_they_are():
    nested = FileDescriptorProto()
    for _ in range(wire.MAX_FIELDS // 2 + 1):
        nested.message_type.add(name="a")

    with pytest.raises(TensorError, match="more than 1000 fields"):
        wire.parse(nested.SerializeToString(), FileDescriptorProto)


@pytest.mark.parametrize(("contents", "size"), [("int64_contents", 8), ("uint_contents", 4), ("bool_contents", 1)])
def test_lists_of_numbers_have_a_limit_in_memory(contents, size):
    def parse(count):
        # Zeros, a byte each on the wire.
        field = messages.InferTensorContents.DESCRIPTOR.fields_by_name[contents].number
        listed = bytes([field << 3 | 2]) + encoded(count) + bytes(count)
        tensor = b"\x2a" + encoded(len(listed)) + listed
        return wire.parse(b"\x2a" + encoded(len(tensor)) + tensor, messages.ModelInferRequest)

    most = wire.MAX_LISTED_BYTES // size
    assert len(getattr(parse(most).inputs[0].contents, contents)) == most
    with pytest.raises(TensorError, match="send tensors as raw_input_contents"):
        parse(most + 1)


def test_raw_contents_have_no_limit_of_their_own():
    message = messages.ModelInferRequest(raw_input_contents=[bytes(wire.MAX_LISTED_BYTES + 1)])

    assert len(wire.parse(message.SerializeToString(), messages.ModelInferRequest).raw_input_contents) == 1


def encoded(number):
    """A number as protobuf encodes it."""
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + encoded(number >> 7) if number > 0x7F else low
