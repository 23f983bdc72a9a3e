"""Machines and outputs that people have: no home, outputs that are taken or cannot be written."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from xclip_runtime.cli import main
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.util.locks import locked

OUTPUTS = {
    "classify": (("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "-o", "out"), False),
    "embed": (("embed", DEMO_VIDEO, "-b", DEMO_BUNDLE, "-o", "out"), False),
    "labels": (("labels", "encode", "hmdb51", "-b", DEMO_BUNDLE, "-o", "out"), False),
    "export-triton": (("export-triton", "-b", DEMO_BUNDLE, "-o", "out"), False),
    "eval": (("eval", "data", "-b", DEMO_BUNDLE, "--labels", "a,b", "-o", "out"), True),
    "bench": (("bench", "-o", "out"), True),
    "index": (("index", "add", DEMO_VIDEO, "-b", DEMO_BUNDLE, "-i", "out"), True),
}


@pytest.fixture
def command(monkeypatch):
    """``command("info", ...)`` runs the command line here and returns its exit code."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["xclip-onnx", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with videos of two classes."""
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        shutil.copy(DEMO_VIDEO, tmp_path / "data" / label)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_another_process_writes_is_refused(command, here, capfd, name):
    args, inside = OUTPUTS[name]
    if inside and name != "index":
        Path("out").mkdir()
    # An index holds the lock only while videos are added.
    index = command("index", "add", here / "data/a", "-b", DEMO_BUNDLE, "-i", "out") if name == "index" else None
    assert not index
    with locked("out", inside=inside):
        assert command(*args) == 2
    assert "out is being written by process" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["classify", "embed", "labels", "export-triton", "eval", "bench"])
def test_a_full_disk_is_told_with_the_name_that_was_given_and_stays_as_it_was(command, here, capfd, monkeypatch, name):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.MonkeyPatch.context() if name == "bench" else nullcontext() as patch:
        if patch:
            patch.setattr("xclip_runtime.bench.run.bench", lambda *_: {"scenarios": {}, "sweeps": {}, "stages": None})
        assert command(*OUTPUTS[name][0]) == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("xclip-onnx: cannot read or write out")
    assert "(No space left on device): free space there, or choose another place" in told
    assert "partial" not in told
    assert not list(here.rglob(".*"))


def test_without_a_home_nothing_is_looked_up_in_it(command, here, capfd, monkeypatch):
    def homeless(_):
        message = "Could not determine home directory."
        raise RuntimeError(message)

    for name in ("HOME", "XDG_CACHE_HOME", "XCLIP_ONNX_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))

    assert command("demo", "--json") == 0
    assert json.loads(capfd.readouterr().out)["correct"]


@pytest.mark.parametrize("plots", [True, False])
def test_eval_lists_the_files_that_it_wrote_and_no_others(command, here, capfd, monkeypatch, plots):
    if not plots:
        # As where matplotlib is not installed.
        monkeypatch.delitem(sys.modules, "xclip_runtime.evaluation.plots", raising=False)
        monkeypatch.delattr("xclip_runtime.evaluation.plots", raising=False)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    assert command("eval", "data", "-b", DEMO_BUNDLE, "--labels", "a,b", "-o", "out") == 0
    listed = capfd.readouterr().out.splitlines()[-1].removeprefix("out: ").split(", ")
    assert sorted(listed) == sorted(file.name for file in Path("out").iterdir())
    assert ("confusion.png" in listed) is plots


@pytest.mark.parametrize("option", ["--labels", "--labels-file"])
def test_hmdb51_is_built_in_for_every_command(command, here, capfd, option):
    Path("hmdb51").mkdir()

    assert command("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, option, "hmdb51", "-k", "99", "--json") == 0
    labels = json.loads(capfd.readouterr().out)["labels"]
    assert (len(labels), "ride bike" in {label["label"] for label in labels}) == (51, True)


def test_everything_is_measured_and_told_in_a_locale_without_unicode(run, here):
    (here / "data/a").rename(here / "data/café")
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env |= {"PYTHONPATH": ":".join(filter(None, sys.path))}

    done = run("eval", "data", "-b", DEMO_BUNDLE, "--labels", "café,b", "-o", "out", env=env)
    assert (done.code, done.out.isascii()) == (0, True)
    assert r"caf\xe9" in done.out
    assert "café" in (here / "out/confusion.csv").read_text("utf-8")
