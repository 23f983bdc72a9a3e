"""Label files in every form that people have them in."""

from __future__ import annotations

import pytest

from xclip_runtime.errors import LabelsError
from xclip_runtime.text.labels import as_names, comparable, label_set, read_label_names


def test_one_label_a_line_blank_lines_skipped(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("brush hair\n\n  ride bike  \r\nkick\n")

    assert read_label_names(file) == ["brush hair", "ride bike", "kick"]


def test_a_csv_gives_its_name_column_in_row_order_whatever_its_ids(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes(b'id,Name\r\n20,kick ball\r\n3,"chew, slowly"\r\n')

    assert read_label_names(file) == ["kick ball", "chew, slowly"]


def test_a_byte_order_mark_is_not_part_of_the_first_label(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffsmile\nréveil\n".encode())

    assert read_label_names(file) == ["smile", "réveil"]


def test_a_csv_without_a_name_column_is_refused(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("id,label\n0,kick\n")

    with pytest.raises(LabelsError, match="no column 'name'"):
        read_label_names(file)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes("réveil".encode("latin-1"))

    with pytest.raises(LabelsError, match="not UTF-8"):
        read_label_names(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LabelsError, match="cannot read labels"):
        read_label_names(tmp_path / "nothing.txt")


def test_the_default_text_is_the_bare_name():
    assert label_set(["kick", "run"]).texts == ("kick", "run")


def test_a_template_wraps_every_name():
    labels = label_set(["kick"], "a video of {}")

    assert (labels.names, labels.texts) == (("kick",), ("a video of kick",))


def test_braces_in_a_name_stay_as_they_are():
    assert label_set(["{0}"], "a {}").texts == ("a {0}",)


def test_duplicates_are_kept():
    assert label_set(["kick", "kick"]).names == ("kick", "kick")


@pytest.mark.parametrize(
    ("names", "template", "message"),
    [([], "{}", "is empty"), (["a", " "], "{}", "label 2 of 2 is empty"), (["a"], "a video", "has no {}")],
)
def test_unusable_sets_are_refused(names, template, message):
    with pytest.raises(LabelsError, match=message):
        label_set(names, template)


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32"])
def test_other_unicode_encodings_are_refused_with_what_to_do(tmp_path, name, encoding):
    file = tmp_path / name
    file.write_bytes("name\nkick\n".encode(encoding))

    with pytest.raises(LabelsError, match="save it as UTF-8"):
        read_label_names(file)


def test_a_csv_that_cannot_be_parsed_is_refused(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text(f'name\n"{"x" * 200_000}"\n')

    with pytest.raises(LabelsError, match="is not valid CSV"):
        read_label_names(file)


def test_duplicates_are_said_with_a_few_of_them(caplog):
    label_set([name for name in "abcdef" for _ in range(2)])

    assert caplog.messages == ["labels given more than once are kept and share their probability: 'a', 'b', 'c', …"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ride_Bike", "ride bike"),
        ("ride-bike", "RideBike"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAFÉ", "cafe\u0301"),
        ("STRASSE", "straße"),
        ("a\u00a0b\u3000c", "abc"),
        ("Ὀδυσσεύς", "ὈΔΥΣΣΕΎΣ"),
    ],
)
def test_spellings_of_one_name_are_equal(one, other):
    assert comparable(one) == comparable(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("हिरन", "हेरन"),
        ("C", "C++"),
        ("C++", "C#"),
        ("cafe", "café"),
        ("kick (ball)", "kick ball"),
        ("が", "か"),
        ("a\u2028b", "ab"),
    ],
)
def test_marks_and_symbols_make_names_differ(one, other):
    assert comparable(one) != comparable(other)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_lines_of_a_file_end_at_line_feeds_and_carriage_returns_only(tmp_path, encoding, end, suffix):
    names = ["a\u2028b", "c\x85d", "e\x0cf", "\u2028g\x85", "हिरन"]
    file = tmp_path / f"labels.{suffix}"
    file.write_bytes("".join(f"{line}{end}" for line in ["name", *names, "", " \t "]).encode(encoding))

    assert read_label_names(file) == ([] if suffix == "csv" else ["name"]) + names


def test_hmdb51_is_built_in_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "hmdb51").mkdir()
    monkeypatch.chdir(tmp_path)

    names = read_label_names("hmdb51")
    assert (len(names), names[0], names[-1]) == (51, "brush hair", "wave")


@pytest.mark.parametrize(("item", "name"), [("label", "labels"), ("text", "texts")])
def test_none_and_an_empty_one_are_named_for_what_they_are(item, name):
    with pytest.raises(LabelsError, match=rf"^{name} is empty: give at least one {item}$"):
        as_names([], item, name)
    with pytest.raises(LabelsError, match=rf"^{item} 2 of 2 is empty"):
        as_names(["a", " "], item, name)
