#!/usr/bin/env python3
"""Install the wheel with each extra alone, in fresh environments, and do there what the documentation promises of it.

    .ci/extras.py [NAME ...]    environments to try, such as `none`, `text` or `cpu,serve`; all of them by default

An environment is made by the `pip install` lines of pages, as they stand, and the other blocks of these pages run in
it, in order. uv stands in for pip, takes seconds instead of minutes, and says which bounds conflict. `promises.py` has
what no page runs. `lowest` has the lowest allowed version of every package; `python3.10` and so on run README with
other interpreters, where there are any.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from promises import LIGHT, PROMISES, Call, install, served
from uv import find_uv_bin

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from helpers.markdown import ADDRESS, PAGES, Block, blocks  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# PyPI's newest PyTorch brings gigabytes of CUDA.
TORCH = next(line for line in EXTRAS["dev"] if line.startswith("torch=="))
CLONE = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "export", "runtime", "examples")
# What matplotlib and Ray write to the home of their own accord.
FOREIGN = {".cache", ".cache/matplotlib", ".config", ".config/matplotlib", ".ray", ".ray/auth_token"}
NEVER = ("Traceback (most recent call last)", "ModuleNotFoundError", "No module named")
SECONDS = 900
# All else would tell the commands where they run: ONNX Runtime sends no telemetry where CI's variables are set.
KEPT = re.compile(r"LANG|LC_|TMPDIR|UV_|SSL_|REQUESTS_|\w+_proxy|\w+_PROXY")
SKIPPED = {
    "gpu": "gigabytes of CUDA; docs/tested-on.md says where it has run",
    "docs": "mkdocs builds the site in the environment of the tests",
    "dev": "the environment of the tests",
}


@dataclass
class Environment:
    """Fresh virtual environment, and what is done in it.

    Attributes:
        extras: Its extras, separated by commas.
        pages: Pages whose blocks run; their own lines install the extras.
        calls: Further promises.
        constraints: Versions for pip.
        python: Interpreter; None if there is none here.
    """

    extras: str
    pages: list[Path] = field(default_factory=list)
    calls: tuple[Call, ...] = ()
    constraints: tuple[str, ...] = (TORCH,)
    python: str | None = sys.executable


def environments() -> dict[str, Environment]:
    """Return every environment by its name; the extras that none has alone are an error."""
    found = {name: Environment(name.removeprefix("none"), calls=calls) for name, calls in PROMISES.items()}
    for page in PAGES:
        if extras := extras_of(page):
            found.setdefault(extras, Environment(extras)).pages.append(page)
    alone = {name for extras in found for name in (extras, extras.removeprefix("cpu,"))}
    if forgotten := set(EXTRAS) - alone - set(SKIPPED):
        sys.exit(f"no page and no promise is for these extras alone: {', '.join(sorted(forgotten))}")
    # Two, as transformers needs newer tokenizers than the runtime.
    light = ",".join(sorted(set(EXTRAS) - {"export", "openvino", "ray", *SKIPPED}))
    runs = (
        call
        for name, calls in PROMISES.items()
        if name not in ("cpu,openvino", "cpu,ray")
        for call in calls
        if not call.code
    )
    calls = (install(light), *(call for call in runs if call.command != LIGHT))
    pages = [page for extras, environment in found.items() if "export" not in extras for page in environment.pages]
    # With a Python that the lowest versions have wheels for.
    python = interpreter("3.11")
    found["lowest"] = Environment(light, pages, calls, lowest_versions(light), python)
    export = "cpu,export"
    found["lowest-export"] = Environment(export, found[export].pages, (), lowest_versions(export), python)
    for version in PYTHONS:
        if version != f"{sys.version_info.major}.{sys.version_info.minor}":
            found[f"python{version}"] = Environment("cpu,index", [PAGES[0]], python=interpreter(version))
    return found


def interpreter(version: str) -> str | None:
    """Return a Python of this version that runs, on the path or of pyenv; None if there is none."""
    name = f"python{version}"
    for python in (name, *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"))):
        if shutil.which(python) and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            return python
    return None


def extras_of(page: Path) -> str | None:
    """Return the extras that a page installs, [cpu] first; None if it installs nothing."""
    extras = {extra for block in blocks(page) if block.kind == "run" for extra in block.extras}
    return ",".join(sorted(extras, key=lambda extra: (extra != "cpu", extra))) or None


def lowest_versions(extras: str) -> tuple[str, ...]:
    """Return the lower bound of every requirement of these extras as a constraint."""
    requirements = [*PROJECT["dependencies"], *(line for extra in extras.split(",") for line in EXTRAS[extra])]
    bounds = (re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)[^;]*(;.*)?$", line) for line in requirements)
    lowest = {f"{found[1]}=={found[2]}{found[3] or ''}" for found in bounds if found and found[1] != "torch"}
    return (*sorted(lowest), TORCH)


class PromiseError(Exception):
    """A command that does not do what was promised."""


def bash(code: str, folder: Path, variables: dict[str, str], expected: Call | None = None) -> None:
    """Run commands.

    Raises:
        PromiseError: Another exit code, a traceback, or the text is missing.
    """
    code_wanted, says = (expected.code, expected.says) if expected else (0, "")
    done = subprocess.run(
        ["timeout", "--kill-after=9", str(SECONDS), "bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    traceback = "xclip-onnx" in code and any(words in done.stdout for words in NEVER)
    if done.returncode != code_wanted or says not in done.stdout or traceback:
        wanted = f"exit {done.returncode} (124: after {SECONDS} s), expected {code_wanted}" + (
            f" and {says!r}" if says else ""
        )
        message = f"{code.strip()}\n  {wanted}\n{done.stdout[-3000:]}"
        raise PromiseError(message)


def free_port() -> str:
    """Return the number of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def pip_setting(name: str) -> list[str]:
    """Return the values of a setting of pip, whose configuration uv does not read."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return done.stdout.split() if done.returncode == 0 else []


def index_problem() -> str | None:
    """Return why uv cannot ask the package index; None if it can."""
    done = subprocess.run(
        [find_uv_bin(), "pip", "compile", "-q", "-"], input="click\n", capture_output=True, text=True, check=False
    )
    return done.stderr.strip() or "unknown" if done.returncode else None


def make(environment: Environment, work: Path, wheel: Path) -> dict[str, str]:
    """Make a virtual environment with a `pip`, and an empty home; return the environment variables to use it."""
    python = work / "venv/bin/python"
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "-q", "-p", str(environment.python), work / "venv"], check=True)
    pip = work / "venv/bin/pip"
    # With the user's home, for the configuration and the cache of uv.
    home = shlex.quote(str(Path.home()))
    pip.write_text(f'#!/bin/sh\nHOME={home} exec {shlex.quote(uv)} -q pip "$@" -p {python}\n')
    pip.chmod(0o755)
    (work / "home").mkdir()
    (work / "constraints.txt").write_text("".join(f"{line}\n" for line in environment.constraints))
    wheels = [str(wheel.parent), *(os.environ.get("PIP_FIND_LINKS", "").split() or pip_setting("find-links"))]
    kept = {name: value for name, value in os.environ.items() if KEPT.match(name)}
    return {
        **kept,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(work / "home"),
        "UV_CONSTRAINT": str(work / "constraints.txt"),
        "UV_FIND_LINKS": ",".join(wheels),
        "PORT": free_port(),
        "PORT2": free_port(),
    }


def clone(folder: Path) -> Path:
    """Make a folder with the repository and two videos of the user."""
    folder.mkdir()
    for name in CLONE:
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
    for name in ("ride.mp4", "other.mp4"):
        shutil.copy(ROOT / "runtime/xclip_runtime/data/motion-demo.mp4", folder / name)
    return folder


def run_block(block: Block, folder: Path, variables: dict[str, str]) -> None:
    """Run a block of a page as it stands, beside a server where it asks one."""
    code = block.code.replace(ADDRESS, f"127.0.0.1:{variables['PORT']}")
    if block.language == "python":
        (folder / "block.py").write_text(code)
        code = "python block.py"
    bash(served("", code).command if block.kind == "server" else code, folder, variables)


def try_out(environment: Environment, wheel: Path) -> str | None:
    """Make an environment and do everything in it; return what failed, or None."""
    with tempfile.TemporaryDirectory(prefix="extras-") as temporary:
        work = Path(temporary)
        variables = make(environment, work, wheel)
        folder = clone(work / "clone")
        try:
            if not environment.pages:
                bash(install(environment.extras).command, folder, variables)
            for page in environment.pages:
                here = clone(work / page.stem)
                for block in blocks(page):
                    if block.language in ("bash", "python") and block.kind in ("run", "server"):
                        run_block(block, here, variables)
            for call in environment.calls:
                bash(call.command, folder, variables, call)
        except PromiseError as error:
            return str(error)
        written = {str(path.relative_to(work / "home")) for path in (work / "home").rglob("*")}
        written = {path for path in written if path not in FOREIGN and "/matplotlib/" not in path}
        return f"wrote to the home: {', '.join(sorted(written)[:9])}" if written else None


def main() -> None:
    """Try the environments, two at a time, and print a table."""
    found = environments()
    if unknown := set(sys.argv[1:]) - set(found):
        sys.exit(f"no environment {', '.join(sorted(unknown))}: there are {', '.join(found)}")
    for name, reason in SKIPPED.items():
        print(f"skipped {name}: {reason}")
    for index in pip_setting("index-url"):
        os.environ.setdefault("UV_DEFAULT_INDEX", index)
    if problem := index_problem():
        print(f"skipped all: uv cannot ask the package index: {problem}")
        return
    wanted = {}
    for name in sys.argv[1:] or found:
        if found[name].python is None:
            print(f"skipped {name}: no such interpreter here")
        else:
            wanted[name] = found[name]
    failed = []

    def one(name: str) -> None:
        began = time.monotonic()
        problem = try_out(wanted[name], wheel)
        pages = " ".join(page.stem for page in wanted[name].pages)
        print(f"{'FAILED' if problem else 'ok':<7}{name:<28}{time.monotonic() - began:4.0f} s  {pages}", flush=True)
        if problem:
            print(problem, flush=True)
            failed.append(name)

    with tempfile.TemporaryDirectory(prefix="extras-") as folder, ThreadPoolExecutor(2) as executor:
        subprocess.run([find_uv_bin(), "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        list(executor.map(one, wanted))
    sys.exit(f"failed: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
