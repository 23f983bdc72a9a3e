"""Captions of videos, from a CSV file with one caption a line."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.errors import CaptionsError
from xclip_runtime.util.addresses import located
from xclip_runtime.util.plain_text import BLANKS, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

VIDEO_COLUMNS = ("video", "file", "path")
CAPTION_COLUMNS = ("caption", "text")


@dataclass(frozen=True)
class Caption:
    """Text that describes a video."""

    video: str
    text: str


def read_captions(path: str | Path, folder: str | Path | None = None) -> list[Caption]:
    """Read captions from a CSV file in UTF-8 with the columns "video" and "caption"; other columns are ignored.

    A video may have several captions, and several videos the same one. The names of the videos are relative to
    ``folder``, by default that of the CSV file.
    """
    file = Path(path)
    table = read_text(file, CaptionsError, content="captions", layout="a header video,caption and one caption a line")
    rows = csv.DictReader(io.StringIO(table, newline=""))
    video, caption = (_column(file, rows.fieldnames or (), names) for names in (VIDEO_COLUMNS, CAPTION_COLUMNS))
    root = file.parent if folder is None else Path(folder)
    captions = []
    for row in rows:
        name, text = (row[video] or "").strip(BLANKS), (row[caption] or "").strip(BLANKS)
        if not name or not text:
            message = f"line {rows.line_num} of {file} lacks a video or a caption: fill it in, or remove the line"
            raise CaptionsError(message)
        captions.append(Caption(located(root, name), text))
    if not captions:
        message = f"{file} holds no captions: add lines of video,caption"
        raise CaptionsError(message)
    return captions


def _column(file: Path, header: Sequence[str], names: tuple[str, ...]) -> str:
    found = next((column for column in header if column.strip().lower() in names), None)
    if found is None:
        message = f"{file} has no column {names[0]!r} in its first line: write video,caption there"
        raise CaptionsError(message)
    return found
