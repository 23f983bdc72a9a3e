"""Header of a saved result, and digests of the exporter for caches."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from xclip_runtime.util.cpus import cpu_name

ROOT = Path(__file__).parents[1]


def exporter_digest() -> str:
    """Compute the SHA-256 of the exporter's source, the key of cached graphs."""
    import xclip_export

    digest = hashlib.sha256()
    for source in sorted(Path(xclip_export.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def is_current(made: Path) -> bool:
    """Return True if a file or folder was made by the current exporter."""
    key = made.with_name(f"{made.name}.made-by")
    return made.exists() and key.exists() and key.read_text("ascii") == exporter_digest()


def mark_current(made: Path) -> None:
    """Record the exporter's digest beside a file or folder."""
    made.with_name(f"{made.name}.made-by").write_text(exporter_digest(), "ascii")


def record() -> dict[str, Any]:
    """Command, date and machine: the header of every saved result."""
    script = Path(sys.argv[0]).resolve()
    return {
        "command": shlex.join(["python", script.relative_to(ROOT).as_posix(), *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine(),
    }


def lscpu() -> dict[str, str]:
    """Return the output of lscpu, without the vulnerabilities."""
    lines = subprocess.run(["lscpu"], env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=True)
    found = dict(line.split(":", 1) for line in lines.stdout.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in found.items() if not name.startswith("Vulnerability")}


def machine() -> dict[str, Any]:
    """CPU, cores and software versions."""
    versions = {}
    for name in ("onnxruntime", "openvino", "nncf", "torch", "transformers", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}
