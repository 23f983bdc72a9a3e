"""Bodies of the Open Inference Protocol: what is read from them, and what the hostile ones cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fuzz_protocol import BODIES, bounded, check_body
from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import codec
from xclip_runtime.serve.inference_protocol.codec import Output, RequestedOutput


def body_of(document, payload=b""):
    head = json.dumps(document).encode()
    return memoryview(head + payload), len(head)


def json_tensor(shape, data, **fields):
    return body_of({"inputs": [{"name": "x", "datatype": "UINT8", "shape": shape, "data": data, **fields}]})


def uint8_of(body):
    [tensor] = codec.parse(*body).inputs
    return tensor.uint8()


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_no_body_does_worse_than_a_tensor_error(case):
    assert check_body(case) in {"parsed", "refused"}


@given(rows=st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_tensors_are_read_as_they_were_written(rows):
    payload = b"".join(len(row).to_bytes(4, "little") + row for row in rows)
    tensor = {"name": "v", "datatype": "BYTES", "shape": [len(rows)], "parameters": {"binary_data_size": len(payload)}}

    assert codec.parse(*body_of({"inputs": [tensor]}, payload)).inputs[0].strings() == rows


@given(st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=1, max_size=20))
def test_numbers_may_be_nested_or_flat(rows):
    flat = [value for row in rows for value in row]

    np.testing.assert_array_equal(uint8_of(json_tensor([len(rows), 3], rows)), rows)
    np.testing.assert_array_equal(uint8_of(json_tensor([len(rows), 3], flat)), rows)


def test_long_lists_are_read_piece_by_piece_and_none_of_their_numbers_is_lost():
    values = np.arange(1_500_000) % 256

    np.testing.assert_array_equal(uint8_of(json_tensor([1500, 1000], values.tolist())), values.reshape(1500, 1000))


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ([2], [1], "has fewer than 2 elements|has 1 elements"),
        ([1], [1, 2], "has 2 elements: send 1"),
        ([1], [256], "no integers from 0 to 255"),
        ([1], [-1], "no integers from 0 to 255"),
        ([1], [1.5], "no integers from 0 to 255"),
        ([1], ["a,b"], "no integers from 0 to 255"),
        ([1], [None], "no integers from 0 to 255"),
        ([1], {"a": 1}, "no integers from 0 to 255"),
        ([2], [[], [1]], "no integers from 0 to 255|has 1 elements"),
        ([-1], [1], "send at most 8 sizes"),
        ([1] * 9, [1], "send at most 8 sizes"),
        ([2**31], [1], "send at most 8 sizes"),
        ([1.0], [1], "got `float`"),
        ("a", [1], "got `str`"),
    ],
)
def test_values_that_do_not_fit_are_refused(shape, data, message):
    with pytest.raises(TensorError, match=message):
        uint8_of(json_tensor(shape, data))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1]}]}, "neither data nor binary_data_size"),
        ({"inputs": [{"name": "x" * 300, "datatype": "UINT8", "shape": [1], "data": [1]}]}, "length <= 256"),
        ({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [1]}] * 2}, "same name"),
        ({"inputs": [], "outputs": [{"name": "y"}] * 2}, "same name"),
        ({"inputs": [], "outputs": [{"name": "y"}] * 17}, "length <= 16"),
        ({"inputs": [], "id": 1}, "got `int`"),
        ({"inputs": [], "id": "a" * 300}, "length <= 256"),
        ({"outputs": []}, "required field `inputs`"),
        ([], "Expected `object`"),
    ],
)
def test_documents_that_do_not_follow_the_protocol_say_where(document, message):
    with pytest.raises(TensorError, match=message):
        codec.parse(*body_of(document))


HEAD = '{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":'
ATTACKS = {
    "a long string before numbers": HEAD + '["' + "a" * 30_000 + '"' + ",0" * 15_000 + "]}]}",
    "empty lists": HEAD + "[" + "[]," * 500_000 + "0]}]}",
    "lists in lists": HEAD + "[" * 500_000,
    "short strings": HEAD + "[" + '"aa",' * 300_000 + "0]}]}",
    "numbers in place of a shape": '{"inputs":[{"name":"x","datatype":"UINT8","shape":[' + "1," * 500_000 + "1]}]}",
    "many inputs": '{"inputs":[' + '{"name":"x","datatype":"","shape":[]},' * 40_000 + "{}]}",
    "many outputs": '{"inputs":[],"outputs":[' + '{"name":"x"},' * 100_000 + '{"name":"x"}]}',
    "many empty objects": '{"inputs":[],"outputs":[' + "{}," * 500_000 + "{}]}",
    "many parameters": '{"inputs":[],"parameters":{' + '"a":[],' * 200_000 + '"a":[]}}',
    "unknown fields": '{"inputs":[],"x":[' + "[]," * 500_000 + "0]}",
    "a long number": '{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":' + "9" * 1_000_000 + "}]}",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_document_costs_little_more_than_its_own_size(attack):
    body = memoryview(ATTACKS[attack].encode())

    def read():
        try:
            for tensor in codec.parse(body, None).inputs:
                tensor.uint8()
        except TensorError:
            return "refused"
        return "parsed"

    bounded(len(body), read)


def test_elements_without_length_are_read_no_further_than_the_shape_says():
    payload = bytes(8 << 20)
    tensor = {"name": "v", "datatype": "BYTES", "shape": [32], "parameters": {"binary_data_size": len(payload)}}
    [parsed] = codec.parse(*body_of({"inputs": [tensor]}, payload)).inputs

    def read():
        with pytest.raises(TensorError, match=f"has {len(payload) - 128} bytes after its 32 elements"):
            parsed.strings()
        return ""

    bounded(1000, read)


def test_answers_say_where_their_json_ends():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    wanted = [RequestedOutput("a", True, 0), RequestedOutput("b", False, 2)]
    body, length = codec.pack({"model_name": "m"}, [Output(one, values, ["x", "y", "z"]) for one in wanted])

    document = json.loads(body[:length])
    assert document["outputs"][0] == {
        "name": "a",
        "datatype": "FP32",
        "shape": [2, 3],
        "parameters": {"binary_data_size": 24},
    }
    assert body[length:] == values.tobytes()
    assert document["outputs"][1]["data"] == ["2.000000:2:z", "1.000000:1:y", "5.000000:2:z", "4.000000:1:y"]
