"""Errors of the system are one line with the user's name for the file, the cause and the fix."""

from __future__ import annotations

import errno
import os

import pytest

from xclip_runtime.errors import VideoNotFoundError
from xclip_runtime.util.system_errors import explain, naming


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "choose a place that can be written"),
        (errno.ENOENT, "create its folder"),
        (errno.EISDIR, "give a file"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.ENXIO, "check the path and the disk"),
    ],
)
def test_a_cause_has_its_fix(number, fix):
    told = explain(OSError(number, os.strerror(number), "out.json"))

    assert told.startswith(f"cannot read or write out.json ({os.strerror(number)}): ")
    assert fix in told


def test_a_name_that_is_no_line_of_text_is_quoted():
    assert "'a\\nb\\udcff'" in explain(OSError(errno.ENOENT, "gone", "a\nb\udcff"))


def test_an_error_without_number_and_name_is_told_as_it_is():
    assert explain(OSError("3 requested and 2 written")).startswith("3 requested and 2 written: ")


@pytest.mark.parametrize(
    ("inner", "told"),
    [(None, "out"), ("/x/.out.partial", "out"), ("/x/.out.partial/new/a.onnx", "out/new/a.onnx"), ("/y", "/y")],
)
def test_temporary_names_and_none_give_way_to_the_name_that_was_given(inner, told):
    with pytest.raises(FileNotFoundError) as caught, naming("out", instead_of="/x/.out.partial"):
        raise OSError(errno.ENOENT, "gone", *([inner] if inner else []))

    assert caught.value.filename == told


def test_our_own_errors_stay():
    error = VideoNotFoundError("no such file: a.mp4")

    with pytest.raises(VideoNotFoundError) as caught, naming("out"):
        raise error
    assert caught.value is error
