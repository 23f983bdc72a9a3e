"""Every command and every snippet of the README works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)( hub)?\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)

# These two make environments of their own: the first is run below, the second is what runs this test.
DEMO_COMMAND, TEST_COMMAND = (code.strip() for language, _, code in BLOCKS[:2])
# It checks the whole tree, as .ci/run does after the tests.
LINT_COMMAND = "ruff check . && ruff format --check . && mypy"

SHELL = [code for language, hub, code in BLOCKS[2:] if language == "bash" and not hub]
HUB = [code for language, hub, code in BLOCKS if language == "bash" and hub]
PYTHON = [code for language, _, code in BLOCKS if language == "python"]


@pytest.fixture
def workplace(tmp_path):
    """A folder as the README assumes it: two videos, the checkpoint of the demo, an exported bundle."""
    for name in ("ride.mp4", "other.mp4"):
        shutil.copy(DEMO_VIDEO, tmp_path / name)
    (tmp_path / "export").symlink_to(ROOT / "export")
    return tmp_path


def run(code, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_readme_opens_with_the_two_commands():
    assert DEMO_COMMAND.endswith("xclip-onnx demo")
    assert TEST_COMMAND.endswith("pytest")
    assert "\n" not in DEMO_COMMAND + TEST_COMMAND


def test_ci_runs_the_test_command_word_for_word():
    assert TEST_COMMAND in (ROOT / ".ci/run").read_text().splitlines()


def test_ci_runs_lint_and_types_as_the_readme_says():
    script = (ROOT / ".ci/run").read_text()

    assert f"{LINT_COMMAND}\n" in SHELL
    assert all(f".venv-dev/bin/{command}\n" in script for command in LINT_COMMAND.split(" && "))


@pytest.mark.timeout(600)
def test_the_demo_command_sets_everything_up_in_a_fresh_copy(tmp_path):
    ignore = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "tests", "checkpoint")
    shutil.copytree(ROOT, tmp_path / "clone", ignore=ignore)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    done = subprocess.run(
        ["bash", "-c", DEMO_COMMAND],
        cwd=tmp_path / "clone",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert ": recognised." in done.stdout


@pytest.mark.parametrize("code", [code for code in SHELL if code.strip() != LINT_COMMAND])
def test_shell_commands_run(workplace, code):
    if "export export/" not in code:
        shutil.copytree(DEMO_BUNDLE, workplace / "bundle")

    run(code, workplace)


@pytest.mark.parametrize("code", PYTHON)
def test_python_snippets_run(workplace, code):
    shutil.copytree(DEMO_BUNDLE, workplace / "bundle")

    run(f"python - <<'END'\n{code}END\n", workplace)


@pytest.mark.hub
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("code", [code for code in HUB if "pytest" not in code])
def test_commands_that_need_the_network_run(workplace, code):
    run(code, workplace)
