"""docs/serving.md says what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.servers import running
from xclip_runtime.cli.serve import command
from xclip_runtime.demo import DEMO_VIDEO, expected_label

DOCS = (Path(__file__).parents[3] / "docs/serving.md").read_text()
NOT_OURS = {"--data-binary", "--read-only", "--rm", "--volume", "--env-file", "--tmpfs", "--cpus", "--memory", "--time"}


def test_every_option_that_it_names_exists():
    options = {option for parameter in command.params for option in parameter.opts}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCS)) - NOT_OURS <= options


def test_every_metric_that_it_names_is_exported_and_none_is_left_out(server):
    server.classify(DEMO_VIDEO)
    exported = set(re.findall(r"^# TYPE (xclip_\w+) ", server.client.get("/metrics").text, flags=re.MULTILINE))
    named = set(re.findall(r"\bxclip_(?!runtime|video\b)\w+", DOCS))

    assert named == {name for name in exported if not name.endswith("_created")}


def test_every_status_that_it_names_is_in_the_documentation_of_the_api(server):
    responses = server.client.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]["responses"]
    table = set(re.findall(r"^\| (\d{3}) \|", DOCS, flags=re.MULTILINE))

    assert {status for status in responses if status >= "400"} <= table


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_in_it_works(model, tmp_path, protocol):
    shutil.copy(DEMO_VIDEO, tmp_path / "ride.mp4")
    code = re.search(r"^```python\n(.*?)^```$", DOCS, flags=re.MULTILINE | re.DOTALL)[1]
    with running(model, grpc_port=0) as server:
        address = {"http": server.address.removeprefix("http://"), "grpc": server.server.grpc_address}[protocol]
        code = code.replace("127.0.0.1:8000", address).replace("tritonclient.http", f"tritonclient.{protocol}")
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert expected_label() in done.stdout
