"""Crash-safe file of JSON Lines."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.output import json_text
from xclip_runtime.util.atomic import write_json
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class ResultsFile:
    """Appends one line per video, each on disk before the next is begun. The caller holds the lock of the output.

    Args:
        path: File to write.
        resume: Continue an interrupted run. A last line that was written in part is cut off.

    Attributes:
        finished: Number of lines per video.
        failed: Number of lines that are errors.

    Raises:
        click.UsageError: The file holds results and ``resume`` is False, or it holds something else.
        OSError: It cannot be written.
    """

    def __init__(self, path: str, *, resume: bool) -> None:
        if not resume and Path(path).exists() and Path(path).stat().st_size > 0:
            message = f"{path} holds results already: pass --resume to continue it, or remove it"
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

    def check_settings(self, settings: Mapping[str, Any], file: Path | None = None, *, free: str | None = None) -> None:
        """Refuse to continue with settings other than those of the interrupted run; write those of a new one.

        Args:
            settings: JSON values that the results depend on.
            file: File of the settings; None takes the path of the results with ".settings" appended.
            free: Setting that may change.

        Raises:
            click.UsageError: Settings differ.
        """
        file = file or self._path.with_name(f"{self._path.name}.settings")
        if self.finished and file.exists():
            try:
                before = dict(json.loads(file.read_bytes()))
            except (ValueError, TypeError):
                message = f"{file} cannot be read: remove it to continue without this check"
                raise click.UsageError(message) from None
            differing = [name for name, value in settings.items() if name != free and before.get(name) != value]
            if differing:
                message = (
                    f"{self._path} was written with other settings ({', '.join(sorted(differing))}): repeat those in "
                    f"{file}, or choose another --output"
                )
                raise click.UsageError(message)
        write_json(file, settings)

    def remaining(self, videos: Iterable[str]) -> Iterator[str]:
        """Yield the videos that have no line yet."""
        return remaining(videos, self.finished)

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield the content, line by line."""
        with self._path.open("rb") as file:
            yield from map(json.loads, file)

    def append(self, document: Mapping[str, Any]) -> None:
        """Write one result."""
        with naming(self._path), self._path.open("ab") as file:
            file.write(f"{json_text(document)}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _count(self, line: bytes, place: str) -> None:
        try:
            document = json.loads(line)
            self.finished[document["video"]] += 1
            self.failed += "error" in document
        except (ValueError, TypeError, KeyError):
            message = f"{place} is not a result of this command: choose another --output, or repair that line"
            raise click.UsageError(message) from None


def remaining(videos: Iterable[str], finished: Mapping[str, int]) -> Iterator[str]:
    """Yield the videos without a result; a video listed twice needs two."""
    left = Counter(finished)
    for video in videos:
        if left[video] > 0:
            left[video] -= 1
        else:
            yield video
