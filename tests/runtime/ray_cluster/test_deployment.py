"""The server's application on Ray Serve, with two replicas."""

from __future__ import annotations

import socket

import httpx
import pytest

from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def address(cluster):
    from ray import serve

    from xclip_runtime.ray import xclip_deployment

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(xclip_deployment(DEMO_BUNDLE, min_replicas=2, max_replicas=2))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_two_replicas_answer_as_the_server_does(address):
    with httpx.Client(base_url=address, timeout=120) as client:
        assert client.get("/v2/health/ready").status_code == 200
        answers = [client.post("/v1/classify", content=DEMO_VIDEO.read_bytes()) for _ in range(8)]
        refused = client.post("/v1/classify", content=b"no video")

    assert all(answer.json()["labels"][0]["label"] == expected_label() for answer in answers)
    assert refused.status_code == 422


def test_both_replicas_run_in_processes_of_their_own(address):
    from ray import serve

    (deployment,) = serve.status().applications["default"].deployments.values()

    assert deployment.replica_states == {"RUNNING": 2}
