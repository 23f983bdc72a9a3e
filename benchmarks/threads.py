"""Measure the effect of threads, spinning, batches and neighbours on a CPU, the basis of the runtime's defaults.

    python benchmarks/threads.py bundle/onnx/vision_model_int8.onnx --video any.mp4
    python benchmarks/threads.py bundle/onnx/vision_model_int8.onnx --video any.mp4 --json results.json

Every arm has one or two processes that run clips for some seconds through a session of the runtime, interleaved round
by round; the table gives medians over rounds. "Beside a decoder" means that a thread of the same process decodes the
video in a loop, as when the next video of a list is read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from records import record

SECONDS = 5.0


@dataclass(frozen=True)
class Arm:
    """Configuration of one arm."""

    threads: int
    goal: str
    batch: int = 1
    processes: int = 1
    decoder: bool = False

    @property
    def name(self) -> str:
        """Name of the row in the table."""
        parts = [f"{self.threads} thread{'s' if self.threads > 1 else ''}", self.goal]
        parts += [f"batches of {self.batch}"] if self.batch > 1 else []
        parts += [f"{self.processes} processes"] if self.processes > 1 else []
        parts += ["beside a decoder"] if self.decoder else []
        return ", ".join(parts)


def arms(cpus: int) -> list[Arm]:
    """List the arms."""
    goals = ("throughput", "latency")
    every = [Arm(threads, goal) for threads in sorted({1, cpus}) for goal in goals]
    every += [Arm(cpus, "throughput", batch=batch) for batch in (2, 4)]
    every += [Arm(threads, goal, decoder=True) for threads in sorted({1, cpus}) for goal in goals]
    every += [Arm(threads, goal, processes=2) for threads in sorted({1, cpus}) for goal in goals]
    return every


def work(arm: Arm, graph: Path, video: Path) -> None:
    """Run a worker: print that it is ready, then run for some seconds and print the result at every line of stdin."""
    import av

    from xclip_runtime.inference.providers import SessionOptions
    from xclip_runtime.inference.session import Session

    session = Session(graph, SessionOptions("cpu", arm.threads, arm.goal))  # type: ignore[arg-type]
    _, *shape = session.inputs[0].shape
    pixels = np.random.default_rng(0).integers(0, 256, (arm.batch, *map(int, shape)), dtype=np.uint8)
    session.run({"pixel_values": pixels})
    print("ready", flush=True)
    for _ in sys.stdin:
        stop, decoded = threading.Event(), [0]

        def decode(stop: threading.Event = stop, decoded: list[int] = decoded) -> None:
            while not stop.is_set():
                with av.open(str(video)) as container:
                    container.streams.video[0].codec_context.thread_count = 1
                    for frame in container.decode(video=0):
                        frame.reformat(format="rgb24")
                        decoded[0] += 1
                        if stop.is_set():
                            break

        decoder = threading.Thread(target=decode)
        if arm.decoder:
            decoder.start()
        started, times = time.perf_counter(), []
        while time.perf_counter() - started < SECONDS:
            before = time.perf_counter()
            session.run({"pixel_values": pixels})
            times.append(time.perf_counter() - before)
        elapsed = time.perf_counter() - started
        stop.set()
        if arm.decoder:
            decoder.join()
        answer = {
            "clips_per_s": arm.batch * len(times) / elapsed,
            "ms": 1000 * statistics.median(times),
            "decoded_per_s": decoded[0] / elapsed if arm.decoder else None,
        }
        print(json.dumps(answer), flush=True)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start all workers and run the arms, interleaved."""
    running = {}
    for arm in arms(options.threads):
        command = [sys.executable, __file__, str(options.graph), f"--video={options.video}"]
        command.append(f"--worker={json.dumps(asdict(arm))}")
        running[arm] = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(arm.processes)
        ]
        for process in running[arm]:
            process.stdout.readline()  # type: ignore[union-attr]
    found: dict[Arm, list[dict[str, float]]] = {arm: [] for arm in running}
    for index in range(options.rounds):
        for arm, processes in running.items():
            for process in processes:
                print(file=process.stdin, flush=True)
            answers = [json.loads(process.stdout.readline()) for process in processes]  # type: ignore[union-attr]
            total = {"clips_per_s": sum(answer["clips_per_s"] for answer in answers)}
            total["ms"] = statistics.mean(answer["ms"] for answer in answers)
            total["decoded_per_s"] = answers[0]["decoded_per_s"]
            found[arm].append(total)
        print(f"round {index + 1} of {options.rounds}", file=sys.stderr)
    for processes in running.values():
        for process in processes:
            process.communicate()
    rows = []
    for arm, rounds in found.items():
        row: dict[str, Any] = {"name": arm.name, **asdict(arm)}
        row |= {key: statistics.median(r[key] for r in rounds) for key in ("clips_per_s", "ms")}
        if arm.decoder:
            row["decoded_per_s"] = statistics.median(r["decoded_per_s"] for r in rounds)
        rows.append(row)
    return rows


def main() -> None:
    """Parse the command line and run."""
    from xclip_runtime.util.cpus import available_cpus

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("graph", type=Path, help="vision graph")
    parser.add_argument("--video", type=Path, required=True, help="video that the decoder reads")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="larger number of threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Arm(**json.loads(options.worker)), options.graph, options.video)
        return
    rows = measure(options)
    print("| arm | clips/s | ms | frames decoded/s |\n|---|---|---|---|")
    for row in rows:
        decoded = f"{row['decoded_per_s']:.0f}" if row["decoder"] else ""
        print(f"| {row['name']} | {row['clips_per_s']:.2f} | {row['ms']:.0f} | {decoded} |")
    if options.json:
        options.json.write_text(
            json.dumps({**record(), "rounds": options.rounds, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
