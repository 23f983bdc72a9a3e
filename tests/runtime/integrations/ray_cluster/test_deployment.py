"""The server's application on Ray Serve, with two replicas."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from helpers.servers import eventually
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def deploy(cluster):
    """``deploy(…)`` runs the deployment with these options and returns its address."""
    from ray import serve

    from xclip_runtime import xclip_deployment

    def run(**options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(xclip_deployment(DEMO_BUNDLE, **options))
        return f"http://127.0.0.1:{port}"

    yield run
    serve.shutdown()


def replica_states():
    from ray import serve

    (deployment,) = serve.status().applications["default"].deployments.values()
    return deployment.replica_states


def test_two_replicas_answer_as_the_server_does(deploy):
    address = deploy(min_replicas=2, max_replicas=2)
    with httpx.Client(base_url=address, timeout=120) as client:
        assert client.get("/v2/health/ready").status_code == 200
        answers = [client.post("/v1/classify", content=DEMO_VIDEO.read_bytes()) for _ in range(8)]
        refused = client.post("/v1/classify", content=b"no video")
    states = replica_states()

    assert all(answer.json()["labels"][0]["label"] == expected_label() for answer in answers)
    assert refused.status_code == 422
    assert states == {"RUNNING": 2}


def test_a_replica_is_added_when_there_is_more_work_and_removed_when_there_is_less(deploy):
    quick = {"upscale_delay_s": 0.5, "downscale_delay_s": 1, "metrics_interval_s": 0.2, "look_back_period_s": 1}
    address = deploy(min_replicas=1, max_replicas=2, target_ongoing_requests=1, autoscaling=quick)
    assert replica_states() == {"RUNNING": 1}
    enough = threading.Event()

    def ask():
        answers = []
        with httpx.Client(base_url=address, timeout=120) as client:
            while not enough.is_set():
                answers.append(client.post("/v1/classify", content=DEMO_VIDEO.read_bytes()).status_code)
        return answers

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            eventually(lambda: replica_states() == {"RUNNING": 2})
        finally:
            enough.set()
        statuses = {status for one in asking for status in one.result()}
    eventually(lambda: replica_states() == {"RUNNING": 1})

    assert statuses == {200}
