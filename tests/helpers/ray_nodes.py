"""Machines of a Ray cluster: network namespaces of this one, joined by a bridge, each with mounts of its own.

As a program, as root and with iproute2, it runs the table of faults of several machines and prints what was done, what
happened, and whether that was right; the exit status is 0 if all of it was tried and right:

    python tests/helpers/ray_nodes.py [OPTIONS OF PYTEST]
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

NETWORK = "10.213.77"
ROUTER = f"{NETWORK}.254"
_BRIDGE = "xclipray"
_PATIENCE = 600
"""Seconds for what takes 10 on a machine that does nothing else."""
_DRIVER = """
import json, os, sys, time
from xclip_runtime import run_bulk
from xclip_runtime.errors import XClipError
options = json.loads(sys.argv[1])
busy = options.pop("busy", None)
if busy:
    import ray
    ray.init(log_to_driver=False)
    kept = ray.remote(num_cpus=1, resources={f"node:{busy}": 0.01})(lambda: time.sleep(10)).remote()
    time.sleep(1)
hold = options.pop("hold", None)
start = options.pop("start", None)
if start:
    print("ready", flush=True)
    while not os.path.exists(start):
        time.sleep(0.001)
def progress(report):
    print("group", flush=True)
    while hold and not os.path.exists(hold):
        time.sleep(0.1)
try:
    report = run_bulk(**options, progress=progress)
    print(json.dumps({"done": report.done, "failed": report.failed, "skipped": report.skipped}))
except XClipError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


def obstacle() -> str | None:
    """Tell the reason for which machines cannot be made here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if not (shutil.which("ip") and shutil.which("nsenter")):
        return "no iproute2 or util-linux: apt-get install iproute2"
    done = subprocess.run(["ip", "netns", "add", _BRIDGE], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", _BRIDGE], capture_output=True, check=False)
    return f"no network namespaces: {done.stderr.strip()}" if done.returncode else None


class Machines:
    """Context manager with a Ray cluster of machines with one CPU each; the first is the head."""

    def __init__(self, count: int = 2) -> None:
        # Short, as Ray makes Unix sockets in it.
        self.folder = Path(tempfile.mkdtemp(prefix="xr", dir="/tmp"))
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.small = self.folder / "small"
        """Disk of 256 KiB that all machines share."""
        self.small.mkdir()
        self._env = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The cluster's own token, as newer versions of Ray ask for one.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ADDRESS": f"{NETWORK}.1:6379",
            "AWS_ENDPOINT_URL": f"http://{ROUTER}:5000",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._raylets: list[subprocess.Popen[bytes]] = []
        self._count = count
        self.happened: list[str] = []
        """Reports and errors of the runs so far, for the table."""

    def __enter__(self) -> Self:
        self._remove_network()
        _run("mount", "-t", "tmpfs", "-o", "size=256k", "none", str(self.small))
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{ROUTER}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        try:
            for number in range(self._count):
                self._add(number)
                self._wait_for_nodes(number + 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for raylet in self._raylets:
            self._kill_all(raylet)
        self._remove_network()
        _run("umount", "-l", str(self.small))
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def mount(self, number: int, folder: Path, size: str = "64k") -> None:
        """Lay an empty disk over a folder, as this machine sees it."""
        self._inside(number, "mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))

    def unmount(self, number: int, folder: Path) -> None:
        self._inside(number, "umount", "-l", str(folder))

    @contextmanager
    def short_of_memory(self, number: int, room: int = 10 << 20) -> Iterator[None]:
        """Let the workers of a machine reserve some bytes more than they have when they have imported all they need."""
        ended = threading.Event()
        seen = set()

        def limit() -> None:
            while not ended.wait(0.02):
                for pid in self._pids(self._raylets[number]):
                    with suppress(OSError, ProcessLookupError):
                        process = Path(f"/proc/{pid}")
                        if pid in seen or b"MapWorker" not in (process / "cmdline").read_bytes():
                            continue
                        mapped = (process / "maps").read_text()
                        if not all(library in mapped for library in ("libavcodec", "cv2", "onnxruntime")):
                            continue
                        size = int((process / "statm").read_text().split()[0]) * resource.getpagesize()
                        resource.prlimit(pid, resource.RLIMIT_AS, (size + room, size + room))
                        seen.add(pid)

        thread = threading.Thread(target=limit)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert seen

    def cut(self, number: int) -> None:
        _ip("-n", _namespace(number), "link", "set", "eth0", "down")

    def join(self, number: int) -> None:
        _ip("-n", _namespace(number), "link", "set", "eth0", "up")

    def drive(self, **options: object) -> subprocess.Popen[str]:
        """Start ``run_bulk`` on the head, with mounts of its own.

        Further options: ``start`` and ``hold``, files for which it and its progress wait, and ``busy``, the address of
        a machine that has other work for ten seconds.
        """
        code = [sys.executable, "-c", _DRIVER, json.dumps(options, default=str)]
        command = ["ip", "netns", "exec", _namespace(0), *code]
        return subprocess.Popen(
            command, env=self._env, stdout=subprocess.PIPE, stderr=(self.folder / "driver.log").open("w"), text=True
        )

    def run(self, **options: object) -> dict[str, object]:
        """Run ``run_bulk``; return its report, or its error."""
        return self.answer(self.drive(**options))

    def answer(self, driver: subprocess.Popen[str]) -> dict[str, object]:
        printed, _ = driver.communicate(timeout=_PATIENCE)
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        assert lines, (self.folder / "driver.log").read_text()[-3000:]
        answer: dict[str, object] = json.loads(lines[-1])
        self.happened.append(" ".join(f"{name}={value}" for name, value in answer.items() if value))
        return answer

    def kill(self, number: int) -> None:
        """Lose a machine: kill -9 of all that Ray runs on it."""
        self._kill_all(self._raylets[number])

    def _add(self, number: int) -> None:
        name, link = _namespace(number), f"{_BRIDGE}{number}"
        _ip("netns", "add", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", link, "master", _BRIDGE, "up")
        _ip("-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        # Ray finds its own address by a route to the Internet.
        _ip("-n", name, "route", "add", "default", "via", ROUTER)
        head = ["--head", "--port=6379", f"--temp-dir={self.folder}/ray", "--include-dashboard=false"]
        role = [f"--address={self.address(0)}:6379"] if number else head
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0", *role]
        place = [f"--node-ip-address={self.address(number)}", "--object-store-memory=100000000"]
        log = (self.folder / f"machine-{number}.log").open("wb")
        self._raylets.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *ray, *place],
                env={key: value for key, value in self._env.items() if key != "RAY_ADDRESS"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )

    def _wait_for_nodes(self, count: int) -> None:
        code = (
            "import ray, time\n"
            "ray.init(log_to_driver=False, configure_logging=False)\n"
            f"while sum(node['Alive'] for node in ray.nodes()) < {count}: time.sleep(0.2)"
        )
        command = ["timeout", str(_PATIENCE), "ip", "netns", "exec", _namespace(0), sys.executable, "-c", code]
        end = time.monotonic() + _PATIENCE
        while True:
            done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
            if not done.returncode:
                return
            if time.monotonic() > end:
                logs = [log.read_text()[-2000:] for log in self.folder.glob("machine-*.log")]
                raise TimeoutError("\n".join([done.stderr, *logs]))
            time.sleep(0.5)

    def _inside(self, number: int, *command: str) -> None:
        _run("nsenter", "-m", "-t", str(self._raylets[number].pid), *command)

    @classmethod
    def _kill_all(cls, raylet: subprocess.Popen[bytes]) -> None:
        for pid in cls._pids(raylet):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        raylet.wait()

    @staticmethod
    def _pids(raylet: subprocess.Popen[bytes]) -> list[int]:
        """List the processes of a machine, which share its namespace of mounts."""
        found = []
        with suppress(OSError):
            mounts = Path(f"/proc/{raylet.pid}/ns/mnt").readlink()
            for entry in Path("/proc").iterdir():
                with suppress(OSError):
                    if entry.name.isdigit() and (entry / "ns/mnt").readlink() == mounts:
                        found.append(int(entry.name))
        return found

    def _remove_network(self) -> None:
        for number in range(self._count):
            subprocess.run(["ip", "netns", "del", _namespace(number)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)


def _namespace(number: int) -> str:
    return f"{_BRIDGE}{number}"


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Table:
    """Plugin of pytest that prints a row for each test."""

    def __init__(self) -> None:
        self.right = True
        self._rows: dict[str, dict[str, str]] = {}

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            _say(report.longreprtext)

    def pytest_runtest_logreport(self, report: Any) -> None:
        row = self._rows.setdefault(report.nodeid, {"outcome": "right", "why": ""})
        if report.failed:
            row.update(outcome="WRONG", why=row["why"] + report.longreprtext)
        elif report.skipped:
            row.update(outcome="skipped", why=report.longrepr[2])
        if report.when == "teardown":
            done = report.nodeid.rpartition("::test_")[2].replace("_", " ")
            happened = "".join(f"\n{'':9}{line}" for _, line in report.user_properties)
            _say(f"{row['outcome']:9}{done}{happened}\n{row['why']}".rstrip())
            self.right &= row["outcome"] == "right"


def _main() -> int:
    """Run the table in any environment with pytest, Ray and this package."""
    import pytest

    reason = obstacle()
    if reason:
        _say(f"not tried: {reason}")
        return 1
    table, file = _Table(), Path(__file__).parents[1] / "runtime/integrations/ray_cluster/test_machines.py"
    plain = ["-p", "no:terminal", "-o", "addopts=", "--noconftest", "--import-mode=importlib"]
    status = pytest.main([*plain, str(file), *sys.argv[1:]], plugins=[table])
    _say("all right" if not status and table.right else "not all right")
    return int(bool(status) or not table.right)


if __name__ == "__main__":
    sys.exit(_main())
