"""The Dockerfiles name what is in the tree, and keep their promises: two stages, no root, no PyTorch."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xclip_runtime import Bundle
from xclip_runtime.cli.pack import command as pack_command

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
EXTRAS = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def instructions(request):
    """(instruction, arguments) pairs, with continued lines joined and comments left out."""
    lines = [line for line in request.param.read_text().splitlines() if line and not line.startswith("#")]
    return [line.partition(" ")[::2] for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def test_there_is_one_for_the_cpu_and_one_for_cuda():
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


def test_everything_that_is_copied_from_the_context_is_there_and_not_ignored(instructions):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    default = dict(arguments.split("=") for name, arguments in instructions if name == "ARG")
    for name, arguments in instructions:
        if name != "COPY" or "--from" in arguments:
            continue
        for source in shlex.split(arguments)[:-1]:
            path = re.sub(r"\$\{(\w+)\}", lambda match: default[match[1]], source)
            assert (ROOT / path).exists()
            assert f"!{Path(path).parts[0]}" in ignored


def test_the_extras_exist_and_bring_no_pytorch(instructions):
    (installed,) = [arguments for name, arguments in instructions if "pip install" in arguments]
    extras = re.search(r"\.\[([\w,]+)\]", installed)[1].split(",")

    assert all(re.search(rf"^{extra} = ", EXTRAS, re.MULTILINE) for extra in extras)
    assert "export" not in extras
    assert len({"cpu", "gpu"} & set(extras)) == 1


def test_the_server_runs_without_root_in_a_stage_without_the_build(instructions):
    names = [name for name, _ in instructions]
    last = names.index("FROM", 1)

    assert names.count("FROM") == 2
    assert "USER" in names[last:]
    assert not any("pip install" in arguments for _, arguments in instructions[last:])
    assert ("HEALTHCHECK" in names, "ENTRYPOINT" in names) == (True, True)


def test_a_named_device_is_served_so_that_nothing_falls_back_unnoticed(instructions):
    (command,) = [arguments for name, arguments in instructions if name == "CMD"]

    assert re.search(r'"--device", "(cpu|cuda)"', command)


def test_the_image_holds_what_its_device_runs_and_no_more(instructions, tmp_path):
    names = [name for name, _ in instructions]
    last = names.index("FROM", 1)
    (packed,) = [arguments for name, arguments in instructions[:last] if " pack " in arguments]
    (served,) = [arguments for name, arguments in instructions if name == "CMD"]
    words = shlex.split(re.sub(r"\$\{PRECISION:.*\}", "", packed))[2:]
    places = {"/whole": "motion-demo", "/bundle": str(tmp_path / "bundle")}
    pack_command.main([places.get(word, word) for word in words], standalone_mode=False)

    assert len(Bundle.open(tmp_path / "bundle").graphs_of("vision")) == 1
    assert words[words.index("--device") + 1] == re.search(r'"--device", "(\w+)"', served)[1]
    assert ("COPY", "--from=build /bundle /bundle") in instructions[last:]
    assert not any("${BUNDLE}" in arguments for _, arguments in instructions[last:])
