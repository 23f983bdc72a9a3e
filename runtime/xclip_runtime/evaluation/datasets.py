"""Labelled videos: folders, lists, HMDB-51, UCF-101. Labels are matched by name, never by number."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xclip_runtime.errors import DatasetError, LabelsError
from xclip_runtime.text.labels import comparable
from xclip_runtime.util.addresses import located
from xclip_runtime.util.paths import videos_in
from xclip_runtime.util.plain_text import BLANKS, lines, read_text, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Format = Literal["auto", "folder", "list", "hmdb51", "ucf101"]
Subset = Literal["test", "train"]

HMDB51_SPLITS = "testTrainMulti_7030_splits"
UCF101_SPLITS = "ucfTrainTestlist"
_VIDEO_FOLDERS = (".", "videos", "hmdb51_org", "UCF-101")
_PATH_COLUMNS = ("path", "video", "file", "filename")
_LABEL_COLUMNS = ("label", "name", "class")


@dataclass(frozen=True)
class Sample:
    """Labelled video, or part of one."""

    video: str
    """Path of the file."""

    label: str
    """Name of the class, as the dataset spells it; after `with_labels_of`, as the model does."""

    start: float = 0.0
    """Start of the part, seconds."""

    end: float = math.inf
    """End of the part, seconds; infinity for that of the video."""

    @property
    def is_part(self) -> bool:
        """True if the label is that of a part of the video."""
        return (self.start, self.end) != (0.0, math.inf)


def find_samples(
    data: str | os.PathLike[str],
    format: Format = "auto",  # noqa: A002 - the option's name
    *,
    split: int = 1,
    subset: Subset = "test",
    split_files: str | os.PathLike[str] | None = None,
) -> list[Sample]:
    """Find the labelled videos of a dataset, in a fixed order.

    Args:
        data: A folder, or a list of files.
        format: Layout of the dataset.

            - "folder": one folder a class.
            - "list": a CSV file with columns path and label, and start and end in seconds for parts of videos, or lines
              with a path, a tab, comma or blanks, and the label's name; paths are relative to the list.
            - "hmdb51": a folder a class, and split files ``<class>_test_split<N>.txt`` whose lines end in 0 (unused),
              1 (training) or 2 (test).
            - "ucf101": a folder a class, and ``testlist0<N>.txt`` or ``trainlist0<N>.txt``.
            - "auto": "list" for a file; for a folder the layout of its split files, or else "folder".
        split: Official split of HMDB-51 and UCF-101: 1, 2 or 3.
        subset: Part of the split, "test" or "train".
        split_files: Folder with the split files; None looks for ``testTrainMulti_7030_splits`` or
            ``ucfTrainTestlist`` in the data and beside it.

    Raises:
        DatasetError: The dataset is missing, has another layout, or lacks a listed video.
    """
    path = Path(data)
    if not path.exists():
        message = f"no dataset at {path}: give a folder with one folder a class, or a list of videos and labels"
        raise DatasetError(message)
    found = guess_format(path, split_files) if format == "auto" else format
    if found == "list":
        samples = _from_list(path)
    elif found == "hmdb51":
        samples = _from_hmdb51(path, _splits_of(path, split_files, HMDB51_SPLITS), split, subset)
    elif found == "ucf101":
        samples = _from_ucf101(path, _splits_of(path, split_files, UCF101_SPLITS), split, subset)
    else:
        samples = _from_folders(path)
    if not samples:
        message = f"{path} holds no labelled video: give a folder with one folder a class, or name its --format"
        raise DatasetError(message)
    missing = [sample.video for sample in samples if _is_missing(sample.video)]
    if missing:
        message = (
            f"{len(missing)} of the {len(samples)} videos of {path} are missing, the first is {missing[0]}: "
            "unpack the whole dataset, or correct the paths"
        )
        raise DatasetError(message)
    return samples


def _is_missing(video: str) -> bool:
    """Return True if there is no such file; a file without permission fails later, when it is read."""
    try:
        os.stat(video)  # noqa: PTH116 - as it is spelt
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def with_labels_of(samples: Iterable[Sample], labels: Sequence[str]) -> list[Sample]:
    """Spell the labels of samples as the model spells them; list the labels that it lacks in a LabelsError."""
    names: dict[str, str] = {}
    for label in labels:
        if names.setdefault(comparable(label), label) != label:
            message = (
                f"labels {names[comparable(label)]!r} and {label!r} differ only in case and separators: rename one"
            )
            raise LabelsError(message)
    samples = list(samples)
    unknown = sorted({sample.label for sample in samples} - {s.label for s in samples if comparable(s.label) in names})
    if unknown:
        message = (
            f"{len(unknown)} labels of the dataset are not among the {len(labels)} of the bundle: "
            f"{', '.join(unknown)}; rename them, or export a bundle with --labels-file"
        )
        raise LabelsError(message)
    return [replace(sample, label=names[comparable(sample.label)]) for sample in samples]


def segments_of(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Sort labelled parts by file, as `os.path.realpath` names it, and time; adjacent ones of one label become one.

    Raises:
        DatasetError: Two parts of a file overlap.
    """
    segments: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.start):
        before = segments.setdefault(os.path.realpath(sample.video), [])
        if before and sample.start < before[-1].end:
            message = (
                f"{sample.video} has two labels at {sample.start:g} s, {before[-1].label} and {sample.label}: "
                "correct their start and end"
            )
            raise DatasetError(message)
        if before and (before[-1].end, before[-1].label) == (sample.start, sample.label):
            before[-1] = replace(before[-1], end=sample.end)
        else:
            before.append(sample)
    return segments


def in_turn(samples: Iterable[Sample], limit: int | None = None) -> list[Sample]:
    """Order samples with the classes in turn, so that any prefix is balanced; keep the first ``limit``, or all."""
    by_label: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_label[sample.label].append(sample)
    return [sample for turn in zip_longest(*by_label.values()) for sample in turn if sample is not None][:limit]


def guess_format(path: Path, split_files: str | os.PathLike[str] | None = None) -> Format:
    """Guess the format that "auto" stands for; see `find_samples`."""
    if path.is_file():
        return "list"
    for folder in [Path(split_files)] if split_files else [path, path.parent]:
        if next(folder.glob(f"{'' if split_files else HMDB51_SPLITS + '/'}*_test_split?.txt"), None):
            return "hmdb51"
        if next(folder.glob(f"{'' if split_files else UCF101_SPLITS + '/'}testlist0?.txt"), None):
            return "ucf101"
    return "folder"


def _splits_of(path: Path, split_files: str | os.PathLike[str] | None, name: str) -> Path:
    candidates = [Path(split_files)] if split_files else [path / name, path.parent / name]
    for folder in candidates:
        if folder.is_dir():
            return folder
    message = f"no split files at {candidates[0]}: unpack them there, or name their folder with --split-files"
    raise DatasetError(message)


def _from_folders(path: Path) -> list[Sample]:
    if path.is_file():
        message = f"{path} is a file: give a folder with one folder a class, or --format list"
        raise DatasetError(message)
    try:
        classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): check its permissions"
        raise DatasetError(message) from error
    return [Sample(video, text_of(folder.name)) for folder in classes for video in videos_in(str(folder))]


def _from_list(path: Path) -> list[Sample]:
    text = read_text(path, DatasetError, content="a list of videos", layout="a path and a label a line")
    rows = _rows_of_csv(path, text) if path.suffix.lower() == ".csv" else _rows_of_text(path, text)
    numbered = [sample for sample in rows if sample.label.isdecimal()]
    if rows and len(numbered) == len(rows):
        message = (
            f"{path} gives its labels as numbers, which lists of the same dataset do not agree on: write their names"
        )
        raise DatasetError(message)
    return [replace(sample, video=located(path.parent, sample.video)) for sample in rows]


def _rows_of_csv(path: Path, text: str) -> list[Sample]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    video = next((columns[name] for name in _PATH_COLUMNS if name in columns), None)
    label = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
    if video is None or label is None:
        message = f"{path} has no columns 'path' and 'label': write them into its first line"
        raise DatasetError(message)
    rows = []
    for row in reader:
        if name := (row[video] or "").strip(BLANKS):
            start, end = (
                _seconds(path, reader.line_num, row.get(columns.get(column, "")), default)
                for column, default in (("start", 0.0), ("end", math.inf))
            )
            if not 0 <= start < end:
                message = f"line {reader.line_num} of {path} is from {start:g} to {end:g} s: give 0 <= start < end"
                raise DatasetError(message)
            rows.append(Sample(name, (row[label] or "").strip(BLANKS), start, end))
    return rows


def _seconds(path: Path, line: int, text: str | None, default: float) -> float:
    if not (text or "").strip(BLANKS):
        return default
    try:
        return float(text or "")
    except ValueError as error:
        message = f"line {line} of {path} has the time {text!r}: give seconds, such as 12.5"
        raise DatasetError(message) from error


def _rows_of_text(path: Path, text: str) -> list[Sample]:
    rows = []
    for number, line in enumerate(lines(text), start=1):
        if not line.strip(BLANKS):
            continue
        separator = next((mark for mark in ("\t", ",") if mark in line), None)
        video, _, label = (line.strip(BLANKS) if separator is None else line).partition(separator or " ")
        if not video.strip(BLANKS) or not label.strip(BLANKS):
            message = f"line {number} of {path} is not a path and a label: separate them with a tab"
            raise DatasetError(message)
        rows.append(Sample(video.strip(BLANKS), label.strip(BLANKS)))
    return rows


def _from_hmdb51(path: Path, folder: Path, split: int, subset: Subset) -> list[Sample]:
    files = sorted(folder.glob(f"*_test_split{split}.txt"))
    if not files:
        message = f"{folder} holds no <class>_test_split{split}.txt: choose a --split that is there"
        raise DatasetError(message)
    wanted = {"train": "1", "test": "2"}[subset]
    samples = []
    for file in files:
        name = file.name.removesuffix(f"_test_split{split}.txt")
        folder = _class_folder(path, name)
        for line in _split_lines(file):
            video, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                message = f"line {line!r} of {file} does not end in 0, 1 or 2: get the split files anew"
                raise DatasetError(message)
            if use == wanted:
                samples.append(Sample(str(folder / video.strip(BLANKS)), name))
    return samples


def _from_ucf101(path: Path, folder: Path, split: int, subset: Subset) -> list[Sample]:
    file = folder / f"{subset}list0{split}.txt"
    if not file.is_file():
        message = f"{folder} holds no {file.name}: choose a --split that is there"
        raise DatasetError(message)
    samples = []
    for line in _split_lines(file):
        # Lists for training end in the number of the class, which the folder names already.
        name, _, video = re.sub(r"\s+\d+$", "", line).partition("/")
        samples.append(Sample(str(_class_folder(path, name) / video), name))
    return samples


def _split_lines(file: Path) -> list[str]:
    text = read_text(file, DatasetError, content="a split", layout="as the dataset's authors publish it")
    return [line.strip(BLANKS) for line in lines(text) if line.strip(BLANKS)]


def _class_folder(path: Path, name: str) -> Path:
    """Find the folder of a class, in the dataset's folder or in the one that its archive unpacks to."""
    return next((path / top / name for top in _VIDEO_FOLDERS if (path / top / name).is_dir()), path / name)
