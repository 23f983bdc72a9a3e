"""Health, metrics, logs, keys, limits: what keeps a server running."""

from __future__ import annotations

import copy
import json
import logging
import re
import socket
import tempfile

import pytest

from helpers.servers import Gate, eventually, in_background, in_thread, metric, running
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import DeviceError
from xclip_runtime.serve import app as app_module
from xclip_runtime.serve import middleware
from xclip_runtime.serve.logs import JsonFormatter, request_id
from xclip_runtime.serve.server import Server
from xclip_runtime.serve.settings import Limits, ServeSettings
from xclip_runtime.serve.upload_dir import PREFIX, UploadDir

VIDEO = DEMO_VIDEO.read_bytes()


def test_a_server_listens_on_this_machine_alone(server):
    assert server.address.startswith("http://127.0.0.1:")


def test_a_server_that_takes_requests_is_live_and_ready(server):
    assert server.client.get("/v2/health/live").status_code == 200
    assert server.client.get("/v2/health/ready").status_code == 200


def test_it_is_not_ready_before_its_self_test_has_passed_nor_when_it_is_about_to_end(model):
    gate = Gate(model)
    gate.opened.clear()
    slow = copy.copy(gate.model)
    slow.logits = lambda frames: (gate.opened.wait(60), model.logits(frames))[1]
    server = Server(slow, ServeSettings(decode_workers=1), port=0)
    with in_thread(server) as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        refused = client.post("/v1/classify", content=VIDEO)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        eventually(lambda: client.get("/v2/health/ready").status_code == 200)
        server.engine.draining = True
        assert client.get("/v2/health/ready").status_code == 503


def test_a_model_that_computes_something_else_never_becomes_ready(model):
    wrong = copy.copy(model)
    wrong.logits = lambda frames: model.logits(frames) + 1
    server = Server(wrong, ServeSettings(decode_workers=1), port=0)

    with in_thread(server):
        pass

    assert isinstance(server.error, DeviceError)
    assert "self-test" in str(server.error)


def test_metrics_count_requests_by_how_they_ended(server):
    ok, refused = (
        metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome=o) for o in ("ok", "refused")
    )
    stages = {
        s: metric(server, "xclip_stage_seconds_count", stage=s) for s in ("decode", "prepare", "vision", "prompt")
    }
    batches = metric(server, "xclip_batch_size_count")

    server.client.post("/v1/classify", content=VIDEO)
    server.client.post("/v1/classify", content=b"no video")

    assert metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="ok") == ok + 1
    assert metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="refused") == refused + 1
    assert all(metric(server, "xclip_stage_seconds_count", stage=s) == n + 1 for s, n in stages.items())
    assert metric(server, "xclip_batch_size_count") == batches + 1
    assert metric(server, "xclip_requests_in_flight") == 0


def test_metrics_tell_the_provider_that_runs(server):
    assert metric(server, "xclip_info", provider="CPUExecutionProvider", precision="fp32") == 1
    [info] = re.findall(r"^xclip_info\{(.*)\}", server.client.get("/metrics").text, flags=re.MULTILINE)
    assert "None" not in info
    assert "batch" not in info


def test_unknown_paths_do_not_fill_the_metrics(server):
    server.client.get("/some/path/that/nobody/made")

    assert "nobody" not in server.client.get("/metrics").text


@pytest.mark.parametrize(("given", "kept"), [("abc-123.x", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_a_request_keeps_its_id_or_gets_one(server, given, kept):
    returned = server.client.get("/v2/health/live", headers={"X-Request-ID": given}).headers["x-request-id"]

    assert (returned == given) is kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", returned)


def test_every_request_is_one_line_of_json_with_its_id(server, caplog):
    with caplog.at_level(logging.INFO, "xclip_runtime.serve"):
        reply = server.client.post("/v1/classify", content=b"no video", headers={"X-Request-ID": "my-id"})
        # The request is logged once its response is sent.
        eventually(lambda: any(r.getMessage() == "request" for r in caplog.records))
    [record] = [r for r in caplog.records if r.getMessage() == "request"]
    token = request_id.set("my-id")
    document = json.loads(JsonFormatter().format(record))
    request_id.reset(token)

    assert reply.status_code == 422
    assert document.items() >= {"level": "info", "request_id": "my-id", "path": "/v1/classify", "status": 422}.items()
    assert document["ms"] > 0


def test_what_nobody_expected_is_a_plain_500_and_its_traceback_stays_in_the_log(model, caplog):
    broken = copy.copy(model)

    def raise_error(*_):
        message = "secret detail"
        raise RuntimeError(message)

    broken.prompt_logits = raise_error
    with running(model) as server:
        server.served.model = broken
        reply = server.classify(DEMO_VIDEO)

    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"]["request_id"] == reply.headers["x-request-id"]
    assert reply.json()["error"]["type"] == "InternalError"
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("path", ["/v1/info", "/v2/models/xclip", "/metrics", "/v1/nothing"])
def test_an_error_anywhere_is_json(server, monkeypatch, path):
    def broken(*_):
        message = "secret detail"
        raise RuntimeError(message)

    for name in ("get", "default"):
        monkeypatch.setattr(type(server.engine.registry), name, property(broken))
    monkeypatch.setattr(server.engine.metrics, "text", broken)
    monkeypatch.setattr(app_module, "key_in", broken)
    reply = server.client.get(path)

    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/json"
    assert "internal error" in str(reply.json()["error"])
    assert "secret" not in reply.text


def test_keys_are_asked_for_everywhere_but_at_the_door(model):
    with running(model, api_keys=("one", "two")) as server:
        get = server.client.get
        assert {get(path).status_code for path in ("/", "/docs", "/v2/health/live", "/v2/health/ready")} == {200}
        assert {get(path).status_code for path in ("/v1/info", "/metrics", "/v2", "/nothing")} == {401}
        assert server.client.post("/v1/classify", content=VIDEO).status_code == 401
        assert get("/v1/info", headers={"Authorization": "Bearer three"}).status_code == 401
        assert get("/v1/info", headers={"Authorization": "Bearer two"}).status_code == 200
        assert get("/v1/info", headers={"X-API-Key": "one"}).status_code == 200


def test_the_documentation_of_the_api_says_which_routes_need_a_key(model, server):
    with running(model, api_keys=("one",)) as locked:
        document = locked.client.get("/openapi.json").json()
    security = {
        path: operation.get("security") for path, methods in document["paths"].items() for operation in methods.values()
    }

    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"apiKey", "http"}
    either = [{name: []} for name in document["components"]["securitySchemes"]]
    assert {path for path, schemes in security.items() if schemes is None} == {
        "/healthz",
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert all(sorted(map(str, s)) == sorted(map(str, either)) for s in security.values() if s is not None)
    assert "securitySchemes" not in server.client.get("/openapi.json").json()["components"]


def test_a_key_is_asked_for_before_the_body_is_read_or_judged(model):
    with running(model, api_keys=("one",), limits=Limits(upload=10_000)) as server:
        reply = server.client.post("/v1/classify?top_k=0", content=VIDEO)

    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("announced", [True, False], ids=["by its length", "as it comes"])
def test_a_body_over_the_limit_is_refused_and_leaves_nothing(model, announced, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def chunks():
        yield VIDEO

    with running(model, limits=Limits(upload=10_000)) as server:
        reply = server.client.post("/v1/classify", content=VIDEO if announced else chunks())
        form = server.client.post("/v1/classify", files={"video": VIDEO})
        [folder] = tmp_path.iterdir()
        left = list(folder.iterdir())

    assert reply.status_code == form.status_code == 413
    assert left == []


def test_a_client_that_sends_far_too_much_reads_why_it_is_refused(model):
    with running(model, limits=Limits(upload=10_000)) as server:
        replies = [server.client.post("/v1/classify", content=bytes(5_000_000)) for _ in range(60)]

    assert {reply.status_code for reply in replies} == {413}
    assert all("send a shorter part" in reply.json()["error"]["message"] for reply in replies)


@pytest.mark.parametrize("expects", [True, False], ids=["asks before it sends", "stalls"])
def test_a_client_that_announces_too_much_and_sends_nothing_is_not_waited_for(model, expects, monkeypatch):
    monkeypatch.setattr(middleware, "_DRAINED_SECONDS", 600 if expects else 0.05)
    head = "POST /v1/classify HTTP/1.1\r\nHost: here\r\nContent-Length: 20000000\r\n"
    with running(model, limits=Limits(upload=10_000)) as server:
        address = server.client.base_url
        with socket.create_connection((address.host, address.port), timeout=20) as connection:
            connection.sendall(f"{head}{'Expect: 100-continue' if expects else 'X: y'}\r\n\r\n".encode())
            answer = connection.recv(1000)

    assert answer.startswith(b"HTTP/1.1 413")


def test_uploads_are_gone_after_every_request_and_their_folder_with_the_server(model, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with running(model) as server:
        server.classify(DEMO_VIDEO)
        server.client.post("/v1/classify", content=b"no video")
        server.client.post("/v1/classify", content=VIDEO[:3000])
        server.client.post("/v1/classify?views=0x0", content=VIDEO)
        server.client.post("/v1/classify", files={"video": VIDEO})
        [folder] = tmp_path.iterdir()
        assert list(folder.iterdir()) == []

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_behind_is_swept_and_what_a_living_one_has_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = UploadDir()
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "video").write_bytes(VIDEO)

    other = UploadDir()

    assert set(tmp_path.iterdir()) == {living.path, other.path}
    living.close()
    other.close()


def test_the_queue_is_bounded_and_every_request_is_answered(model):
    gate = Gate(model)
    with running(gate.model, queue=2) as server, gate.closed():
        first = in_background(lambda: server.classify(DEMO_VIDEO))
        second = in_background(lambda: server.classify(DEMO_VIDEO))
        eventually(lambda: server.engine.in_flight == 2)

        refused = server.classify(DEMO_VIDEO)
        gate.opened.set()

        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert [first().status_code, second().status_code] == [200, 200]
        assert server.classify(DEMO_VIDEO).status_code == 200
        assert metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="overloaded") == 1


def test_clips_that_wait_go_through_the_model_together(model):
    gate = Gate(model)
    with running(gate.model, batch_size=4) as server, gate.closed():
        answers = [in_background(lambda: server.classify(DEMO_VIDEO))]
        eventually(lambda: server.engine.in_flight == 1 and metric(server, "xclip_batch_size_count") == 1)
        answers += [in_background(lambda: server.classify(DEMO_VIDEO)) for _ in range(3)]
        eventually(lambda: server.served.batcher.waiting == 3)
        gate.opened.set()
        labels = [answer().json()["labels"] for answer in answers]

        assert metric(server, "xclip_batch_size_count") == 2
        assert metric(server, "xclip_batch_size_sum") == 4
        for other in labels[1:]:
            assert [s["logit"] for s in other] == pytest.approx([s["logit"] for s in labels[0]], abs=1e-4)


@pytest.mark.parametrize("asked_by", ["server", "client"])
def test_a_request_over_its_deadline_is_given_up(model, asked_by):
    gate = Gate(model)
    settings = {"request_timeout": 0.5} if asked_by == "server" else {}
    headers = {} if asked_by == "server" else {"X-Request-Timeout": "0.5"}
    with running(gate.model, **settings) as server, gate.closed():
        reply = server.classify(DEMO_VIDEO, headers=headers)

        assert reply.status_code == 504
        assert server.engine.in_flight == 0
        gate.opened.set()


def test_a_client_who_leaves_frees_the_place(model):
    gate = Gate(model)
    with running(gate.model) as server, gate.closed():
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(VIDEO)}\r\n\r\n"
            connection.sendall(head.encode() + VIDEO)
            eventually(lambda: metric(server, "xclip_batch_size_count") == 1)
        eventually(lambda: server.engine.in_flight == 0)
        gate.opened.set()

        assert metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="cancelled") == 1


def test_a_slow_upload_is_given_up_at_the_deadline(model):
    with running(model, request_timeout=0.3) as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nfew")
            reply = connection.recv(4096)

        assert reply.startswith(b"HTTP/1.1 504")
        assert server.engine.in_flight == 0
