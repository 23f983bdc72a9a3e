"""Several models in one server: which one answers, and how they come and go without dropping a request."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import weakref
from functools import partial

import click
import httpx
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from helpers.bundles import copy_bundle, reseal
from helpers.servers import Gate, eventually, in_background, metric, process, resident, running
from xclip_runtime import XClip
from xclip_runtime.cli.serve import command
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.serve.metrics import Metrics
from xclip_runtime.serve.registry import Registry
from xclip_runtime.serve.served_model import Opened, ServedModel
from xclip_runtime.serve.settings import ServeSettings

VIDEO = DEMO_VIDEO.read_bytes()


def rename_labels(bundle, prefix):
    """Put a prefix before every label of a bundle."""
    path = bundle / "labels.json"
    labels = json.loads(path.read_text())
    labels["names"] = [prefix + name for name in labels["names"]]
    path.write_text(json.dumps(labels))
    reseal(bundle)
    return bundle


def opened(bundle):
    return Opened(XClip(bundle, device="cpu"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return rename_labels(copy_bundle(tmp_path_factory.mktemp("bundles") / "other"), "other/")


@pytest.fixture(scope="module")
def openers(model, other):
    return {"first": lambda: Opened(model), "second": partial(opened, other)}


@pytest.fixture(scope="module")
def two(openers):
    with running(openers, grpc_port=0) as server:
        yield server


def best(server, **fields):
    return server.client.post("/v1/classify", content=VIDEO, params=fields).json()["labels"][0]["label"]


def client_of(server, protocol):
    if protocol == "http":
        return tritonclient.http.InferenceServerClient(server.address.removeprefix("http://"), network_timeout=120)
    return tritonclient.grpc.InferenceServerClient(server.server.grpc_address)


def test_requests_name_their_model_and_the_first_is_the_default(two):
    assert best(two) == best(two, model="first") == expected_label()
    assert best(two, model="second") == f"other/{expected_label()}"
    form = two.client.post("/v1/classify", files={"video": VIDEO}, data={"model": "second"})
    assert form.json()["labels"][0]["label"] == f"other/{expected_label()}"


def test_info_names_all_models_and_tells_of_one(two):
    assert two.client.get("/v1/info").json().items() >= {"model": "first", "models": ["first", "second"]}.items()
    second = two.client.get("/v1/info", params={"model": "second"}).json()
    assert second["model"] == "second"
    assert second["labels"][0].startswith("other/")


def test_an_unknown_model_is_404_and_says_which_there_are(two):
    for answer in (two.client.get("/v1/info?model=x"), two.client.post("/v1/classify?model=x", content=VIDEO)):
        assert answer.status_code == 404
        assert "use first, second" in answer.json()["error"]["message"]


def test_a_kept_video_belongs_to_its_model(two):
    token = two.client.post("/v1/embed?keep=true&model=second", content=VIDEO).json()["token"]

    assert two.client.post("/v1/classify", json={"token": token, "model": "second"}).status_code == 200
    assert two.client.post("/v1/classify", json={"token": token}).status_code == 404


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_protocol_has_two_models_for_each_and_an_index_of_them(two, protocol):
    with client_of(two, protocol) as client:
        assert all(client.is_model_ready(name) for name in ("first", "first_video", "second", "second_video"))
        index = client.get_model_repository_index(**({"as_json": True} if protocol == "grpc" else {}))
        names = [entry["name"] for entry in (index["models"] if protocol == "grpc" else index)]
        assert names == ["first", "first_video", "second", "second_video"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_clients_load_and_unload_nothing_unless_they_may(two, protocol):
    with client_of(two, protocol) as client:
        for ask in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="--allow-model-control"):
                ask("second")
        assert client.is_model_ready("second")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_clients_who_may_load_and_unload(openers, protocol):
    with running(openers, grpc_port=0, allow_model_control=True) as server, client_of(server, protocol) as client:
        client.unload_model("second_video")

        assert not client.is_model_ready("second")
        assert not client.is_model_ready("second_video")
        states = {entry["name"]: entry for entry in server.client.post("/v2/repository/index").json()}
        assert states["second"] == {"name": "second", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
        ready = server.client.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in ready] == ["first", "first_video"]
        assert server.client.post("/v1/classify?model=second", content=VIDEO).status_code == 404
        assert metric(server, "xclip_info", model="second") == 0
        assert best(server) == expected_label()

        client.load_model("second")

        assert client.is_model_ready("second_video")
        assert best(server, model="second") == f"other/{expected_label()}"
        assert metric(server, "xclip_info", model="second") == 1
        with pytest.raises(InferenceServerException, match="no model third"):
            client.load_model("third")
        with pytest.raises(InferenceServerException, match="no config and no files"):
            client.load_model("second", files={"file:1/model.onnx": b"x"})


def reload(server):
    """Do what SIGHUP does."""
    loop = server.served.batcher._task.get_loop()
    asyncio.run_coroutine_threadsafe(server.engine.registry.reload(), loop).result(120)


def test_a_reload_takes_what_the_folder_holds_now_and_leaves_nothing_of_the_old_model(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    with running({"only": partial(opened, bundle)}) as server:
        rename_labels(bundle, "new/")
        assert best(server) == expected_label()
        old = weakref.ref(server.served.model)
        reload(server)
        assert best(server) == f"new/{expected_label()}"
        eventually(lambda: old() is None)


def test_loads_that_wait_are_one_load(openers):
    loads = []

    def counted():
        loads.append(1)
        return openers["second"]()

    async def run():
        metrics = Metrics()
        registry = Registry({"one": counted}, partial(served, metrics), metrics)
        await registry.start()
        asked = [asyncio.ensure_future(registry.load("one")) for _ in range(50)]
        await asyncio.sleep(0)
        for one in asked[:40]:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await registry.load("one")
        await registry.close()

    def served(metrics, name, opened):
        return ServedModel(name, opened, ServeSettings(), metrics, None)

    asyncio.run(run())
    assert len(loads) == 3


def test_a_reload_that_fails_leaves_the_old_model_in_place(tmp_path, caplog):
    bundle = copy_bundle(tmp_path / "bundle")
    with running({"only": partial(opened, bundle)}, allow_model_control=True) as server:
        (bundle / "labels.json").write_text("[]")
        reload(server)
        assert "reload failed" in caplog.text
        assert best(server) == expected_label()
        answer = server.client.post("/v2/repository/models/only/load")
        assert answer.status_code == 400
        assert "model only cannot be loaded" in answer.json()["error"]
        [entry, _] = server.client.post("/v2/repository/index").json()
        assert entry["state"] == "READY"
        assert "labels.json" in entry["reason"]


def test_a_request_that_has_begun_is_answered_by_the_old_model_which_is_closed_then(model, other):
    gate = Gate(model)
    openings = iter([lambda: Opened(gate.model), partial(opened, other)])
    with running({"only": lambda: next(openings)()}) as server:  # noqa: PLW0108
        old = server.served
        with gate.closed():
            pending = in_background(lambda: best(server))
            eventually(lambda: metric(server, "xclip_batch_size_count") == 1)
            reload(server)
            assert old.ready
            assert best(server) == f"other/{expected_label()}"
            gate.opened.set()

            assert pending() == expected_label()
        eventually(lambda: not old.ready)
        assert best(server) == f"other/{expected_label()}"


def test_no_request_fails_while_a_model_is_reloaded(model):
    with running(model) as server:
        stop, answers = threading.Event(), []

        def ask():
            while not stop.is_set():
                answers.append(server.classify(DEMO_VIDEO).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        reload(server)
        stop.set()
        for thread in threads:
            thread.join()

        assert answers
        assert set(answers) == {200}


def test_the_memory_of_old_models_is_given_back():
    with process() as (server, address):
        log = iter(server.stderr.readline, "")
        memory = resident(server.pid)
        for _ in range(3):
            server.send_signal(signal.SIGHUP)
            assert any('"reloaded"' in line for line in log)

        assert httpx.get(f"{address}/v1/info").status_code == 200
        eventually(lambda: resident(server.pid) < 1.08 * memory)


def test_the_command_names_models(other):
    with process("-b", f"other={other}", first="first=motion-demo") as (_, address):
        assert httpx.get(f"{address}/v1/info").json()["models"] == ["first", "other"]


@pytest.mark.parametrize(
    ("bundles", "message"),
    [
        (["motion-demo", "motion-demo"], "motion-demo has no name: give NAME=FOLDER"),
        (["a=motion-demo", "a=motion-demo"], "two bundles are named a"),
        (["a_video=motion-demo", "a=motion-demo"], "a_video is how /v2 names a for encoded videos"),
    ],
)
def test_names_that_clash_are_refused(bundles, message):
    with pytest.raises(click.BadParameter, match=message):
        command.make_context("serve", [word for bundle in bundles for word in ("-b", bundle)])


def test_the_environment_names_several_bundles(monkeypatch):
    monkeypatch.setenv("XCLIP_ONNX_BUNDLE", f"a={DEMO_BUNDLE}:b=motion-demo")
    context = command.make_context("serve", [])

    assert context.params["bundles"] == {"a": str(DEMO_BUNDLE), "b": "motion-demo"}
