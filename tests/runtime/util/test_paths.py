"""Video files are found by their suffix, and text files are UTF-8 or refused with the fix."""

from __future__ import annotations

import pytest

from xclip_runtime.errors import LabelsError
from xclip_runtime.util.paths import VIDEO_SUFFIXES, read_text, videos_in


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
