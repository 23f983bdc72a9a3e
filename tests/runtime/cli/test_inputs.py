"""Files, folders, patterns and lists become videos; no name stops the others."""

from __future__ import annotations

import io
import os
from types import SimpleNamespace

import click
import pytest

from xclip_runtime.cli.inputs import expand


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with videos, and with links in a circle."""
    for name in ("a.mp4", "deep/b.mp4", "deep/er/c.mp4", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep/up").symlink_to("..")
    (tmp_path / "deep/er/up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listed(monkeypatch):
    """Names of a list on standard input."""

    def expand_list(content):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        return list(expand(["-"]))

    return expand_list


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.mp4", ["a.mp4", "deep/b.mp4", "deep/er/c.mp4"]),
        ("./**/*.mp4", ["./a.mp4", "./deep/b.mp4", "./deep/er/c.mp4"]),
        ("deep/**/*.mp4", ["deep/b.mp4", "deep/er/c.mp4", "deep/up/a.mp4"]),
        ("**/er/*.mp4", ["deep/er/c.mp4"]),
        ("**/er/**/*.mp4", ["deep/er/c.mp4", "deep/er/up/b.mp4", "deep/er/up/up/a.mp4"]),
        ("deep/**", ["deep/b.mp4", "deep/er/c.mp4", "deep/notes.txt", "deep/up/a.mp4"]),
        ("deep/*.mp4", ["deep/b.mp4"]),
        ("d*", ["deep/b.mp4", "deep/er/c.mp4", "deep/up/a.mp4"]),
        ("no/**/*.mp4", ["no/**/*.mp4"]),
        ("[ab].mp4", ["a.mp4"]),
    ],
)
def test_patterns_search_each_folder_once(here, pattern, found):
    assert list(expand([pattern])) == found


def test_a_file_named_like_a_pattern_or_like_standard_input_is_that_file(here):
    for name in ("[x].mp4", "-"):
        (here / name).touch()

    assert list(expand(["[x].mp4", "[-]"])) == ["[x].mp4", "-"]


def test_names_that_are_nothing_are_passed_on(here):
    names = ["missing.mp4", "x" * 5000, "*.avi", "\udcff.mp4", "a.mp4"]

    assert list(expand(names)) == names


def test_the_password_of_an_address_is_hidden(listed):
    assert list(expand(["rtsp://me:secret@camera/1"])) == ["rtsp://me:***@camera/1"]
    assert listed(b"rtsp://me:secret@camera/1\n") == ["rtsp://me:***@camera/1"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_ends_its_lines_at_line_feeds_and_carriage_returns_only(listed, encoding, end):
    names = ["a\u2028b.mp4", "c\x85d.mp4", "e\x0cf.mp4", " g.mp4 ", "Möwe.mp4"]

    assert listed("".join(f"{name}{end}" for name in ["", *names, ""]).encode(encoding)) == names


def test_a_list_of_find_print0_may_hold_any_name(listed):
    assert listed(b"a\nb.mp4\0\xff.mp4\0") == ["a\nb.mp4", os.fsdecode(b"\xff.mp4")]


def test_names_of_a_list_that_are_not_utf_8_are_those_of_the_system(listed):
    assert listed(b"\xff.mp4\nb.mp4\n") == [os.fsdecode(b"\xff.mp4"), "b.mp4"]


def test_folders_of_a_list_are_searched(here, listed):
    assert listed(b"deep/er\na.mp4\n") == ["deep/er/c.mp4", "deep/er/up/b.mp4", "deep/er/up/up/a.mp4", "a.mp4"]


def test_a_list_of_utf_16_that_is_cut_short_is_refused(listed):
    with pytest.raises(click.UsageError, match="UTF-16 that is cut short: write it as UTF-8"):
        listed("a.mp4\n".encode("utf-16")[:-1])
