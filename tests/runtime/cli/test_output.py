"""Output in every encoding, to full disks and closed pipes."""

from __future__ import annotations

import io
import json
import logging
import os
import sys

import pytest

from xclip_runtime.cli import main
from xclip_runtime.cli.output import _Line, prepare_streams, print_error, print_json
from xclip_runtime.cli.render import console, label_table, table
from xclip_runtime.results import LabelScore

ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8"]


@pytest.fixture
def stdout(monkeypatch):
    """``stdout(encoding)`` replaces standard output; the result gives what was written."""

    def replaced(encoding):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        prepare_streams()
        return lambda: stream.buffer.getvalue().decode(encoding)

    return replaced


@pytest.fixture
def command(monkeypatch):
    """``command("info", ...)`` runs the command line here and returns its exit code."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["xclip-onnx", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bars_columns_and_names_are_printed_in_any_encoding(stdout, encoding):
    written = stdout(encoding)
    scores = [LabelScore("踊る", 0.5, 1.0), LabelScore("\udcff", 0.1, 0.5)]
    console().print(label_table(scores))
    console().print(table(("max |Δlogit|", "≤", "→ …"), [("1", "2", "3")]))

    utf8 = encoding == "utf-8"
    bar = ("█" if utf8 else "#") * 15
    assert bar in written()
    assert ("踊る" if utf8 else r"\u8e0a\u308b") in written()
    assert r"\udcff" in written()
    for symbol, fallback in (("Δlogit", "dlogit"), ("≤", "<="), ("→", "->")):
        assert (symbol if utf8 else fallback) in written()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_says_the_same_in_any_encoding_and_in_ascii_where_that_is_not_utf_8(stdout, encoding):
    written = stdout(encoding)
    document = {"video": "\udcff/é.mp4", "label": "踊る 🐦"}
    print_json(document)

    assert json.loads(written()) == document
    assert written().isascii() is (encoding != "utf-8")


def test_a_command_says_all_in_ascii(stdout, command):
    written = stdout("ascii")

    assert not command("info", "--bundle", "motion-demo")
    assert "max |dlogit|" in written()
    assert "... (70 in all)" in written()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("xclip_runtime.hub.client", "xclip-onnx"), ("xclip_export", "xclip-onnx"), ("torch.onnx", "torch")],
)
def test_a_warning_is_under_the_name_of_who_warns(name, shown):
    record = logging.LogRecord(name, logging.WARNING, "", 0, "careful", (), None)

    assert _Line("%(source)s: %(message)s").format(record) == f"{shown}: careful"


def test_errors_and_warnings_hide_passwords(capsys):
    print_error("rtsp://me:secret@camera/1 cannot be opened")
    assert capsys.readouterr().err == "xclip-onnx: rtsp://me:***@camera/1 cannot be opened\n"


@pytest.mark.parametrize(
    "args",
    [
        ("classify", "-b", "motion-demo", "ADDRESS"),
        ("classify", "-b", "motion-demo", "--json", "ADDRESS"),
        ("score", "-b", "motion-demo", "ADDRESS", "a text"),
        ("embed", "-b", "motion-demo", "-o", "OUT", "ADDRESS"),
        ("index", "add", "-b", "motion-demo", "-i", "OUT", "--json", "ADDRESS"),
    ],
    ids=lambda args: "-".join(args[:2]),
)
def test_addresses_are_for_stream_and_keep_their_passwords(command, capfd, tmp_path, args):
    address = "rtsp://me:secret@127.0.0.1:1/x"
    given = {"ADDRESS": address, "OUT": str(tmp_path / "out")}

    assert command(*(given.get(arg, arg) for arg in args)) == 2
    told = "".join(capfd.readouterr())
    assert "rtsp://me:***@127.0.0.1:1/x is an address, not a file: download it, or watch it with `xclip-onnx" in told
    assert "secret" not in told
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_stream_keeps_the_password_of_an_address_that_does_not_answer(command, capfd, caplog):
    assert command("stream", "-b", "motion-demo", "rtsp://me:secret@127.0.0.1:1/x") == 2
    told = "".join(capfd.readouterr())
    assert "rtsp://me:***@127.0.0.1:1/x" in told
    assert "secret" not in told + caplog.text


@pytest.mark.parametrize(
    "args",
    [
        *(("info", "-b", "motion-demo", "--json"), ("push", "motion-demo", "a/b", "--dry-run")),
        *(("--help",), ("--version",), ("info", "--help"), ("index", "add", "-h")),
    ],
)
def test_a_full_disk_is_told_as_that_of_standard_output(run, args):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert "cannot read or write standard output (No space left on device)" in run(*args, stdout=full).err


@pytest.mark.parametrize("args", [("info", "-b", "motion-demo"), ("info", "-b", "motion-demo", "--json"), ("--help",)])
def test_a_full_disk_and_a_closed_pipe_end_in_one_line(run, args):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run(*args, stdout=full)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "No space left on device" in done.err

    read, write = os.pipe()
    os.close(read)
    done = run(*args, stdout=write)
    os.close(write)
    assert (done.code, done.err) == (
        141,
        "xclip-onnx: standard output was closed before its end: nothing more is done\n",
    )


def test_standard_error_that_takes_nothing_stops_nothing(run):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run("classify", "-b", "motion-demo", "--json", "missing.mp4", stderr=full)
    assert (done.code, done.json["error"]["type"]) == (2, "VideoNotFoundError")
