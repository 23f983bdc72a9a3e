"""A server in a process of its own, and clients that send it requests."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "serve", "--log-format", "json"]


class Server:
    """Running server process."""

    def __init__(self, process: subprocess.Popen[str], address: str, grpc: str) -> None:
        self.process = process
        self.address = address
        self.grpc = grpc

    @property
    def pids(self) -> list[int]:
        """Process ids of the server and its decode workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def memory_mb(self) -> dict[str, float]:
        """Read the resident memory of the server, and of its workers together."""
        server, *workers = (
            int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024 for pid in self.pids
        )
        return {"server": round(server, 1), "workers": round(sum(workers), 1)}


@contextmanager
def serving(bundle: str, *options: str) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it on exit."""
    command = [*COMMAND, "--bundle", bundle, "--port", "0", "--grpc-port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = grpc = ""
    for line in process.stderr or ():
        document = json.loads(line)
        address, grpc = document.get("address", address), document.get("grpc", grpc)
        if document["message"] == "ready":
            break
    # Without a reader, the pipe of the log fills up and blocks the server.
    threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
    try:
        yield Server(process, address, grpc)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Client:
    """Client that sends one request again and again over a connection that it keeps."""

    def __init__(self, address: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=120)
        self._path, self._body, self._headers = parts.path, body, headers or {}

    def post(self) -> int:
        """Send the request and return the status; a connection that the server has closed meanwhile is made anew."""
        for attempt in range(2):
            try:
                self._connection.request("POST", self._path, self._body, self._headers)
                reply = self._connection.getresponse()
                reply.read()
                return reply.status
            except (http.client.RemoteDisconnected, ConnectionError):
                self._connection.close()
                if attempt:
                    raise
        raise AssertionError

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def load_with(
    address: str, body: Path, *, requests: int, clients: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Send requests with clients in threads, each after the answer to its last one."""
    content, left = body.read_bytes(), iter(range(requests))
    lock, times, statuses = threading.Lock(), [], []

    def work() -> None:
        client = Client(address, content, headers)
        while True:
            with lock:
                if next(left, None) is None:
                    break
            begun = time.perf_counter()
            try:
                status = client.post()
            except (OSError, http.client.HTTPException):
                status = 0
            times.append(1000 * (time.perf_counter() - begun))
            statuses.append(status)
        client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "clients": clients,
        "requests": len(statuses),
        "refused": sum(status >= 400 for status in statuses),
        "failed": statuses.count(0),
        "per_second": len(statuses) / seconds,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
    }
