"""Servers for the tests, on a free port: in a thread of this process, or in a process of their own."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import XClipError
from xclip_runtime.serve.server import Server
from xclip_runtime.serve.settings import Limits, ServeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xclip_runtime import XClip
    from xclip_runtime.serve.registry import Opener

PATIENCE = 120
SERVE = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "serve"]
COMMAND = [*SERVE, "-b", str(DEMO_BUNDLE)]


class Running:
    """A server that takes requests, and a client for it."""

    def __init__(self, server: Server, client: httpx.Client) -> None:
        self.server = server
        self.engine = server.engine
        self.address = server.address
        self.client = client

    @property
    def served(self):
        return self.engine.registry.default

    def classify(self, video, **options):
        return self.client.post("/v1/classify", content=video.read_bytes(), **options)


@contextmanager
def in_thread(server: Server, **options) -> Iterator[httpx.Client]:
    """A server that listens, ready or not, and a client for it."""

    def run():
        with suppress(XClipError):  # It is in server.error, too.
            server.run_until_stopped()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        address = server.address if server.address.startswith("http") else "http://localhost"
        with httpx.Client(base_url=address, timeout=PATIENCE, **options) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def running(
    model: XClip | Mapping[str, Opener],
    *,
    limits: Limits | None = None,
    index=None,
    grpc_port=None,
    root_path="",
    **settings,
) -> Iterator[Running]:
    """A server that takes requests."""
    settings = {"decode_workers": 1, **settings}
    limited = ServeSettings(limits=limits or Limits(), **settings)
    server = Server(model, limited, port=0, index=index, grpc_port=grpc_port, root_path=root_path)
    with in_thread(server) as client:
        assert server.engine.started.wait(PATIENCE)
        yield Running(server, client)


class Gate:
    """A model whose vision graph waits until the gate is opened."""

    def __init__(self, model: XClip) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.model = copy.copy(model)
        self.model.features_batch = self._features_batch
        self._original = model.features_batch

    def _features_batch(self, clips):
        assert self.opened.wait(PATIENCE)
        return self._original(clips)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self.opened.clear()
        try:
            yield
        finally:
            self.opened.set()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that must come, however slow the machine is."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def metric(server, name, **labels):
    """The sum of the lines of /metrics that have these labels, 0 where there are none."""
    total = 0.0
    for line in server.client.get("/metrics").text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if (
            match
            and match[1] == name
            and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")).items()
        ):
            total += float(match[3])
    return total


def in_background(work):
    """Begin ``work()`` in a thread; what is returned waits for its result."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return lambda: future.result(120)


@contextmanager
def process(*options, first=DEMO_BUNDLE, prefix=(), env=None):
    """A server in a process of its own, and the address that it logs."""
    command = [*SERVE, "-b", str(first), "--port", "0", "--decode-workers", "1", "--log-format", "json", *options]
    server = subprocess.Popen([*prefix, *command], stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    try:
        address, server.seen = None, []
        for line in server.stderr:
            server.seen.append(line)
            document = json.loads(line)
            address = document.get("address", address)
            if document["message"] == "ready":
                break
        yield server, address
    finally:
        server.kill()
        server.communicate()


def resident(pid: int) -> float:
    """Read the resident memory of a process, MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def finished(command, **options):
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, **options)
