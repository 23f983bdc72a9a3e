"""Promises of each extra alone, and of the hints that commands give where an extra is missing; run by `extras.py`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1] / "tests"


class Call(NamedTuple):
    """Command line with its exit code, and a text that it prints."""

    command: str
    code: int = 0
    says: str = ""


def refused(command: str, extra: str) -> Call:
    """Return a command that says which extra it lacks."""
    return Call(command, 2, f"pip install 'xclip-onnx[{extra}]'")


def install(extras: str) -> Call:
    """Return the installation of the package with extras."""
    return Call(f"pip install 'xclip-onnx[{extras}]'".replace("[]", ""))


def served(options: str, client: str, variables: str = "") -> Call:
    """Return a server that is asked once, and stopped."""
    return Call(
        f"{variables} xclip-onnx serve -b motion-demo --port $PORT --decode-workers 1 {options} 2> server.log &\n"
        "trap 'kill %1 || true; wait; cat server.log' EXIT\n"
        "until curl -fs -o /dev/null http://127.0.0.1:$PORT/v2/health/ready; do kill -0 $!; sleep 0.3; done\n" + client
    )


GRPC_CLIENT = """python -c '
import os
from tritonclient.grpc import InferenceServerClient
assert InferenceServerClient("127.0.0.1:" + os.environ["PORT2"]).is_model_ready("xclip")'"""
COLLECTOR = """python -c '
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

paths = []

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        paths.append(self.path)

collector = HTTPServer(("127.0.0.1", int(os.environ["PORT2"])), Collector)
collector.timeout = 60
urlopen("http://127.0.0.1:" + os.environ["PORT"] + "/v2").read()
collector.handle_request()
assert paths == ["/v1/traces"], paths'"""
TRACED = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$PORT2 OTEL_BSP_SCHEDULE_DELAY=100"
READ = """python -c '
from xclip_runtime import FrameTransform, read_clip
print(read_clip("ride.mp4", num_frames=8, transform=FrameTransform("hf", 224)).total)'"""
LIGHT = """python -c '
from importlib.util import find_spec
assert [name for name in ("torch", "transformers", "optimum", "onnx", "PIL") if find_spec(name)] == []'"""
UNREACHABLE = """export HF_ENDPOINT=http://127.0.0.1:$PORT
if xclip-onnx info -b owner/name 2> said || grep -v '^xclip-onnx: ' said; then exit 1; fi
cat said"""
RAY = """python -c '
from pathlib import Path
from xclip_runtime import run_bulk, xclip_deployment
if __name__ == "__main__":
    print(run_bulk(["ride.mp4"], "motion-demo", "results", workers=1, cpus_per_worker=1))'"""

# OpenVINO's plugin takes Intel's processors only; the tests' helper lets it run on others.
OPENVINO = f"""export XCLIP_ONNX_CACHE=$PWD/cache PYTHONPATH={shlex.quote(str(TESTS))}
python -c '
from xclip_runtime import XClip
from helpers.intel import pretend_intel
pretend_intel()
cpu, openvino = (XClip("motion-demo", device).classify("ride.mp4") for device in ("cpu", "openvino"))
assert openvino.provider == "OpenVINOExecutionProvider", openvino.provider
assert [x.label for x in openvino.labels] == [x.label for x in cpu.labels]
delta = max(abs(a.logit - b.logit) for a, b in zip(openvino.labels, cpu.labels))
assert delta < 1e-3, delta
print("|Δlogit|", delta)'"""
CPUINFO = Path("/proc/cpuinfo")
INTEL = CPUINFO.exists() and "GenuineIntel" in CPUINFO.read_text()
ON_OPENVINO = "XCLIP_ONNX_CACHE=$PWD/cache xclip-onnx demo --device openvino"
OPENVINO_CALL = Call(ON_OPENVINO) if INTEL else Call(ON_OPENVINO, 2, "choose device cpu")

PROMISES: dict[str, tuple[Call, ...]] = {
    "none": (
        Call("xclip-onnx --version && xclip-onnx --help && xclip-onnx verify -b motion-demo"),
        Call("xclip-onnx doctor", 1, "pip install 'xclip-onnx[cpu]'"),
        Call(READ),
        Call(LIGHT),
        refused("xclip-onnx demo", "cpu"),
    ),
    "cpu": (
        Call(LIGHT),
        Call("xclip-onnx demo --json && xclip-onnx doctor && xclip-onnx info -b motion-demo"),
        Call("xclip-onnx bench --scenario Offline --duration 0.1 --count 2 --cold-starts 0 --no-sweeps"),
        refused("xclip-onnx classify ride.mp4 -b motion-demo --labels red,blue", "text"),
        refused("xclip-onnx score ride.mp4 red -b motion-demo", "text"),
        refused("xclip-onnx index add ride.mp4 -b motion-demo --index films", "index"),
        refused("xclip-onnx serve -b motion-demo", "serve"),
        refused("xclip-onnx demo --device openvino", "openvino"),
        refused("xclip-onnx classify ride.mp4 -b owner/name", "hub"),
        refused("xclip-onnx push motion-demo owner/name", "hub"),
        refused("xclip-onnx export-triton -b motion-demo -o models", "triton"),
        refused("xclip-onnx export export/motion_demo/checkpoint -o bundle", "cpu,export"),
        Call("python -c 'from xclip_runtime import run_bulk'", 1, "pip install 'xclip-onnx[ray]'"),
    ),
    "cpu,hub": (
        Call("xclip-onnx push motion-demo owner/name --dry-run"),
        Call(UNREACHABLE, says="cannot reach 127.0.0.1"),
    ),
    "cpu,serve": (
        served("", "curl -fsS --data-binary @ride.mp4 http://127.0.0.1:$PORT/v1/classify"),
        refused("xclip-onnx serve -b motion-demo --port 0 --grpc-port 0", "grpc"),
        refused("OTEL_TRACES_EXPORTER=otlp xclip-onnx serve -b motion-demo --port 0", "otel"),
    ),
    "cpu,grpc": (served("--grpc-port $PORT2", GRPC_CLIENT),),
    "cpu,otel": (served("", COLLECTOR, TRACED),),
    "cpu,openvino": (Call(OPENVINO, says="|Δlogit|"), OPENVINO_CALL),
    "cpu,ray": (Call(RAY, says="done=1"),),
}
