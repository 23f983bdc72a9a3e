"""Run the command line as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def json_lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def run():
    """``run("classify", video, ...)`` in a process of its own."""

    def run_command(*args, **options):
        command = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", *map(str, args)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        done = subprocess.run(command, text=True, check=False, timeout=120, **options)
        assert "Traceback" not in (done.stderr or "")
        return Done(done.returncode, done.stdout, done.stderr)

    return run_command
