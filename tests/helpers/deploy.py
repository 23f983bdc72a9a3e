"""The files for operators, and programs that only some machines have."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def needs(program):
    """Skips a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
