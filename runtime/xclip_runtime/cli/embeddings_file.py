"""Crash-safe .npy files of embeddings."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from xclip_runtime.cli.output import json_text
from xclip_runtime.cli.results_file import remaining
from xclip_runtime.errors import XClipError
from xclip_runtime.util.atomic import write_bytes
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from xclip_runtime.results import VideoFeatures

FORMAT = "xclip-onnx-embeddings"
SCHEMA_VERSION = 1
SAVE_SECONDS = 5.0
"""Maximum work that a crash may cost."""
SAVE_SHARE = 0.05
"""Maximum share of the time for saving, whose cost grows with the list of names."""


class Rows:
    """Array in a .npy file that grows at its end.

    Args:
        path: The file.
        shape: Shape of a row.
        dtype: Data type of the file.
        rows: Rows of an existing file to keep; the rest is cut off.

    Raises:
        click.UsageError: An existing file holds fewer rows.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic], rows: int) -> None:
        self._path, self._shape, self._dtype, self._rows = path, shape, np.dtype(dtype), rows
        with naming(path):
            self._file = path.open("r+b" if rows else "w+b")
            self._write_header()
            end = self._file.tell() + rows * self._dtype.itemsize * int(np.prod(shape))
            if self._file.seek(0, os.SEEK_END) < end:
                self._file.close()
                message = f"{path} holds fewer than the {rows} rows that were written: remove it and start again"
                raise click.UsageError(message)
            self._file.truncate(end)
            self._file.seek(end)

    def append(self, row: NDArray[Any]) -> None:
        """Buffer a row."""
        with naming(self._path):
            self._file.write(row.astype(self._dtype).tobytes())
        self._rows += 1

    def save(self) -> None:
        """Write all rows to disk."""
        with naming(self._path):
            end = self._file.tell()
            self._write_header()
            self._file.seek(end)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_header(self) -> None:
        # Numpy pads the header for growth of the first axis, so that its length is constant.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, *self._shape)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)


class EmbeddingsFile:
    """``NAME.npy`` with a row per video, ``NAME.json`` with the names, and optionally ``NAME.features.npy``.

    Every few seconds the rows and then the names are written to disk, so that every name has its row. The caller holds
    the lock of the output.

    Args:
        path: NAME, with or without .npy.
        embeds: Shape of a row, (D,).
        features: Shape of a video's features, (P, D); None for none.
        facts: Facts about model and reading that must stay the same when a run continues.
        resume: Continue an interrupted run.

    Attributes:
        names: Videos of the rows.
        errors: Videos that failed, with their errors as JSON.

    Raises:
        click.UsageError: The files exist and ``resume`` is False, or they hold something else.
        OSError: They cannot be written.
    """

    def __init__(
        self,
        path: str,
        embeds: tuple[int, ...],
        features: tuple[int, ...] | None,
        facts: Mapping[str, Any],
        *,
        resume: bool,
    ) -> None:
        stem = path.removesuffix(".npy")
        self.embeds_path, self.names_path = Path(f"{stem}.npy"), Path(f"{stem}.json")
        self.features_path = Path(f"{stem}.features.npy") if features else None
        files = [file for file in (self.embeds_path, self.names_path, self.features_path) if file]
        existing = next((file for file in files if file.exists()), None)
        if existing and not resume:
            message = f"{existing} exists already: pass --resume to continue it, or remove it"
            raise click.UsageError(message)
        self._facts = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "embeds": self.embeds_path.name,
            "features": self.features_path.name if self.features_path else None,
            **facts,
        }
        self.names: list[str] = []
        self.errors: list[dict[str, Any]] = []
        if self.names_path.exists():
            self._continue()
        self._embeds = Rows(self.embeds_path, embeds, np.float32, len(self.names))
        self._features = (
            Rows(self.features_path, features, np.float16, len(self.names)) if self.features_path and features else None
        )
        self._save_at = 0.0
        self.save()

    def remaining(self, videos: Iterable[str]) -> Iterator[str]:
        """Yield the videos that have neither a row nor an error yet."""
        return remaining(videos, Counter([*self.names, *(error["video"] for error in self.errors)]))

    def append(self, video: str, result: VideoFeatures | XClipError) -> None:
        """Add a video's row, or its error."""
        if isinstance(result, XClipError):
            self.errors.append({"video": video, "error": result.to_dict()})
        else:
            self._embeds.append(result.unit_embeds)
            if self._features:
                self._features.append(result.img_features)
            self.names.append(video)
        if time.monotonic() >= self._save_at:
            self.save()

    def save(self) -> None:
        """Write everything to disk."""
        start = time.monotonic()
        self._embeds.save()
        if self._features:
            self._features.save()
        document = {**self._facts, "names": self.names, "errors": self.errors}
        write_bytes(self.names_path, f"{json_text(document)}\n".encode())
        end = time.monotonic()
        self._save_at = end + max(SAVE_SECONDS, (end - start) / SAVE_SHARE)

    def close(self) -> None:
        """Write everything to disk and close the files."""
        self.save()
        for rows in (self._embeds, self._features):
            if rows:
                rows.close()

    def _continue(self) -> None:
        try:
            document = json.loads(self.names_path.read_bytes())
            names, errors = list(document["names"]), list(document["errors"])
        except (ValueError, TypeError, KeyError):
            message = f"{self.names_path} was not written by `embed`: choose another --output"
            raise click.UsageError(message) from None
        differs = next((name for name, fact in self._facts.items() if document.get(name) != fact), None)
        if differs is not None:
            message = (
                f"{self.names_path} was written with another {differs} ({document.get(differs)}, now "
                f"{self._facts[differs]}): continue with the same options and bundle, or choose another --output"
            )
            raise click.UsageError(message)
        self.names, self.errors = names, errors
