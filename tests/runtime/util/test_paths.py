"""Video files are found by their suffix, and text files are UTF-8 or refused with the fix."""

from __future__ import annotations

import errno
import os

import pytest

from xclip_runtime.errors import LabelsError, VideoNotFoundError
from xclip_runtime.util.paths import VIDEO_SUFFIXES, lines, read_text, regular_file, videos_in


def forbid(monkeypatch, path):
    """Let a file or folder be one that this user may not open; for root, none is."""

    def refusing(function):
        def call(name, *args, **options):
            if str(name) == str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(name))
            return function(name, *args, **options)

        return call

    for name in ("open", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def read(path):
    return read_text(path, LabelsError, content="labels", layout="one label a line")


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_folder_gives_its_videos_whatever_the_case_of_their_suffix(tmp_path, suffix):
    names = [f"a{suffix}", f"b{suffix.upper()}"]
    for name in [*names, "c.txt", f".hidden{suffix}"]:
        (tmp_path / name).touch()

    assert list(videos_in(str(tmp_path))) == [str(tmp_path / name) for name in names]


def test_folders_are_searched_to_the_bottom_except_hidden_ones(tmp_path):
    for name in ("z.mp4", "a/x.mp4", "a/b/y.mp4", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    found = [path.removeprefix(f"{tmp_path}/") for path in videos_in(str(tmp_path))]
    assert found == ["z.mp4", "a/x.mp4", "a/b/y.mp4"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_read_with_or_without_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "x.txt").write_text("Möwe\n", encoding)

    assert read(tmp_path / "x.txt") == "Möwe\n"


def test_a_missing_file_is_refused_with_its_name_and_the_fix(tmp_path):
    with pytest.raises(LabelsError, match=r"cannot read labels from .*x\.txt \(No such file.*\): check the path"):
        read(tmp_path / "x.txt")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-32"])
def test_another_encoding_is_refused_with_the_fix(tmp_path, encoding):
    (tmp_path / "x.txt").write_text("Möwe\n" if encoding == "latin-1" else "gull\n", encoding)

    with pytest.raises(LabelsError, match=r"x\.txt .*: save it as UTF-8, one label a line"):
        read(tmp_path / "x.txt")


def test_links_are_followed_and_each_folder_is_searched_once(tmp_path):
    for name in ("videos/a.mp4", "videos/deep/b.mp4", "other/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "videos/deep/up").symlink_to("../..")
    (tmp_path / "videos/self").symlink_to("self")
    (tmp_path / "videos/x").symlink_to("deep")
    (tmp_path / "videos/z.mp4").symlink_to("a.mp4")

    found = [path.removeprefix(f"{tmp_path}/videos/") for path in videos_in(str(tmp_path / "videos"))]
    assert found == ["a.mp4", "z.mp4", "deep/b.mp4", "deep/up/other/c.mp4"]


def test_a_folder_that_cannot_be_listed_is_found_and_fails_with_its_cause(tmp_path, monkeypatch):
    for name in ("a/1.mp4", "b/2.mp4", "c/3.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    forbid(monkeypatch, tmp_path / "b")

    assert list(videos_in(str(tmp_path))) == [str(tmp_path / name) for name in ("a/1.mp4", "b", "c/3.mp4")]
    with pytest.raises(VideoNotFoundError, match=r"/b cannot be read \(Permission denied\): check .* its permissions"):
        regular_file(tmp_path / "b")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"video")
    forbid(monkeypatch, tmp_path / "a.mp4")

    with pytest.raises(VideoNotFoundError, match=r"a\.mp4 cannot be read \(Permission denied\)"):
        regular_file(tmp_path / "a.mp4")


def test_an_address_is_told_to_stream_or_download_and_keeps_its_password():
    with pytest.raises(VideoNotFoundError, match=r"^rtsp://me:\*\*\*@camera/1 is an address.*: download") as caught:
        regular_file("rtsp://me:secret@camera/1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_as_files_end_them_and_not_where_unicode_would(end, mark):
    assert lines(f"a{mark}b{end}c{end}") == [f"a{mark}b", "c", ""]


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_with_its_mark_is_read(tmp_path, order):
    (tmp_path / "x.txt").write_bytes("\ufeffMöwe\n".encode(f"utf-16-{order}"))

    assert read(tmp_path / "x.txt") == "Möwe\n"


def test_utf_16_that_is_cut_short_is_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffMöwe\n".encode("utf-16-le")[:-1])

    with pytest.raises(LabelsError, match="save it as UTF-8"):
        read(tmp_path / "x.txt")
