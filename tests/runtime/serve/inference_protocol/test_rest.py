"""The Open Inference Protocol, driven with Triton's own client, unchanged; and what clients may get wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import codec
from xclip_runtime.serve.inference_protocol.codec import Output, RequestedOutput
from xclip_runtime.video import read_clip

VIDEO = DEMO_VIDEO.read_bytes()


@pytest.fixture(scope="module")
def triton(server):
    with InferenceServerClient(server.address.removeprefix("http://"), network_timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def clip(model):
    return read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform).frames


def clips_input(clips, *, binary=True):
    tensor = InferInput("pixel_values", list(clips.shape), "UINT8")
    tensor.set_data_from_numpy(clips, binary_data=binary)
    return tensor


def videos_input(*videos):
    tensor = InferInput("video", [len(videos)], "BYTES")
    tensor.set_data_from_numpy(np.array(videos, dtype=object))
    return tensor


def test_health_and_metadata_are_as_the_client_expects(triton, model):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("xclip")
    assert triton.is_model_ready("xclip_video", "1")
    assert not triton.is_model_ready("other")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("xclip")
    assert metadata["inputs"] == [{"name": "pixel_values", "datatype": "UINT8", "shape": [-1, 32, 224, 224, 3]}]
    assert {o["name"]: o["shape"] for o in metadata["outputs"]} == {
        "logits_per_video": [-1, len(model.labels)],
        "video_embeds": [-1, 128],
    }
    assert triton.get_model_metadata("xclip_video")["inputs"][0]["datatype"] == "BYTES"


def test_clips_go_in_as_bytes_and_logits_come_out(triton, model, clip):
    clips = np.stack([clip, 255 - clip])
    answer = triton.infer("xclip", [clips_input(clips)], request_id="mine")

    expected = np.stack([model.logits(one) for one in clips])
    np.testing.assert_allclose(answer.as_numpy("logits_per_video"), expected, atol=1e-4)
    embeds = [features.video_embeds for features in model.features_batch(clips)]
    np.testing.assert_allclose(answer.as_numpy("video_embeds"), embeds, atol=1e-4)
    assert answer.get_response()["id"] == "mine"


def test_an_output_that_is_not_asked_for_does_not_come(triton, clip):
    wanted = [InferRequestedOutput("video_embeds", binary_data=False)]
    answer = triton.infer("xclip", [clips_input(clip[None])], outputs=wanted, model_version="1")

    assert answer.as_numpy("logits_per_video") is None
    assert answer.as_numpy("video_embeds").shape == (1, 128)


def test_encoded_videos_go_in_and_classes_come_out(triton, model):
    wanted = [
        InferRequestedOutput("logits_per_video", class_count=2),
        InferRequestedOutput("video_embeds"),
    ]
    answer = triton.infer("xclip_video", [videos_input(VIDEO, VIDEO)], outputs=wanted)

    best = answer.as_numpy("logits_per_video")
    value, index, label = best[0, 0].decode().split(":")
    assert best.shape == (2, 2)
    assert label == expected_label() == model.labels[int(index)]
    assert float(value) == pytest.approx(model.classify(DEMO_VIDEO).top.logit, abs=1e-4)
    assert answer.as_numpy("video_embeds").shape == (2, 128)


def test_requests_of_the_client_may_overlap(triton, clip, model):
    pending = [triton.async_infer("xclip", [clips_input(clip[None])]) for _ in range(3)]
    for request in pending:
        np.testing.assert_allclose(request.get_result().as_numpy("logits_per_video")[0], model.logits(clip), atol=1e-4)


def test_tensors_may_come_and_go_as_json(server, model, clip):
    grey = np.full_like(clip, 7)
    values = "7," * (grey.size - 1) + "7"
    tensor = f'{{"name":"pixel_values","datatype":"UINT8","shape":{[1, *clip.shape]},"data":[{values}]}}'
    answer = server.client.post("/v2/models/xclip/infer", content=f'{{"inputs":[{tensor}]}}').json()
    outputs = {output["name"]: output for output in answer["outputs"]}

    assert outputs["logits_per_video"]["data"] == pytest.approx(model.logits(grey).tolist(), abs=1e-4)
    assert outputs["logits_per_video"]["shape"] == [1, len(model.labels)]


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (lambda t, c: t.infer("other", [clips_input(c[None])]), "no model other"),
        (lambda t, c: t.infer("xclip", [clips_input(c[None])], model_version="2"), "version 2"),
        (lambda t, c: t.infer("xclip", [clips_input(c)]), "pixel_values has shape"),
        (lambda t, c: t.infer("xclip", [clips_input(c[None, :8])]), "pixel_values has shape"),
        (lambda t, c: t.infer("xclip", [clips_input(c[:0][None].reshape(0, 32, 224, 224, 3))]), "batch size is 0"),
        (lambda t, c: t.infer("xclip", [videos_input(VIDEO)]), "send pixel_values alone"),
        (lambda t, c: t.infer("xclip_video", [videos_input(b"no video")]), "cannot be opened as a video"),
        (lambda t, c: t.infer("xclip_video", [videos_input(VIDEO[:2000])]), "cannot be opened"),
        (
            lambda t, c: t.infer("xclip", [clips_input(c[None])], outputs=[InferRequestedOutput("probs")]),
            "no output probs",
        ),
        (
            lambda t, c: t.infer("xclip", [clips_input(c[None])], request_compression_algorithm="gzip"),
            "compressed bodies are not supported",
        ),
        (lambda t, c: t.infer("xclip", [clips_input(c[None])], timeout=1), "took longer than"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_client(triton, clip, send, message):
    with pytest.raises(InferenceServerException, match=message):
        send(triton, clip)


def body_of(document, payload=b""):
    head = json.dumps(document).encode()
    return memoryview(head + payload), len(head)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), length=st.one_of(st.none(), st.integers(0, 400)))
def test_no_body_does_worse_than_a_tensor_error(data, length):
    with pytest.raises(TensorError):
        codec.parse(memoryview(data), length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "name": JSON,
    "datatype": st.sampled_from(["UINT8", "BYTES", "FP32", None]),
    "shape": JSON,
    "data": JSON,
    "parameters": st.none() | st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-5, 50) | JSON}),
}


@settings(max_examples=150, deadline=None)
@given(
    inputs=st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=2),
    rest=st.fixed_dictionaries({}, optional={"id": JSON, "outputs": JSON, "parameters": JSON}),
    payload=st.binary(max_size=20),
)
def test_no_document_does_worse_than_a_tensor_error(inputs, rest, payload):
    try:
        request = codec.parse(*body_of({"inputs": inputs, **rest}, payload))
        for tensor in request.inputs.values():
            for read in (tensor.uint8, tensor.strings):
                try:
                    read()
                except TensorError:
                    continue
    except TensorError:
        return


@given(rows=st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_tensors_are_read_as_they_were_written(rows):
    payload = b"".join(len(row).to_bytes(4, "little") + row for row in rows)
    tensor = {"name": "v", "datatype": "BYTES", "shape": [len(rows)], "parameters": {"binary_data_size": len(payload)}}

    assert codec.parse(*body_of({"inputs": [tensor]}, payload)).inputs["v"].strings() == rows


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
