"""Samples of labelled videos in every format, with the labels spelt as the model spells them."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.errors import DatasetError, LabelsError
from xclip_runtime.evaluation.datasets import (
    HMDB51_SPLITS,
    UCF101_SPLITS,
    Sample,
    find_samples,
    guess_format,
    in_turn,
    segments_of,
    with_labels_of,
)
from xclip_runtime.text.labels import comparable


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(data, *args, **options):
    return [(sample.video, sample.label) for sample in find_samples(data, *args, **options)]


@pytest.fixture
def hmdb51(tmp_path):
    """Two classes with HMDB-51's odd file names; in split 1 a video each for training, testing and neither."""
    for name in ("brush_hair", "kick_ball"):
        touch(*(tmp_path / name / f"April_09 (x)#{k};_f_cm_np1.avi" for k in range(3)))
        for split, uses in ((1, (1, 2, 0)), (2, (2, 2, 1))):
            lines = [f"April_09 (x)#{k};_f_cm_np1.avi {use} \n" for k, use in enumerate(uses)]
            path = tmp_path / HMDB51_SPLITS / f"{name}_test_split{split}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(lines))
    return tmp_path


def test_a_folder_names_the_class_of_its_videos(tmp_path):
    touch(
        tmp_path / "ride bike/a.mp4",
        tmp_path / "ride bike/deep/b.avi",
        tmp_path / "sit/c.webm",
        tmp_path / "sit/notes.txt",
    )

    assert found(tmp_path) == [
        (str(tmp_path / "ride bike/a.mp4"), "ride bike"),
        (str(tmp_path / "ride bike/deep/b.avi"), "ride bike"),
        (str(tmp_path / "sit/c.webm"), "sit"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "label,path\nride bike,clips/a b.mp4\nsit,c.mp4\n"),
        ("list.csv", "\ufeffVideo,Name\nclips/a b.mp4,ride bike\n\nc.mp4,sit\n"),
        ("list.txt", "clips/a b.mp4\tride bike\n\nc.mp4\tsit\n"),
        ("list.txt", "clips/a b.mp4, ride bike\nc.mp4, sit\n"),
    ],
)
def test_a_list_is_relative_to_where_it_lies(tmp_path, name, text):
    touch(tmp_path / "clips/a b.mp4", tmp_path / "c.mp4")
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert found(tmp_path / name) == [
        (str(tmp_path / "clips/a b.mp4"), "ride bike"),
        (str(tmp_path / "c.mp4"), "sit"),
    ]


def test_in_a_list_with_blanks_the_label_may_have_several_words(tmp_path):
    touch(tmp_path / "c.mp4")
    (tmp_path / "list.txt").write_text("c.mp4 ride bike\n")

    assert found(tmp_path / "list.txt") == [(str(tmp_path / "c.mp4"), "ride bike")]


def test_a_list_labels_parts_of_videos(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    lines = ["path,label,start,end", "a.mp4,sit,4,5.5", "a.mp4,run,0,2", "b.mp4,sit,,", "a.mp4,run,2, 4 "]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    samples = find_samples(tmp_path / "list.csv")

    assert samples[0] == Sample(a, "sit", 4.0, 5.5)
    assert [sample.is_part for sample in samples] == [True, True, False, True]
    assert with_labels_of(samples, ["Run", "Sit"])[0] == Sample(a, "Sit", 4.0, 5.5)
    assert segments_of(samples) == {
        a: [Sample(a, "run", 0.0, 4.0), Sample(a, "sit", 4.0, 5.5)],
        b: [Sample(b, "sit")],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sit,soon,5", "line 3 .*'soon'.*give seconds"),
        ("sit,1:30,", "line 3 .*'1:30'.*give seconds"),
        ("sit,5,4", "line 3 .*5 to 4 s"),
        ("sit,-1,4", "line 3 .*-1 to 4 s"),
        ("sit,nan,4", "line 3 .*nan to 4 s"),
        ("sit,1,4", "two labels at 1 s, run and sit"),
        ("sit,,", "two labels at 0 s"),
    ],
)
def test_parts_that_make_no_sense_are_refused(tmp_path, row, message):
    touch(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text(f"path,label,start,end\na.mp4,run,0,2\na.mp4,{row}\n")

    with pytest.raises(DatasetError, match=message):
        segments_of(find_samples(tmp_path / "list.csv"))


def test_a_list_of_numbers_is_refused(tmp_path):
    touch(tmp_path / "c.mp4")
    (tmp_path / "list.txt").write_text("c.mp4 20\n")

    with pytest.raises(DatasetError, match="write their names"):
        find_samples(tmp_path / "list.txt")


@pytest.mark.parametrize(("split", "subset", "expected"), [(1, "test", [1]), (1, "train", [0]), (2, "test", [0, 1])])
def test_the_last_number_of_an_hmdb51_line_is_what_a_video_is_for(hmdb51, split, subset, expected):
    assert found(hmdb51, split=split, subset=subset) == [
        (str(hmdb51 / name / f"April_09 (x)#{k};_f_cm_np1.avi"), name)
        for name in ("brush_hair", "kick_ball")
        for k in expected
    ]


@pytest.mark.parametrize("place", ["beside", "named", "below"])
def test_split_files_may_lie_elsewhere(hmdb51, place, tmp_path_factory):
    expected = [(name, label) for name, label in found(hmdb51)]
    if place == "named":
        other = (hmdb51 / HMDB51_SPLITS).rename(tmp_path_factory.mktemp("other") / "splits")
        assert found(hmdb51, split_files=other) == expected
        return
    videos = hmdb51 / "hmdb51_org"
    videos.mkdir()
    for name in ("brush_hair", "kick_ball"):
        (hmdb51 / name).rename(videos / name)
    data = videos if place == "beside" else hmdb51
    assert found(data) == [(name.replace(str(hmdb51), str(videos)), label) for name, label in expected]


def test_a_split_that_is_not_there_is_named(hmdb51):
    with pytest.raises(DatasetError, match="test_split3"):
        find_samples(hmdb51, split=3)


def test_a_listed_video_that_is_missing_is_named(hmdb51):
    next((hmdb51 / "kick_ball").glob("*#1*")).unlink()

    with pytest.raises(DatasetError, match=r"1 of the 2 videos .* kick_ball|kick_ball"):
        find_samples(hmdb51)


def test_ucf101_names_the_class_by_the_folder_and_not_by_the_number(tmp_path):
    touch(tmp_path / "UCF-101/YoYo/v_YoYo_g01_c01.avi", tmp_path / "UCF-101/ApplyLipstick/v_ApplyLipstick_g09_c01.avi")
    lists = tmp_path / UCF101_SPLITS
    lists.mkdir()
    (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\r\n")
    (lists / "trainlist01.txt").write_text("ApplyLipstick/v_ApplyLipstick_g09_c01.avi 2\r\n")

    assert guess_format(tmp_path) == "ucf101"
    assert found(tmp_path) == [(str(tmp_path / "UCF-101/YoYo/v_YoYo_g01_c01.avi"), "YoYo")]
    assert [sample.label for sample in find_samples(tmp_path, subset="train")] == ["ApplyLipstick"]


@pytest.mark.parametrize("layout", ["auto", "folder", "list", "hmdb51", "ucf101"])
def test_an_empty_folder_is_no_dataset(tmp_path, layout):
    with pytest.raises(DatasetError):
        find_samples(tmp_path, layout)


def test_a_path_that_is_not_there_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no dataset at"):
        find_samples(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["Ride_Bike", "ride bike", "RideBike", "ride-bike", " RIDE  BIKE "])
def test_names_match_without_case_and_separators(name):
    assert with_labels_of([Sample("v", name)], ["sit", "ride bike"]) == [Sample("v", "ride bike")]


@given(st.text())
def test_normalising_twice_changes_nothing(name):
    assert comparable(comparable(name)) == comparable(name)


def test_all_unknown_names_are_listed():
    samples = [Sample("a", "sit"), Sample("b", "fly"), Sample("c", "swim"), Sample("d", "fly")]

    with pytest.raises(LabelsError, match=r"2 labels .* fly, swim;"):
        with_labels_of(samples, ["sit"])


def test_labels_of_a_bundle_that_differ_only_in_case_are_refused():
    with pytest.raises(LabelsError, match="differ only"):
        with_labels_of([Sample("a", "sit")], ["Sit", "sit"])


def test_a_part_of_a_dataset_takes_the_classes_in_turn():
    samples = [Sample(f"{label}{k}", label) for label in "abc" for k in range(3)]

    assert [sample.video for sample in in_turn(samples, 5)] == ["a0", "b0", "c0", "a1", "b1"]
    assert sorted(in_turn(samples), key=lambda sample: sample.video) == samples


def test_names_of_other_scripts_match_their_own_label_only():
    samples = [Sample("1", "हिरन"), Sample("2", "हेरन"), Sample("3", "c++"), Sample("4", "cafe\u0301")]
    labels = ["हेरन", "हिरन", "C", "C++", "caf\u00e9"]

    assert [sample.label for sample in with_labels_of(samples, labels)] == ["हिरन", "हेरन", "C++", "caf\u00e9"]


@pytest.mark.parametrize("suffix", ["txt", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_names_in_lists_keep_what_unicode_calls_the_end_of_a_line(tmp_path, suffix, encoding):
    names = ["a\u2028b.mp4", "c\x85d.mp4", "e\x0cf.mp4"]
    touch(*(tmp_path / name for name in names))
    separator, header = ("\t", []) if suffix == "txt" else (",", ["path,label"])
    listed = "\r\n".join([*header, *(f"{name}{separator}la\u2028bel" for name in names), ""])
    (tmp_path / f"list.{suffix}").write_bytes(listed.encode(encoding))

    assert found(tmp_path / f"list.{suffix}") == [(str(tmp_path / name), "la\u2028bel") for name in names]


def test_addresses_in_a_list_are_missing_files_without_their_passwords(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\nrtsp://me:secret@camera/1,kick\n")

    with pytest.raises(DatasetError, match=r"the first is rtsp://me:\*\*\*@camera/1"):
        find_samples(tmp_path / "list.csv")


def test_a_folder_that_cannot_be_listed_is_a_sample_and_fails_when_it_is_read(tmp_path, monkeypatch):
    touch(tmp_path / "kick/1.mp4", tmp_path / "sit/2.mp4")
    scandir = os.scandir

    def refusing(name):
        if str(name) == str(tmp_path / "sit"):
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return scandir(name)

    monkeypatch.setattr(os, "scandir", refusing)
    assert found(tmp_path, "folder") == [(str(tmp_path / "kick/1.mp4"), "kick"), (str(tmp_path / "sit"), "sit")]
