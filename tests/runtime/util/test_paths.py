"""Video files are found by their suffix, behind links, and refused with their cause."""

from __future__ import annotations

import errno
import os

import pytest

from xclip_runtime.errors import VideoNotFoundError
from xclip_runtime.util.paths import VIDEO_SUFFIXES, regular_file, videos_in


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
