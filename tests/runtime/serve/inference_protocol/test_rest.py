"""The Open Inference Protocol, driven with Triton's own client, unchanged; and what clients may get wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import reduce
from operator import getitem

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from xclip_runtime.demo import DEMO_VIDEO, expected_label
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


def test_videos_of_one_request_wait_for_each_other_and_not_all_before_other_requests(server, triton, monkeypatch):
    decode, at_once = server.engine.pool.clip, []

    async def observed(*args, **options):
        at_once.append(at_once[-1] + 1 if at_once else 1)
        try:
            return await decode(*args, **options)
        finally:
            at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(server.engine.pool, "clip", observed)
    answer = triton.infer("xclip_video", [videos_input(*[VIDEO] * 4)])

    assert answer.as_numpy("video_embeds").shape == (4, 128)
    assert max(at_once) == server.engine.settings.decode_workers == 1


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


def test_the_configuration_is_as_the_client_expects(triton, model):
    clips, videos = triton.get_model_config("xclip"), triton.get_model_config("xclip_video", "1")

    assert clips["input"] == [{"name": "pixel_values", "data_type": "TYPE_UINT8", "dims": [32, 224, 224, 3]}]
    assert clips["output"][0] == {"name": "logits_per_video", "data_type": "TYPE_FP32", "dims": [len(model.labels)]}
    assert clips["max_batch_size"] == 32
    assert videos["input"] == [{"name": "video", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert videos["max_batch_size"] == 0


def test_statistics_count_requests_and_their_stages(triton, clip):
    def stats():
        [found] = triton.get_inference_statistics("xclip")["model_stats"]
        return found

    before = stats()
    triton.infer("xclip", [clips_input(np.stack([clip, clip]))])
    with pytest.raises(InferenceServerException):
        triton.infer("xclip", [clips_input(clip)])
    after = stats()

    def more(*path):
        return reduce(getitem, path, after) - reduce(getitem, path, before)

    assert after["name"] == "xclip"
    assert more("inference_count") == 2
    assert more("execution_count") >= 1
    assert more("inference_stats", "success", "count") == more("inference_stats", "fail", "count") == 1
    assert more("inference_stats", "compute_infer", "ns") > 0
    assert after["last_inference"] > 1e12
    assert [batch["batch_size"] for batch in after["batch_stats"]] == [1]
    names = [each["name"] for each in triton.get_inference_statistics()["model_stats"]]
    assert names == ["xclip", "xclip_video"]


HEADER = "Inference-Header-Content-Length"
TENSOR = '{"name":"pixel_values","datatype":"UINT8","shape":%s,"data":%s}'


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"{}", {HEADER: "9" * 5000}, "send the length of the JSON"),
        (b"{}", {HEADER: "\u00b2".encode()}, "send the length of the JSON"),
        (b"{}", {HEADER: "-1"}, "send the length of the JSON"),
        (b"{}", {HEADER: "3"}, "3 bytes of JSON exceed the body"),
        (b"", {}, "does not follow"),
        (b"[" * 100_000, {}, "does not follow"),
        (b'{"inputs":[]}', {}, "the inputs are none: send pixel_values alone"),
        (b'{"inputs":[' + (TENSOR % ([1] * 70, [])).encode() + b"]}", {}, "at most 8 sizes"),
        (b'{"inputs":[' + (TENSOR % ([2**32, 2**32], [])).encode() + b"]}", {}, "at most 8 sizes"),
        (b'{"inputs":[' + (TENSOR % ("[" + "9" * 5000 + "]", [])).encode() + b"]}", {}, "shape of more than"),
        (b'{"inputs":[' + (TENSOR % ([0, 32, 224, 224, 3], [])).encode() + b"]}", {}, "batch size is 0"),
        (
            b'{"inputs":[' + (TENSOR % ([1, 32, 224, 224, 3], json.dumps(["a" * 30_000]))).encode() + b"]}",
            {},
            "has fewer than",
        ),
        (b'{"inputs":[],"parameters":{"timeout":-1}}', {}, ">= 0"),
    ],
)
def test_what_no_client_would_send_is_an_error_of_the_client(server, body, headers, message):
    answer = server.client.post("/v2/models/xclip/infer", content=body, headers=headers)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_millions_of_empty_videos_are_counted_by_their_shape(server):
    payload = bytes(8 << 20)
    size = {"binary_data_size": len(payload)}
    tensor = {"name": "video", "datatype": "BYTES", "shape": [len(payload) // 4], "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = server.client.post(
        "/v2/models/xclip_video/infer", content=head + payload, headers={HEADER: str(len(head))}
    )

    assert answer.status_code == 400
    assert "batch size is 2097152" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": 1}', b"[" * 60_000])
def test_what_is_no_request_for_an_index_is_an_error_of_the_client(server, body):
    assert server.client.post("/v2/repository/index", content=body).status_code == 400


def test_a_request_for_an_index_is_small(server):
    assert server.client.post("/v2/repository/index", content=b"[]" * 100_000).status_code == 413


def test_the_document_of_the_api_says_what_is_answered(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    ours = {path: methods for path, methods in paths.items() if path.startswith("/v2") and "/health/" not in path}

    assert len(ours) == 10
    for methods in ours.values():
        for operation in methods.values():
            assert operation["tags"] == ["Open Inference Protocol"]
            assert operation["summary"]
            assert "401" in operation["responses"]
            assert ("422" in operation["responses"]) == operation["operationId"].startswith("infer")
            content = operation["responses"]["200"]["content"]["application/json"]
            assert content["schema"] != {} or "load" in operation["operationId"]
    infer = ours["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert {"400", "404", "413", "422", "502", "503", "504"} <= set(infer["responses"])


def test_every_route_has_an_example_that_works(server, tmp_path):
    shutil.copy(DEMO_VIDEO, tmp_path / "ride.mp4")
    paths = server.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if not path.startswith("/v2") or "/health/" in path:
            continue
        for operation in methods.values():
            [sample] = operation["x-codeSamples"]
            command = ["bash" if sample["lang"] == "Shell" else sys.executable, "-c"]
            source = sample["source"].replace("127.0.0.1:8000", server.address.removeprefix("http://"))
            done = subprocess.run([*command, source], cwd=tmp_path, capture_output=True, text=True, check=False)
            # This server lets no client load and unload models.
            assert (done.returncode == 0) == ("/repository/models/" not in path), (source, done.stderr)
