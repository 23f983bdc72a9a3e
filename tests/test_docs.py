"""Every command and snippet of the README and the documentation works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xclip_runtime
from helpers.markdown import ADDRESS, DATA, KINDS, PAGES, PROGRAMS, ROOT, blocks, marks
from helpers.servers import running
from xclip_runtime import XClip
from xclip_runtime.cli import COMMANDS, cli
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

BLOCKS = [block for page in PAGES for block in blocks(page)]
CODE = [block for block in BLOCKS if block.language in PROGRAMS]


@pytest.fixture
def workplace(tmp_path):
    """A folder as the pages assume it: two videos, and the checkpoint of the demo."""
    for name in ("ride.mp4", "other.mp4"):
        shutil.copy(DEMO_VIDEO, tmp_path / name)
    (tmp_path / "export").symlink_to(ROOT / "export")
    return tmp_path


def run(block, folder, *, address=ADDRESS, variables=None):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
    done = subprocess.run(
        [*program, "-c", block.without_installs.replace(ADDRESS, address)],
        cwd=folder,
        env={**(variables or os.environ), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{block.code}\n{done.stderr[-2000:]}"


def of_kind(*kinds):
    return [pytest.param(block, id=str(block)) for block in CODE if block.kind in kinds]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.page == page and b.kind == "run" for b in CODE)],
    ids=lambda page: page.name,
)
def test_the_blocks_of_a_page_run_in_order(page, workplace):
    for block in CODE:
        if block.page == page and block.kind == "run":
            run(block, workplace)


@pytest.mark.parametrize("block", of_kind("server"))
def test_a_block_that_asks_a_server_runs(block, workplace):
    with running(XClip(DEMO_BUNDLE, device="cpu")) as server:
        run(block, workplace, address=server.address.removeprefix("http://"))


@pytest.mark.network
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", of_kind("network"))
def test_a_block_that_needs_a_package_index_runs_in_a_fresh_copy(block, tmp_path):
    ignore = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "tests", "checkpoint")
    copy = shutil.copytree(ROOT, tmp_path / "clone", ignore=ignore)

    run(block, copy, variables={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", of_kind("slow"))
def test_a_slow_block_runs(block, workplace):
    run(block, workplace)


@pytest.mark.hub
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", of_kind("hub"))
def test_a_block_that_downloads_a_checkpoint_runs(block, workplace):
    run(block, workplace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs_or_says_why_not(page):
    here = [block for block in BLOCKS if block.page == page]

    assert {block.language for block in here} <= {*PROGRAMS, *DATA}
    assert {block.kind for block in here} <= {"run", *KINDS}
    assert sum(block.mark is not None for block in here) == marks(page)
    assert page.read_text("utf-8").count("\n```") == 2 * len(here)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_installs_what_its_blocks_need_before_them(page):
    """`.ci/extras.py` runs them in such an environment."""
    here = [block for block in CODE if block.page == page and block.kind in ("run", "server")]

    assert not here or here[0].extras


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_imports_from_the_root_of_the_runtime_alone(page):
    code = "".join(block.code for block in CODE if block.page == page and block.language == "python")

    assert re.findall(r"^\s*(?:from|import) xclip_\w+\.\S+", code, re.MULTILINE) == []


def commands():
    """Every call of xclip-onnx, also those in blocks that do not run, as (block, its arguments)."""
    for block in CODE:
        for line in block.code.splitlines() if block.language == "bash" else ():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            operators = [number for number, word in enumerate(words) if set(word) <= set("();<>|&")]
            for begin, end in zip([-1, *operators], [*operators, len(words)], strict=True):
                command = words[begin + 1 : end]
                if command and Path(command[0]).name == "xclip-onnx":
                    yield block, command[1:]


@pytest.mark.parametrize("call", [pytest.param(c, id=f"{c[0]} {' '.join(c[1][:2])}") for c in commands()])
def test_the_options_of_every_command_exist(call):
    _, words = call
    command, context = cli, cli.make_context("xclip-onnx", [], resilient_parsing=True)
    for word in words:
        found = command.get_command(context, word) if hasattr(command, "get_command") else None
        if found is None:
            break
        command = found
    shown = {
        name
        for option in command.params
        if not getattr(option, "hidden", False)
        for name in option.opts + option.secondary_opts
    }

    assert command is not cli
    assert {word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word)} <= {*shown, "--help"}


def test_the_readme_opens_with_the_two_set_up_commands():
    demo, test = (block.code for block in CODE[:2])

    assert demo.endswith("xclip-onnx demo\n")
    assert test.endswith("pytest\n")
    assert demo.count("\n") == test.count("\n") == 1


def test_ci_runs_the_test_command_word_for_word():
    assert CODE[1].code.strip() in (ROOT / ".ci/run").read_text().splitlines()


def test_ci_runs_the_checks_that_contributing_names():
    (checks,) = [block.code for block in CODE if "ruff check" in block.code]
    script = (ROOT / ".ci/run").read_text().splitlines()

    assert all(f".venv-dev/bin/{command}" in script for command in checks.splitlines())


def test_the_site_has_every_page_once():
    named = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text("utf-8")):
        name, _, anchor = target.partition("#")
        text = (ROOT / name).read_text("utf-8")
        headings = [
            re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        ]
        assert not anchor or anchor in headings, target


def table(page, title):
    """Rows of the table under a heading."""
    section = (ROOT / "docs" / page).read_text("utf-8").partition(f"# {title}\n")[2].partition("\n#")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")][
        2:
    ]


def test_the_command_reference_lists_every_command():
    assert [name.strip("`") for name, *_ in table("cli.md", "Command line")] == list(COMMANDS)


JSON_CALLS = {
    "demo": "demo",
    "classify": "classify ride.mp4 --bundle motion-demo",
    "score": "score ride.mp4 text --bundle motion-demo",
    "stream": "stream ride.mp4 --bundle motion-demo",
    "stream --events": "stream ride.mp4 --bundle motion-demo --events",
    "embed": "embed ride.mp4 --bundle motion-demo --output videos",
    "verify": "verify --bundle motion-demo",
    "doctor": "doctor",
}


def test_the_json_fields_are_those_of_the_reference(workplace):
    rows = {name.strip("`"): fields for name, fields in table("cli.md", "JSON")}
    for name, call in JSON_CALLS.items():
        done = subprocess.run(
            [sys.executable, "-c", "from xclip_runtime.cli import main; main()", *call.split(), "--json"],
            cwd=workplace,
            capture_output=True,
            text=True,
            check=False,
        )
        document = json.loads(done.stdout if name in ("verify", "doctor") else done.stdout.splitlines()[0])
        assert re.findall(r"`(\w+)`", rows[name].partition(";")[0]) == list(document), name


def test_installation_lists_every_extra():
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)

    assert sorted(name.strip("`") for name, *_ in table("installation.md", "Extras")) == sorted(extras)


# Not in __all__, since importing them needs the extra [ray].
NEED_RAY = {"BulkReport", "run_bulk", "xclip_deployment"}
CHANGES = table("architecture.md", "Where a change belongs")


def test_the_picture_of_the_packages_has_the_layers_that_import_linter_checks():
    contract = (ROOT / "pyproject.toml").read_text().partition('containers = ["xclip_runtime"]')[2].partition("]\n")[0]
    page = (ROOT / "docs/architecture.md").read_text().partition("contracts in `pyproject.toml`:\n\n```text\n")[2]
    lines = page.partition("```")[0].splitlines()

    assert [re.split("  +", line)[0] for line in lines] == re.findall(r'^    "([\w |]+)",$', contract, re.MULTILINE)


def test_ten_changes_and_more_have_their_file():
    assert len(CHANGES) >= 10


@pytest.mark.parametrize("row", CHANGES, ids=lambda row: row[0])
def test_the_file_of_a_change_exists(row):
    assert (ROOT / row[1].strip("`")).is_file()


def test_the_reference_documents_every_public_name():
    documented = re.findall(r"^::: xclip_runtime\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    public = {name for name in xclip_runtime.__all__ if name != "__version__"}

    assert len(documented) == len(set(documented))
    assert set(documented) == public | NEED_RAY
