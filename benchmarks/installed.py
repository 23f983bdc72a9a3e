"""Measure installed sizes: the runtime, its extras, the packages of the Docker images, and LanceDB for comparison.

    python benchmarks/installed.py --json benchmarks/results/installed.json     # downloads some gigabytes

Each set is installed by pip into an empty folder without byte code, as in the Dockerfiles; a megabyte has 10**6 bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETS = {
    "runtime": (f"{ROOT}[cpu]",),
    "index": (f"{ROOT}[cpu]", "apsw", "sqlite-vec"),
    "lancedb": (f"{ROOT}[cpu]", "lancedb"),
    "server cpu": (f"{ROOT}[cpu,serve,text]",),
    "server cuda": (f"{ROOT}[gpu,serve,text]",),
}


def megabytes(folder: Path) -> float:
    """Sum the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def installed(requirements: tuple[str, ...]) -> dict[str, float]:
    """Measure the megabytes that pip installs for the requirements, and NVIDIA's part of them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", folder]
        subprocess.run([*command, *requirements], check=True, stdout=sys.stderr)
        return {"all": megabytes(Path(folder)), "nvidia": megabytes(Path(folder) / "nvidia")}


def main() -> None:
    """Install every set once and print the sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    result = {
        "command": "python benchmarks/installed.py",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "megabytes": {name: installed(requirements) for name, requirements in SETS.items()},
    }
    document = json.dumps(result, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
