"""The Open Inference Protocol over gRPC, driven with Triton's own client, unchanged; and what clients may get wrong."""

from __future__ import annotations

import copy
import gc
import json
import logging
import signal
import sys
import threading
from contextlib import contextmanager

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2
from tritonclient.utils import InferenceServerException

from helpers.servers import COMMAND, PATIENCE, Gate, eventually, finished, in_background, metric, process, running
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import XClipError
from xclip_runtime.serve.inference_protocol.health import HEALTH
from xclip_runtime.serve.inference_protocol.rpc import SERVICE
from xclip_runtime.serve.settings import Limits
from xclip_runtime.video import read_clip

VIDEO = DEMO_VIDEO.read_bytes()
INFER = f"/{SERVICE}/ModelInfer"


@contextmanager
def connected(model, **settings):
    """A server of both protocols, and Triton's client for it."""
    with (
        running(model, grpc_port=0, **settings) as server,
        InferenceServerClient(server.server.grpc_address) as client,
    ):
        yield server, client


@pytest.fixture(scope="module")
def pair(model):
    with connected(model) as pair:
        yield pair


@pytest.fixture
def both(pair):
    return pair[0]


@pytest.fixture
def triton(pair):
    return pair[1]


@pytest.fixture(scope="module")
def clip(model):
    return read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform).frames


def clips_input(clips):
    tensor = InferInput("pixel_values", list(clips.shape), "UINT8")
    tensor.set_data_from_numpy(clips)
    return tensor


def videos_input(*videos):
    tensor = InferInput("video", [len(videos)], "BYTES")
    tensor.set_data_from_numpy(np.array(videos, dtype=object))
    return tensor


def classify(client, **options):
    return client.infer("xclip_video", [videos_input(VIDEO)], **options).as_numpy("logits_per_video")


def test_health_and_metadata_are_as_the_client_expects(triton, both, model):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("xclip")
    assert triton.is_model_ready("xclip_video", "1")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata().name == "xclip-onnx"
    rest = both.client.get("/v2/models/xclip").json()
    metadata = triton.get_model_metadata("xclip", as_json=True)
    assert metadata["platform"] == rest["platform"]
    for kind in ("inputs", "outputs"):
        shapes = {tensor["name"]: (tensor["datatype"], list(map(int, tensor["shape"]))) for tensor in metadata[kind]}
        assert shapes == {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in rest[kind]}


def test_clips_go_in_as_bytes_and_logits_come_out(triton, model, clip):
    clips = np.stack([clip, 255 - clip])
    answer = triton.infer("xclip", [clips_input(clips)], request_id="mine")

    expected = np.stack([model.logits(one) for one in clips])
    np.testing.assert_allclose(answer.as_numpy("logits_per_video"), expected, atol=1e-4)
    embeds = [features.video_embeds for features in model.features_batch(clips)]
    np.testing.assert_allclose(answer.as_numpy("video_embeds"), embeds, atol=1e-4)
    assert answer.get_response().id == "mine"


def test_encoded_videos_go_in_and_classes_come_out(triton, model):
    wanted = [InferRequestedOutput("logits_per_video", class_count=2)]
    answer = triton.infer("xclip_video", [videos_input(VIDEO, VIDEO)], outputs=wanted, model_version="1")

    best = answer.as_numpy("logits_per_video")
    value, index, label = best[0, 0].decode().split(":")
    assert best.shape == (2, 2)
    assert label == expected_label() == model.labels[int(index)]
    assert float(value) == pytest.approx(model.classify(DEMO_VIDEO).top.logit, abs=1e-4)
    assert answer.as_numpy("video_embeds") is None


def test_requests_of_the_client_may_overlap(triton, clip, model):
    answers, done = [], threading.Semaphore(0)

    def take(result, error):
        answers.append(error or result)
        done.release()

    for _ in range(3):
        triton.async_infer("xclip", [clips_input(clip[None])], take)
    assert all(done.acquire(timeout=PATIENCE) for _ in range(3))

    for answer in answers:
        np.testing.assert_allclose(answer.as_numpy("logits_per_video")[0], model.logits(clip), atol=1e-4)


def call(server, request, **options):
    """A request as the client would not make it."""
    with grpc.insecure_channel(server.server.grpc_address) as channel:
        send = channel.unary_unary(INFER, request.SerializeToString, service_pb2.ModelInferResponse.FromString)
        return send(request, timeout=PATIENCE, **options)


def request_for(model, tensor, *, raw=(), **fields):
    request = service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], **fields)
    request.raw_input_contents.extend(raw)
    return request


def test_tensors_may_come_as_lists(both, model, clip):
    grey = np.full_like(clip, 7)
    listed = {"uint_contents": grey.ravel().tolist()}
    pixels = {"name": "pixel_values", "datatype": "UINT8", "shape": [1, *clip.shape], "contents": listed}
    video = {"name": "video", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [VIDEO]}}

    logits = [
        np.frombuffer(call(both, request_for(name, tensor)).raw_output_contents[0], np.float32)
        for name, tensor in (("xclip", pixels), ("xclip_video", video))
    ]

    np.testing.assert_allclose(logits, [model.logits(grey), model.logits(clip)], atol=1e-4)


@pytest.mark.parametrize(
    ("send", "code", "message"),
    [
        (lambda t, c: t.infer("other", [clips_input(c[None])]), "NOT_FOUND", "no model other"),
        (lambda t, c: t.infer("xclip", [clips_input(c[None])], model_version="2"), "NOT_FOUND", "version 2"),
        (lambda t, c: t.get_model_metadata("other"), "NOT_FOUND", "no model other"),
        (lambda t, c: t.infer("xclip", [clips_input(c)]), "INVALID_ARGUMENT", "pixel_values has shape"),
        (lambda t, c: t.infer("xclip", [videos_input(VIDEO)]), "INVALID_ARGUMENT", "send pixel_values alone"),
        (lambda t, c: t.infer("xclip_video", [videos_input(b"no")]), "INVALID_ARGUMENT", "cannot be opened as a video"),
        (lambda t, c: t.infer("xclip_video", [videos_input(VIDEO[:2000])]), "INVALID_ARGUMENT", "cannot be opened"),
        (
            lambda t, c: t.infer("xclip", [clips_input(c[None])], outputs=[InferRequestedOutput("probs")]),
            "INVALID_ARGUMENT",
            "no output probs",
        ),
        (lambda t, c: t.infer("xclip", [clips_input(c[None])], timeout=1), "DEADLINE_EXCEEDED", "took longer than"),
        (lambda t, c: t.get_trace_settings(), "UNIMPLEMENTED", "Method not"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_client(triton, clip, send, code, message):
    with pytest.raises(InferenceServerException, match=message) as caught:
        send(triton, clip)

    assert caught.value.status() == f"StatusCode.{code}"


@pytest.mark.parametrize(
    ("shape", "raw", "message"),
    [
        ([1, 32, 224, 224, 3], [b"few"], "has 3 elements"),
        ([-1, -32, 224, 224, 3], [bytes(32 * 224 * 224 * 3)], "has shape"),
        ([1] * 70, [b"few"], "at most 8 sizes"),
        ([2**32, 2**32], [b"few"], "at most 8 sizes"),
        ([1, 32, 224, 224, 3], [b"", b""], "1 inputs have 2 raw contents"),
        ([1, 32, 224, 224, 3], [], "has 0 elements"),
    ],
)
def test_messages_that_contradict_themselves_are_errors_of_the_client(both, shape, raw, message):
    tensor = {"name": "pixel_values", "datatype": "UINT8", "shape": shape}
    with pytest.raises(grpc.RpcError, match=message) as caught:
        call(both, request_for("xclip", tensor, raw=raw))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def raw_call(server, data, method="ModelInfer"):
    with grpc.insecure_channel(server.server.grpc_address) as channel:
        return channel.unary_unary(f"/{SERVICE}/{method}", bytes, bytes)(data, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff" * 20, "no valid ModelInferRequest"),
        (b"\x0a\x05ab", "no valid ModelInferRequest"),
        (b"\x0a\x02\xff\xff", "no valid ModelInferRequest"),
        (b"\x0b\x0c", "no valid ModelInferRequest"),
        (b"\x2a\x00" * 100_000, "more than 1000 fields"),
        (b"\x32\x03\x0a\x01a" * 100_000, "more than 1000 fields"),
        (b"\x32\x03\x0a\x01a" * 20, "20 outputs exceed the limit of 16"),
        (b"\x32\x03\x0a\x01a" * 2, "two outputs have the same name"),
        (b"\x1a\xac\x02" + b"a" * 300, "more than 256 characters"),
    ],
)
def test_messages_that_no_client_would_send_are_errors_of_the_client(both, data, message):
    with pytest.raises(grpc.RpcError, match=message) as caught:
        raw_call(both, b"\x0a\x05xclip" + data)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad"])
def test_every_method_refuses_what_is_no_message(both, method):
    with pytest.raises(grpc.RpcError, match="no valid") as caught:
        raw_call(both, b"\xff" * 20, method)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("kind", "value"), [("string_param", "1"), ("bool_param", True)])
def test_a_parameter_of_another_type_is_an_error_of_the_client(both, kind, value):
    request = service_pb2.ModelInferRequest(model_name="xclip")
    setattr(request.parameters["timeout"], kind, value)
    with pytest.raises(grpc.RpcError, match="parameter timeout is not an integer"):
        call(both, request)


@pytest.mark.parametrize("name", ["timeout", "classification"])
def test_negative_parameters_are_errors_of_the_client(both, name):
    request = service_pb2.ModelInferRequest(model_name="xclip")
    where = request if name == "timeout" else request.outputs.add(name="logits_per_video")
    where.parameters[name].int64_param = -1
    with pytest.raises(grpc.RpcError, match=f"parameter {name} is -1"):
        call(both, request)


def test_the_health_service_tells_of_the_server_and_of_each_model(model):
    with (
        running(model, grpc_port=0, api_keys=("one",)) as server,
        grpc.insecure_channel(server.server.grpc_address) as channel,
    ):
        health = HealthStub(channel)
        for service in ("", SERVICE, "grpc.health.v1.Health", "xclip", "xclip_video"):
            assert health.Check(HealthCheckRequest(service=service)).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="no model other") as caught:
            health.Check(HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        watched = health.Watch(HealthCheckRequest())
        assert next(watched).status == HealthCheckResponse.SERVING
        server.engine.draining = True
        assert health.Check(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING
        assert next(watched).status == HealthCheckResponse.NOT_SERVING
        watched.cancel()


def test_a_watch_of_the_health_has_limits(model):
    with (
        running(model, grpc_port=0, limits=Limits(connections=16)) as server,
        grpc.insecure_channel(server.server.grpc_address) as channel,
    ):
        watched = [HealthStub(channel).Watch(HealthCheckRequest()) for _ in range(17)]
        codes = []
        for one in watched:
            try:
                next(one)
            except grpc.RpcError as error:
                codes.append(error.code())
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        with pytest.raises(grpc.RpcError, match="no valid"):
            next(channel.unary_stream(f"/{HEALTH}/Watch")(b"\xff" * 20))
        # The server ends all the same, at once.


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (INFER, b"\x0a\x05other"),
        (INFER, b"\xff" * 20),
        (f"/{SERVICE}/ModelMetadata", b"\xff" * 20),
        (f"/{HEALTH}/Watch", b"\xff" * 20),
        (f"/{reflection.SERVICE_NAME}/ServerReflectionInfo", b"\xff" * 20),
    ],
)
def test_a_refused_message_is_freed_without_a_garbage_collection(both, path, data):
    def held():
        # The frames of an error hold the message that caused it, up to 64 MiB.
        return sum(issubclass(type(each), XClipError) for each in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        with grpc.insecure_channel(both.server.grpc_address) as channel, pytest.raises(grpc.RpcError):
            next(channel.stream_stream(path)(iter([data]), timeout=PATIENCE))
        eventually(lambda: held() <= before)
    finally:
        gc.enable()


def test_reflection_describes_the_services(both):
    with grpc.insecure_channel(both.server.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        described = database.FindFileContainingSymbol(SERVICE)

        assert set(database.get_services()) >= {SERVICE, "grpc.health.v1.Health"}
        assert "ModelInfer" in [method.name for method in described.service[0].method]

        info = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError, match="no valid ServerReflectionRequest") as caught:
            list(info(iter([b"\xff" * 20])))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_configuration_and_the_statistics_are_those_of_http(triton, both):
    classify(triton)
    config = triton.get_model_config("xclip", as_json=True)["config"]
    rest = both.client.get("/v2/models/xclip/config").json()
    [stats] = triton.get_inference_statistics("xclip_video", as_json=True)["model_stats"]

    assert config["input"][0]["data_type"] == rest["input"][0]["data_type"]
    assert [int(n) for n in config["input"][0]["dims"]] == rest["input"][0]["dims"]
    assert config["max_batch_size"] == rest["max_batch_size"]
    assert int(stats["inference_count"]) >= 1
    assert int(stats["inference_stats"]["success"]["ns"]) > 0
    assert [each["name"] for each in triton.get_inference_statistics(as_json=True)["model_stats"]] == [
        "xclip",
        "xclip_video",
    ]


def test_a_message_over_the_limit_is_refused(model, clip):
    with connected(model, limits=Limits(upload=1_000_000)) as (_, client):
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("xclip", [clips_input(clip[None])])
        assert classify(client).shape == (1, len(model.labels))


def test_keys_are_asked_for_everywhere_but_at_the_door(model):
    with connected(model, api_keys=("one",)) as (_, client):
        assert client.is_server_live()
        assert client.is_server_ready()
        for ask in (client.get_server_metadata, lambda **o: client.is_model_ready("xclip", **o)):
            with pytest.raises(InferenceServerException, match="API key") as caught:
                ask(headers={"x-api-key": "two"})
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        assert client.is_model_ready("xclip", headers={"authorization": "Bearer one"})
        assert len(classify(client, headers={"x-api-key": "one"})) == 1


def test_the_queue_is_shared_with_http_and_a_client_hears_when_to_come_again(model):
    gate = Gate(model)
    with running(gate.model, queue=1, grpc_port=0) as server, gate.closed():
        first = in_background(lambda: server.classify(DEMO_VIDEO))
        eventually(lambda: server.engine.in_flight == 1)
        video = {"name": "video", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [VIDEO]}}
        with pytest.raises(grpc.RpcError, match="queue is full") as caught:
            call(server, request_for("xclip_video", video))
        gate.opened.set()

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert 1000 <= int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) <= 60_000
        assert first().status_code == 200
        assert metric(server, "xclip_requests_total", endpoint=INFER, outcome="overloaded") == 1


def test_a_request_over_the_deadline_of_the_server_is_given_up(model):
    gate = Gate(model)
    with connected(gate.model, request_timeout=0.5) as (server, client), gate.closed():
        with pytest.raises(InferenceServerException, match=r"took longer than 0\.5 s"):
            classify(client)
        assert server.engine.in_flight == 0
        gate.opened.set()


def test_a_client_who_leaves_frees_the_place(model):
    gate = Gate(model)
    with connected(gate.model) as (server, client), gate.closed():
        left = client.async_infer("xclip_video", [videos_input(VIDEO)], lambda *_: None)
        eventually(lambda: metric(server, "xclip_batch_size_count") == 1)
        left.cancel()
        eventually(lambda: server.engine.in_flight == 0)
        gate.opened.set()

        eventually(lambda: metric(server, "xclip_requests_total", endpoint=INFER, outcome="cancelled") == 1)


def test_what_nobody_expected_stays_in_the_log(model, caplog):
    broken = copy.copy(model)

    def raise_error(*_):
        message = "secret detail"
        raise RuntimeError(message)

    broken.prompt_logits = raise_error
    with connected(model) as (server, client):
        server.served.model = broken
        with pytest.raises(InferenceServerException) as caught:
            classify(client)

    assert caught.value.status() == "StatusCode.INTERNAL"
    assert "secret" not in str(caught.value)
    assert "secret detail" in caplog.text


def test_every_request_is_counted_and_is_one_line_of_the_log_with_its_id(both, triton, caplog):
    before = metric(both, "xclip_requests_total", endpoint=INFER, outcome="ok")
    with caplog.at_level(logging.INFO, "xclip_runtime.serve"):
        classify(triton, headers={"x-request-id": "my-id"})
    [record] = [r for r in caplog.records if r.getMessage() == "request"]

    assert record.fields.items() >= {"method": "gRPC", "path": INFER, "status": 200, "client": "127.0.0.1"}.items()
    assert metric(both, "xclip_requests_total", endpoint=INFER, outcome="ok") == before + 1
    assert metric(both, "xclip_requests_in_flight") == 0


def test_on_sigterm_what_was_accepted_is_answered_and_what_comes_then_is_not_taken():
    with process("--grpc-port", "0", "--deadline", "60") as (server, address):
        [grpc_address] = [json.loads(line)["grpc"] for line in server.seen if '"listening"' in line]
        with InferenceServerClient(grpc_address) as client:
            # So many that some of them still wait when the signal comes.
            answers = [in_background(lambda: classify(client)) for _ in range(8)]
            eventually(lambda: b"xclip_requests_in_flight 8.0" in httpx.get(f"{address}/metrics").content)
            server.send_signal(signal.SIGTERM)
            assert [answer().shape for answer in answers] == [(1, 70)] * 8
            rest = server.communicate(timeout=PATIENCE)[1]
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.is_server_live()

    assert server.returncode == 0
    assert "Traceback" not in rest


def test_a_port_that_is_taken_is_said_in_one_line(both):
    port = both.server.grpc_address.rpartition(":")[2]
    done = finished([*COMMAND, "--port", "0", "--grpc-port", port])

    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_the_option_says_what_to_install():
    code = "import sys; sys.modules['grpc'] = None; from xclip_runtime.cli import main; main()"
    done = finished([sys.executable, "-c", code, "serve", "-b", str(DEMO_BUNDLE), "--grpc-port", "0"])

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'xclip-onnx[grpc]'")
