"""xclip-onnx serve as a user runs it: starting, ending, and refusing to start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from helpers.servers import COMMAND, PATIENCE, SERVE, eventually, finished, process
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

DEMO = ("--bundle", "motion-demo")
DOCS = (Path(__file__).parents[3] / "docs/serving.md").read_text()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_on_sigterm_what_was_accepted_is_answered_and_the_exit_code_is_0():
    with process() as (server, address), httpx.Client(base_url=address, timeout=PATIENCE) as client:
        answers = []

        def upload():
            yield DEMO_VIDEO.read_bytes()[:1000]
            sending.set()
            assert stopping.wait(PATIENCE)
            yield DEMO_VIDEO.read_bytes()[1000:]

        sending, stopping = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: answers.append(client.post("/v1/classify", content=upload())))
        thread.start()
        assert sending.wait(PATIENCE)
        eventually(lambda: b"xclip_requests_in_flight 1.0" in httpx.get(f"{address}/metrics").content)

        server.send_signal(signal.SIGTERM)
        lines = iter(server.stderr.readline, "")
        assert any('"stopping"' in line for line in lines)
        stopping.set()
        thread.join(PATIENCE)

        assert answers[0].json()["labels"][0]["label"] == expected_label()
        rest = server.communicate(timeout=PATIENCE)[1]
        assert server.returncode == 0
        assert "Traceback" not in rest


def test_ctrl_c_ends_a_server_and_its_workers():
    with process() as (server, _):
        children = children_of(server.pid)
        server.send_signal(signal.SIGINT)
        errors = server.communicate(timeout=PATIENCE)[1]

    assert server.returncode == 0
    assert "Traceback" not in errors
    assert children
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_with_a_server_that_was_killed():
    with process() as (server, _):
        children = children_of(server.pid)
        server.kill()
        server.wait()

    def gone(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    assert children
    eventually(lambda: all(map(gone, children)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bundle", "/nowhere"), "no bundle at /nowhere"),
        ((*DEMO, "--host", "203.0.113.1"), "203.0.113.1"),
        ((*DEMO, "--api-keys", os.devnull), "holds no key"),
        ((*DEMO, "--queue", "0"), "0 is not in the range"),
        ((*DEMO, "--device", "tensorrt"), "TensorrtExecutionProvider"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_exits_with_2(options, message):
    done = subprocess.run(
        [*SERVE, "--port", "0", *options], check=False, capture_output=True, text=True, timeout=PATIENCE
    )

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_that_is_not_there_is_said_in_one_line():
    done = finished([*SERVE, "--bundle", "/nowhere"])

    assert done.returncode == 2
    assert "no bundle at /nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_in_one_line(server):
    port = server.address.rpartition(":")[2]
    done = finished([*COMMAND, "--port", port])

    assert done.returncode == 2
    said = f"cannot listen on 127.0.0.1 port {port} (Address already in use): choose another --host or --port\n"
    assert done.stderr.endswith(said)
    assert "Traceback" not in done.stderr


def test_without_the_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['uvicorn'] = None; from xclip_runtime.cli import main; main()"
    done = finished([sys.executable, "-c", code, "serve", "-b", str(DEMO_BUNDLE)])

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'xclip-onnx[serve]'")


def test_the_requests_of_the_documentation_are_answered(server, tmp_path):
    block = re.search(r"^```bash\n(curl .*?)^```$", DOCS, flags=re.MULTILINE | re.DOTALL)[1]
    requests = [line for line in block.splitlines() if line.startswith("curl")]
    shutil.copy(DEMO_VIDEO, tmp_path / "ride.mp4")

    for line in requests:
        command = line.replace("http://127.0.0.1:8000", server.address)
        answer = json.loads(finished(["bash", "-c", f"{command} -sf"], cwd=tmp_path).stdout)
        assert answer["provider"] == "CPUExecutionProvider"
    assert len(requests) == 2
