"""deploy/xclip-onnx.service: valid, hardened, and with limits that fit each other."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from helpers.deploy import DEPLOY, needs
from helpers.servers import finished
from xclip_runtime.cli.serve import command

FILE = DEPLOY / "xclip-onnx.service"
SETTINGS = defaultdict(list)
for name, value in re.findall(r"^(\w+)=(.*)$", FILE.read_text(), flags=re.MULTILINE):
    SETTINGS[name].append(value)
ENV = dict(variable.split("=") for variable in SETTINGS["Environment"])
GIB = 1 << 30


@needs("systemd-analyze")
def test_it_is_valid_and_hardened(tmp_path):
    unit = tmp_path / FILE.name
    unit.write_text(FILE.read_text().replace("/opt/xclip-onnx/bin/xclip-onnx", "/bin/true"))

    verified = finished(["systemd-analyze", "verify", str(unit)])
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = finished(["systemd-analyze", "security", "--offline=yes", "--threshold=15", str(unit)])
    assert rated.returncode == 0, rated.stdout


def test_what_no_restart_mends_is_not_tried_again_and_the_rest_after_a_pause():
    assert SETTINGS["Restart"] == ["on-failure"]
    assert SETTINGS["RestartPreventExitStatus"] == ["2"]
    assert int(*SETTINGS["RestartSec"]) >= 1


def test_the_workers_fit_into_the_memory_and_one_that_is_killed_leaves_the_service():
    workers = int(ENV["XCLIP_ONNX_DECODE_WORKERS"]) * int(ENV["XCLIP_ONNX_DECODE_MEMORY"]) << 20

    assert workers + GIB <= int(SETTINGS["MemoryMax"][0].removesuffix("G")) * GIB
    assert SETTINGS["OOMPolicy"] == ["continue"]


def test_uploads_are_on_a_disk_with_room_that_the_comment_tells():
    uploads = 2 * int(ENV["XCLIP_ONNX_QUEUE"]) * int(ENV["XCLIP_ONNX_MAX_UPLOAD"]) << 20

    assert f"for each of {ENV['XCLIP_ONNX_QUEUE']} requests, {uploads // GIB} GiB" in FILE.read_text()
    assert ENV["TMPDIR"] == "/var/tmp"


@pytest.mark.parametrize("name", [name for name in ENV if name.startswith("XCLIP_ONNX_")])
def test_its_variables_are_options(name):
    options = {option for parameter in command.params for option in parameter.opts}

    assert "--" + name.removeprefix("XCLIP_ONNX_").lower().replace("_", "-") in options


def test_its_command_parses(tmp_path, monkeypatch):
    [line] = SETTINGS["ExecStart"]
    arguments = line.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path)).split()[2:]
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)

    params = command.make_context("serve", arguments).params

    assert params["api_keys"] == str(tmp_path / "keys")
    assert (params["queue"], params["decode_workers"], params["decode_memory"]) == (16, 2, 2048 << 20)
