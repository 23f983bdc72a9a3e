"""A file of JSON Lines that outlives a crash."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class ResultsFile:
    """Appends one line a video, each safe on the disk before the next is begun.

    Args:
        path: Where to write.
        resume: Go on where an interrupted run ended. A last line that was half written is cut off.

    Attributes:
        finished: How many lines the file holds for each video.
        failed: How many of them are errors.

    Raises:
        click.UsageError: The file holds results and ``resume`` is False, or it holds something else.
    """

    def __init__(self, path: str, *, resume: bool) -> None:
        if not resume and Path(path).exists() and Path(path).stat().st_size > 0:
            message = f"{path} holds results already: pass --resume to go on with it, or remove it"
            raise click.UsageError(message)
        self.finished: Counter[str] = Counter()
        self.failed = 0
        self._path = Path(path)
        end = 0
        with self._path.open("a+b") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._count(line, f"line {number} of {path}")
                end += len(line)
            file.truncate(end)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than the file was begun with, as a file beside it says.

        Args:
            settings: What the results depend on, in terms of JSON.

        Raises:
            click.UsageError: Some are others.
        """
        beside = self._path.with_name(f"{self._path.name}.settings")
        if not self.finished or not beside.exists():
            write_json(beside, settings)
            return
        try:
            begun = dict(json.loads(beside.read_text()))
        except (ValueError, TypeError):
            message = f"{beside} cannot be read: remove it to go on all the same"
            raise click.UsageError(message) from None
        others = [name for name, value in settings.items() if begun.get(name) != value]
        if others:
            message = (
                f"{self._path} was begun with other settings ({', '.join(others)}): repeat those in {beside}, or name "
                "another file with --out"
            )
            raise click.UsageError(message)

    def remaining(self, videos: Iterable[str]) -> Iterator[str]:
        """The videos that have no line yet; one that is listed twice needs two."""
        finished = self.finished.copy()
        for video in videos:
            if finished[video] > 0:
                finished[video] -= 1
            else:
                yield video

    def documents(self) -> Iterator[dict[str, Any]]:
        """What the file holds."""
        with self._path.open("rb") as file:
            yield from map(json.loads, file)

    def append(self, document: Mapping[str, Any]) -> None:
        """Write one result."""
        with self._path.open("ab") as file:
            file.write(f"{json_line(document)}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _count(self, line: bytes, place: str) -> None:
        try:
            document = json.loads(line)
            self.finished[document["video"]] += 1
            self.failed += "error" in document
        except (ValueError, TypeError, KeyError):
            message = f"{place} is no result of this command: name another --out, or repair that line"
            raise click.UsageError(message) from None


def json_line(document: Mapping[str, Any]) -> str:
    """JSON without line breaks, readable where the text can be written as UTF-8; a file name may hold any bytes."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(document)
    return line
