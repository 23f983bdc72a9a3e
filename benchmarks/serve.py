"""Measure the overhead of serving and its behaviour under load, with clients that keep their connections.

    python benchmarks/serve.py --json benchmarks/results/serve.json
    python benchmarks/serve.py full-size-fp32 full-size-int8 --cache runs/serve --json benchmarks/results/serve.json

Parts: `overhead` alternates requests over loopback and the bare runtime, on an encoded video and on a preprocessed
clip, over HTTP and gRPC; `latency` asks for /v1/info and, with Triton's client, for a clip; `full-size-fp32` and
`full-size-int8` do the same with a seeded ViT-B/16 of 32 frames, exported into the cache if missing; `load` has 1, 4
and 16 clients; `memory` sends thousands of requests and reads the memory of every process in between; `burst` sends
many times more concurrent requests than the server admits; `kill` kills decode workers under load. The number of
requests of each is bounded. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import peer_arms
from server_process import Client, Server, load_with, serving

from xclip_runtime import XClip
from xclip_runtime.bench.machine import machine
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.inference.installation import onnxruntime_version
from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = (1, 4, 16)


def in_turn(arms: dict[str, Callable[[], object]], count: int) -> dict[str, np.ndarray[Any, Any]]:
    """Measure the milliseconds of each arm, in random order in every round, so that noise affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    warm_up = math.ceil(count / 20)
    for number in range(warm_up + count):
        for name in random.sample(list(arms), len(arms)):
            begun = time.perf_counter()
            arms[name]()
            if number >= warm_up:
                times[name].append(1000 * (time.perf_counter() - begun))
    return {name: np.array(values) for name, values in times.items()}


def added(bare: np.ndarray[Any, Any], served: np.ndarray[Any, Any]) -> dict[str, float]:
    """Compute the percentage by which serving is slower: median difference within rounds, with its 95 % interval."""
    differences = served - bare
    picks = np.random.default_rng(0).integers(0, len(bare), (2000, len(bare)))
    value, low, high = (
        100 * ms / np.median(bare)
        for ms in (np.median(differences), *np.percentile(np.median(differences[picks], axis=1), [2.5, 97.5]))
    )
    return {"value": float(value), "low": float(low), "high": float(high)}


def poster(server: Server, path: str, body: bytes, headers: dict[str, str]) -> Callable[[], object]:
    """Build a request over a connection that is kept."""
    client = Client(f"{server.address}{path}", body, headers)

    def post() -> None:
        status = client.post()
        if status != 200:
            message = f"{path} answers {status}"
            raise SystemExit(message)

    return post


def tensor_request(clip: np.ndarray[Any, Any], folder: Path) -> tuple[Path, dict[str, str]]:
    """Build body and headers of a binary /v2 request for one preprocessed clip."""
    tensor = {"name": "pixel_values", "datatype": "UINT8", "shape": [1, *clip.shape]}
    head = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": clip.nbytes}}],
        "outputs": [{"name": "logits_per_video", "parameters": {"binary_data": True}}],
    }
    encoded = json.dumps(head).encode()
    body = folder / "clip.bin"
    body.write_bytes(encoded + clip.tobytes())
    return body, {"Inference-Header-Content-Length": str(len(encoded))}


def over_grpc(server: Server, clip: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Build the same request over gRPC, with Triton's client."""
    from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

    client = InferenceServerClient(server.grpc)
    tensor = InferInput("pixel_values", [1, *clip.shape], "UINT8")
    tensor.set_data_from_numpy(clip[None])
    wanted = [InferRequestedOutput("logits_per_video")]
    return lambda: client.infer("xclip", [tensor], outputs=wanted).as_numpy("logits_per_video")


def over_http(server: Server, clip: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Build the same request with Triton's client for HTTP, which sends header and body apart."""
    from tritonclient.http import InferenceServerClient, InferInput

    client = InferenceServerClient(server.address.removeprefix("http://"))
    tensor = InferInput("pixel_values", [1, *clip.shape], "UINT8")
    tensor.set_data_from_numpy(clip[None])
    return lambda: client.infer("xclip", [tensor]).as_numpy("logits_per_video")


def latency(bundle: str, count: int) -> dict[str, Any]:
    """Measure what costs the server little, so that delays of the connection show."""
    model = XClip(bundle, device="cpu")
    clip = read_clip(DEMO_VIDEO, num_frames=model.bundle.num_frames, transform=model.transform).frames
    with serving(bundle) as server:
        connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=120)

        def info() -> None:
            connection.request("GET", "/v1/info")
            connection.getresponse().read()

        arms = {"/v1/info": info, "a clip by tritonclient, HTTP": over_http(server, clip)}
        arms["a clip by tritonclient, gRPC"] = over_grpc(server, clip)
        return {name: summary(values) for name, values in in_turn(arms, count).items()}


def overhead(bundle: str, count: int, precision: str = "fp32") -> dict[str, Any]:
    """Measure the overhead of serving over the bare runtime for one client, the two interleaved."""
    model = XClip(bundle, device="cpu", precision=precision)
    clip = read_clip(DEMO_VIDEO, num_frames=model.bundle.num_frames, transform=model.transform).frames
    with tempfile.TemporaryDirectory() as folder, serving(bundle, "--precision", precision) as server:
        body, headers = tensor_request(clip, Path(folder))
        times = in_turn(
            {
                "video, bare": lambda: model.classify(DEMO_VIDEO),
                "video, served": poster(server, "/v1/classify", DEMO_VIDEO.read_bytes(), {}),
                "clip, bare": lambda: model.logits(clip),
                "clip, served": poster(server, "/v2/models/xclip/infer", body.read_bytes(), headers),
                "clip over gRPC, served": over_grpc(server, clip),
            },
            count,
        )
    times["clip over gRPC, bare"] = times["clip, bare"]
    kinds = ("video", "clip", "clip over gRPC")
    pairs = {kind: (times[f"{kind}, bare"], times[f"{kind}, served"]) for kind in kinds}
    return {
        "model": name_of(model),
        **{name: summary(values) for name, values in times.items()},
        "added_ms": {kind: float(np.median(served - bare)) for kind, (bare, served) in pairs.items()},
        "added_percent": {kind: added(*pair) for kind, pair in pairs.items()},
    }


def summary(ms: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Summarise times: count and quantiles."""
    p50, p95 = np.percentile(ms, [50, 95])
    return {"n": len(ms), "p50_ms": float(p50), "p95_ms": float(p95)}


def name_of(model: XClip) -> str:
    """Describe the model."""
    facts = model.bundle.manifest["model"]
    if model.bundle.path == DEMO_BUNDLE:
        return f"motion-demo, {model.precision}"
    return f"ViT-B/{facts['patch_size']}, {model.bundle.num_frames} frames, {model.precision}"


def full_size(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Measure the overhead on a seeded ViT-B/16 of 32 frames."""
    options.cache.mkdir(parents=True, exist_ok=True)
    peer_arms.prepare_end_to_end(argparse.Namespace(frames=32, patch=16, layers=12), options.cache)
    return overhead(str(options.cache / "bundle"), options.full_size_requests, precision)


def load(bundle: str, count: int) -> dict[str, Any]:
    """Measure requests of 1, 4 and 16 concurrent clients."""
    model = XClip(bundle, device="cpu")
    clip = read_clip(DEMO_VIDEO, num_frames=model.bundle.num_frames, transform=model.transform).frames
    with tempfile.TemporaryDirectory() as folder, serving(bundle) as server:
        body, headers = tensor_request(clip, Path(folder))
        targets = {
            "video": (f"{server.address}/v1/classify", DEMO_VIDEO, {}),
            "clip": (f"{server.address}/v2/models/xclip/infer", body, headers),
        }
        served: dict[str, Any] = {}
        for name, (address, sent, extra) in targets.items():
            load_with(address, sent, requests=20, clients=2, headers=extra)
            served[name] = [load_with(address, sent, requests=count, clients=n, headers=extra) for n in CLIENTS]
    return served


def memory(bundle: str, count: int) -> dict[str, Any]:
    """Measure the resident memory after every tenth of the requests."""
    with serving(bundle) as server:
        rounds = []
        for _ in range(10):
            done = load_with(f"{server.address}/v1/classify", DEMO_VIDEO, requests=count // 10, clients=4)
            rounds.append({"requests": done["requests"], "refused": done["refused"], **server.memory_mb()})
        return {"rounds": rounds, "open_files": len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))}


def burst(bundle: str, queue: int) -> dict[str, Any]:
    """Send ten times as many concurrent requests as the server admits, then a single one."""
    with serving(bundle, "--queue", str(queue)) as server:
        flood = load_with(f"{server.address}/v1/classify", DEMO_VIDEO, requests=20 * queue, clients=10 * queue)
        after = load_with(f"{server.address}/v1/classify", DEMO_VIDEO, requests=20, clients=1)
        with urllib.request.urlopen(f"{server.address}/metrics") as reply:
            text = reply.read().decode()
    outcomes = dict(re.findall(r'xclip_requests_total\{.*endpoint="/v1/classify",outcome="(\w+)"\} ([1-9]\d*)', text))
    return {"queue": queue, "flood": flood, "after": after, "outcomes": {k: int(v) for k, v in outcomes.items()}}


def kill(bundle: str, count: int) -> dict[str, Any]:
    """Kill decode workers while four clients send requests."""
    killed = []
    with serving(bundle) as server:
        stop = threading.Event()

        def killer() -> None:
            while len(killed) < 5 and not stop.wait(0.4):
                victim = server.pids[-1]
                killed.append(victim)
                subprocess.run(["kill", "-9", str(victim)], check=False)

        thread = threading.Thread(target=killer)
        thread.start()
        done = load_with(f"{server.address}/v1/classify", DEMO_VIDEO, requests=count, clients=4)
        stop.set()
        thread.join()
        after = load_with(f"{server.address}/v1/classify", DEMO_VIDEO, requests=20, clients=2)
    return {"workers_killed": len(killed), "during": done, "after": after}


FULL_SIZE: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "full-size-fp32": lambda options: full_size(options, "fp32"),
    "full-size-int8": lambda options: full_size(options, "int8"),
}
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "overhead": lambda options: overhead(options.bundle, options.requests),
    "latency": lambda options: latency(options.bundle, options.requests),
    "load": lambda options: load(options.bundle, options.requests),
    "memory": lambda options: memory(options.bundle, options.many),
    "burst": lambda options: burst(options.bundle, options.queue),
    "kill": lambda options: kill(options.bundle, options.requests),
}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    every = {**PARTS, **FULL_SIZE}
    parser.add_argument("parts", nargs="*", choices=[[], *every], help="default: all but the full-size ones")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/serve"), help="folder of the full-size checkpoint and bundle"
    )
    parser.add_argument(
        "--full-size-requests", type=int, default=20, help="requests of each kind, on the full-size model"
    )
    parser.add_argument("--bundle", default=str(DEMO_BUNDLE), help="default: the embedded motion-demo")
    parser.add_argument("--requests", type=int, default=200, help="requests of overhead, load and kill")
    parser.add_argument("--many", type=int, default=3000, help="requests of memory")
    parser.add_argument(
        "--queue", type=int, default=16, help="queue length of burst, which has ten times as many clients"
    )
    parser.add_argument("--json", type=Path, help="merge the figures into this file")
    options = parser.parse_args()
    facts = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    facts = {part: facts[part] for part in every if part in facts}
    model = XClip(options.bundle, device="cpu")
    facts = {
        "command": "python benchmarks/serve.py",
        "date": time.strftime("%Y-%m-%d"),
        "cpu": machine()["cpu"],
        "cpus": available_cpus(),
        "onnxruntime": onnxruntime_version(),
        "model": f"{name_of(model)}, {model.provider}",
        **facts,
    }
    for part in options.parts or PARTS:
        facts[part] = every[part](options)
        print(part, json.dumps(facts[part], indent=1))
        if options.json:
            options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
