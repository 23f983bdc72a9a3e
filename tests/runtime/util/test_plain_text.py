"""Text files are UTF-8, or UTF-16 with its mark, or refused with the fix; lines end where files end them."""

from __future__ import annotations

import pytest

from xclip_runtime.errors import LabelsError
from xclip_runtime.util.plain_text import lines, read_text, text_of


def read(path):
    return read_text(path, LabelsError, content="labels", layout="one label a line")


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


@pytest.mark.parametrize(("given", "text"), [("caf\udcc3\udca9", "café"), ("café", "café"), ("\udcff", "\udcff")])
def test_a_text_is_utf_8_whatever_the_locale_made_of_it(given, text):
    assert text_of(given) == text
