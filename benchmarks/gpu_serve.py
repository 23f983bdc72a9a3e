"""Measure a server on a GPU beside `classify` from the same files, one file a request.

    python benchmarks/gpu_serve.py --bundle hmdb51 --json benchmarks/results/gpu-serve.json

1, 16 and 64 clients send a video, each after the answer to its last one; the rate of `classify_each` on the same file,
before and after, is what the server's is compared with. ``--device cpu`` serves to test this script.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gpu import environment
from server_process import load_with, serving

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO


def classify_rate(options: argparse.Namespace) -> float:
    """Measure the files a second of `classify_each`, after a first pass."""
    model = XClip(options.bundle, options.device, options.precision, batch_size=options.batch_size)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        deque(model.classify_each([options.video] * options.requests), maxlen=0)
        seconds = time.perf_counter() - start
    return options.requests / seconds


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--requests", type=int, default=256, help="requests of each number of clients")
    parser.add_argument("--video", type=Path, default=DEMO_VIDEO)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    server_options = ["--device", options.device, "--precision", options.precision, "--queue", "256"]
    rates, load = [classify_rate(options)], []
    with serving(str(options.bundle), *server_options, "--batch-size", str(options.batch_size)) as server:
        for clients in options.clients:
            load.append(
                load_with(f"{server.address}/v1/classify", options.video, requests=options.requests, clients=clients)
            )
            print(load[-1])
    rates.append(classify_rate(options))
    document = {"environment": environment(options), "classify_per_second": rates, "load": load}
    print(f"classify_each: {rates[0]:.1f} and {rates[1]:.1f} files a second")
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
