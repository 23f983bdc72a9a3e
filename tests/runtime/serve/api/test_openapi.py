"""/openapi.json says what is so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.servers import running
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.search import VideoIndex
from xclip_runtime.serve.api.schemas import LabelChange, LiveOptions

CONFIG = Path(__file__).with_name("schemathesis.toml")
OURS = r"^/(v1|metrics|v2/health)"


@pytest.fixture(scope="module")
def searching(model, tmp_path_factory):
    """A server with an index of one video, so that every route is there."""
    folder = tmp_path_factory.mktemp("searching")
    video = shutil.copy(DEMO_VIDEO, folder / "ride.mp4")
    with VideoIndex.create(folder / "index", model) as index:
        assert list(index.add([video]))
        with running(model, index=index) as server:
            yield server


@pytest.fixture(scope="module")
def document(searching):
    return searching.client.get("/openapi.json").json()


def operations(document):
    return {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if not path.startswith("/v2") or path.startswith("/v2/health")
    }


@pytest.mark.parametrize(
    ("phase", "paths"),
    [
        ("fuzzing", OURS),
        pytest.param("coverage", OURS, marks=pytest.mark.slow),
        pytest.param("fuzzing,coverage", "^/v2", marks=pytest.mark.slow),
    ],
)
def test_it_holds_against_requests_of_every_kind(searching, phase, paths, tmp_path):
    """Schemathesis: statuses, types and bodies are as declared, no server error, no wrong value is accepted."""
    pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    options = ["--include-path-regex", paths, "--phases", phase, "--continue-on-failure"]
    seed = ["--seed", "1", "--generation-database", "none", "--no-color", "--warnings", "off"]
    done = subprocess.run(
        [*command, *options, *seed, f"{searching.address}/openapi.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_route_has_an_example_that_works(searching, document, tmp_path):
    shutil.copy(DEMO_VIDEO, tmp_path / "ride.mp4")
    for operation in operations(document).values():
        [sample] = operation["x-codeSamples"]
        command = sample["source"].replace("http://127.0.0.1:8000", searching.address)
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout


def test_every_answer_has_a_schema(document):
    for (path, _), operation in operations(document).items():
        for status, response in operation["responses"].items():
            schemas = [kind["schema"] for kind in response["content"].values()]
            assert all(schema for schema in schemas), (path, status)


def test_the_websocket_is_described_with_all_its_options(document):
    text = document["info"]["description"]

    assert "/v1/live" in text
    assert {name for name in (*LiveOptions.model_fields, *LabelChange.model_fields) if f'"{name}"' not in text} == set()


def test_the_options_of_a_body_are_those_of_the_address(document):
    for path in ("/v1/classify", "/v1/score", "/v1/embed"):
        operation = document["paths"][path]["post"]
        names = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
        content = operation["requestBody"]["content"]
        assert set(content["multipart/form-data"]["schema"]["properties"]) == names | {"video"}
        assert set(content["application/json"]["schema"]["properties"]) == names
