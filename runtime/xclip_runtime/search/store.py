"""Contents of an index: features of windows in SQLite, with the vector search of sqlite-vec. Free of models and frames.

Every change is one transaction, synced before it counts as done. SQLite rolls back what a killed process left half done
when the index is next opened.

    meta      description of the index                  one row
    videos    path, size, mtime, window and hop         a row a file
    windows   start, end, img_features, encoding        a row a window; a whole file is one window
    embeds    video_embeds at unit length               sqlite-vec's table, same row ids as windows
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xclip_runtime.errors import VideoIndexError, VideoIndexMismatchError, VideoIndexNotFoundError
from xclip_runtime.results import Encoding, VideoFeatures
from xclip_runtime.search.database import (
    APPLICATION_ID,
    DATABASE,
    SCHEMA,
    SCHEMA_VERSION,
    add_encodings,
    connect,
    exists,
    has_encodings,
    transaction,
    translated_errors,
)
from xclip_runtime.search.identity import ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apsw import Connection
    from numpy.typing import NDArray
    from typing_extensions import Self

FeatureType = Literal["fp16", "fp32"]

MOST_NEAREST = 4096
"""Most rows that sqlite-vec returns for one query."""
_DTYPE_OF: dict[FeatureType, np.dtype[Any]] = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}


@dataclass(frozen=True)
class IndexDescription:
    """Facts that hold for every window of an index."""

    model: ModelIdentity
    features: FeatureType
    """Storage type of img_features."""
    reuse: bool = False
    """True if the windows of files were computed from cached frames."""


@dataclass(frozen=True)
class Source:
    """State of a file when it was read, and the windows it was cut into."""

    path: str
    """Absolute."""
    size: int
    """Size in bytes."""
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970."""
    window: float | None
    """Length of a window, seconds; None for the whole file."""
    hop: float | None
    """Seconds from one window to the next; None for the whole file."""


@dataclass(frozen=True)
class Entry:
    """File in the index."""

    source: Source
    complete: bool
    """True if all its windows are in the index; False after a run that was killed."""
    windows: int
    seconds: float
    """End of its last window."""
    exact_windows: int | None = None
    """Number of its windows that were computed exactly; None if the index is from before it stored that."""
    new_frames: float | None = None
    """Mean number of frames that were computed for a window; None as before."""
    drift: float | None = None
    """Largest drift of its windows, see `Encoding`; None if none was measured."""


@dataclass(frozen=True)
class WindowSpan:
    """File and time of a window."""

    path: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    encoding: Encoding | None = None
    """Origin of its features; None if the index is from before it stored that."""


class Store:
    """Open index. Close it, or use it as a context manager."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        self.folder = folder
        self._connection = connection
        self.description = self._read_description()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open an existing index, on a read-only disk too."""
        path = Path(folder)
        if not exists(path):
            message = f"no index at {path}: make one with `xclip-onnx index add VIDEO... --index {path}`"
            raise VideoIndexNotFoundError(message)
        with translated_errors(path):
            return cls(path, connect(path))

    @classmethod
    def create(cls, folder: str | os.PathLike[str], description: IndexDescription) -> Store:
        """Create an index, or open the one that another process has just created there."""
        path = Path(folder)
        if not exists(path) and path.is_dir() and any(path.iterdir()):
            message = f"{path} holds other files and no index: name an empty or a new folder"
            raise VideoIndexError(message)
        with translated_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            connection = connect(path, create=True)
            # Both take effect only while the file is empty, and outside of a transaction.
            connection.pragma("auto_vacuum", "INCREMENTAL")
            connection.pragma("journal_mode", "WAL")
            with transaction(connection):
                if connection.pragma("user_version") == 0:
                    connection.execute(SCHEMA.format(projection_dim=description.model.projection_dim))
                    connection.execute("INSERT INTO meta VALUES (?)", (json.dumps(asdict(description)),))
                    connection.pragma("application_id", APPLICATION_ID)
                    connection.pragma("user_version", SCHEMA_VERSION)
            return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; further calls do nothing."""
        with translated_errors(self.folder):
            self._connection.close()

    def expect(self, *, reuse: bool) -> None:
        """Refuse windows that cannot be compared with those here; an index without windows takes both kinds.

        Raises:
            VideoIndexMismatchError: Those here were computed exactly and these from cached frames, or the other way.
        """
        if reuse == self.description.reuse:
            return
        if len(self):
            held, fix = (
                ("from cached frames", "pass --reuse") if self.description.reuse else ("exactly", "pass --exact")
            )
            message = f"{self.folder} holds windows that were computed {held}: {fix}, or make a new index"
            raise VideoIndexMismatchError(message)
        self.description = replace(self.description, reuse=reuse)
        with translated_errors(self.folder), transaction(self._connection):
            self._connection.execute("UPDATE meta SET description = ?", (json.dumps(asdict(self.description)),))

    def entry(self, path: str) -> Entry | None:
        """Look a file up; None if it is not in the index."""
        return next(self._entries("WHERE path = ?", (os.fsencode(path),)), None)

    def entries(self) -> Iterator[Entry]:
        """List every file, by its path."""
        return self._entries("", ())

    def starts(self, path: str) -> set[float]:
        """Return the starts of the windows of a file that the index holds, seconds."""
        query = "SELECT start FROM windows JOIN videos ON videos.id = video WHERE path = ?"
        return {start for (start,) in self._rows(query, (os.fsencode(path),))}

    def put(
        self,
        source: Source,
        start: float,
        end: float,
        features: VideoFeatures,
        encoding: Encoding,
        *,
        first: bool,
        last: bool,
    ) -> None:
        """Add one window in one transaction, from ``start`` to ``end`` in seconds.

        The first window of a file replaces what the index holds of that path; with the last one, the file is complete.
        """
        path = os.fsencode(source.path)
        with translated_errors(self.folder), transaction(self._connection):
            if not has_encodings(self._connection):
                add_encodings(self._connection)
            if first:
                self._delete(path)
                self._connection.execute(
                    "INSERT INTO videos (path, size, mtime_ns, window, hop) VALUES (?, ?, ?, ?, ?)",
                    (path, source.size, source.mtime_ns, source.window, source.hop),
                )
            encoded = encoding.new_frames, encoding.frames, encoding.drift
            self._connection.execute(
                'INSERT INTO windows (video, start, "end", img_features, new_frames, frames, drift) '
                "SELECT id, ?, ?, ?, ?, ?, ? FROM videos WHERE path = ?",
                (start, end, self._stored(features.img_features), *encoded, path),
            )
            self._connection.execute(
                "INSERT INTO embeds (rowid, video_embeds) VALUES (?, ?)",
                (self._connection.last_insert_rowid(), features.unit_embeds.astype("<f4").tobytes()),
            )
            if last:
                self._connection.execute("UPDATE videos SET complete = 1 WHERE path = ?", (path,))

    def complete(self, path: str) -> None:
        """Mark a file as complete."""
        with translated_errors(self.folder), transaction(self._connection):
            self._connection.execute("UPDATE videos SET complete = 1 WHERE path = ?", (os.fsencode(path),))

    def under(self, name: str | os.PathLike[str]) -> list[str]:
        """List the file of that name, or all files below the folder of that name, on the disk or not."""
        path = os.fsencode(absolute(name))
        folder = path.rstrip(os.fsencode(os.sep)) + os.fsencode(os.sep)
        query = "SELECT path FROM videos WHERE path = ? OR substr(path, 1, ?) = ? ORDER BY path"
        return [os.fsdecode(found) for (found,) in self._rows(query, (path, len(folder), folder))]

    def delete(self, paths: Iterable[str]) -> int:
        """Delete files and all their windows, in one transaction; return the number of files deleted.

        Their space goes back to the file system when the index is closed, except for that of the embeddings, about a
        hundredth, which stays reserved.
        """
        with translated_errors(self.folder):
            with transaction(self._connection):
                deleted = sum(self._delete(os.fsencode(path)) for path in paths)
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return deleted

    def nearest(self, unit_embed: NDArray[np.float32], count: int) -> list[int]:
        """Return the ids of the windows nearest by cosine, nearest first, from an exact scan of all on the disk.

        ``unit_embed`` is float32 (D,) of unit length, ``count`` at most `MOST_NEAREST`.
        """
        query = "SELECT rowid FROM embeds WHERE video_embeds MATCH ? AND k = ? ORDER BY distance"
        return [row for (row,) in self._rows(query, (unit_embed.astype("<f4").tobytes(), count))]

    def features(self, windows: Sequence[int] | None = None) -> Iterator[tuple[int, VideoFeatures]]:
        """Read windows, or all by file and time, with their features; ``video_embeds`` are of unit length."""
        query = (
            "SELECT windows.id, embeds.video_embeds, img_features FROM windows CROSS JOIN embeds "
            "ON embeds.rowid = windows.id "
        )
        if windows is None:
            yield from map(self._loaded, self._rows(f"{query} ORDER BY video, start", ()))
        for window in windows or ():
            yield from map(self._loaded, self._rows(f"{query} WHERE windows.id = ?", (window,)))

    def windows(self, path: str) -> list[int]:
        """Return the ids of the windows of a file, in the order of time."""
        query = "SELECT windows.id FROM windows JOIN videos ON videos.id = video WHERE path = ? ORDER BY start"
        return [window for (window,) in self._rows(query, (os.fsencode(path),))]

    def span(self, window: int) -> WindowSpan:
        """Return file, time and encoding of a window."""
        encoded = "new_frames, frames, drift" if self._has_encodings else "NULL, NULL, NULL"
        query = (
            f'SELECT path, start, "end", {encoded} FROM windows '  # noqa: S608
            "JOIN videos ON videos.id = video WHERE windows.id = ?"
        )
        path, start, end, new, frames, drift = next(self._rows(query, (window,)))
        encoding = None if new is None else Encoding(new == frames, new, frames, drift)
        return WindowSpan(os.fsdecode(path), start, end, encoding)

    def __len__(self) -> int:
        """Return the number of windows."""
        return int(next(self._rows("SELECT count(*) FROM windows", ()))[0])

    @property
    def bytes_on_disk(self) -> int:
        """Size of the database, with its journal while it is open."""
        return sum(file.stat().st_size for file in self.folder.glob(f"{DATABASE}*"))

    @property
    def _has_encodings(self) -> bool:
        with translated_errors(self.folder):
            return has_encodings(self._connection)

    def _entries(self, where: str, values: tuple[bytes, ...]) -> Iterator[Entry]:
        encoded = "sum(new_frames = frames), avg(new_frames), max(drift)" if self._has_encodings else "NULL, NULL, NULL"
        query = (
            f'SELECT path, size, mtime_ns, window, hop, complete, count(windows.id), max("end"), {encoded} FROM videos '  # noqa: S608
            f"LEFT JOIN windows ON video = videos.id {where} GROUP BY videos.id ORDER BY path"
        )
        for path, size, mtime_ns, window, hop, complete, windows, seconds, *encodings in self._rows(query, values):
            source = Source(os.fsdecode(path), size, mtime_ns, window, hop)
            yield Entry(source, bool(complete), windows, seconds or 0.0, *encodings)

    def _rows(self, query: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        with translated_errors(self.folder):
            yield from self._connection.execute(query, values)

    def _delete(self, path: bytes) -> bool:
        windows = "SELECT windows.id FROM windows JOIN videos ON videos.id = video WHERE path = ?"
        rows = self._connection.execute(windows, (path,)).fetchall()
        self._connection.executemany("DELETE FROM embeds WHERE rowid = ?", rows)
        self._connection.executemany("DELETE FROM windows WHERE id = ?", rows)
        self._connection.execute("DELETE FROM videos WHERE path = ?", (path,))
        return self._connection.changes() > 0

    def _stored(self, img_features: NDArray[np.float32]) -> bytes:
        return img_features.astype(_DTYPE_OF[self.description.features]).tobytes()

    def _loaded(self, row: tuple[Any, ...]) -> tuple[int, VideoFeatures]:
        window, embeds, features = row
        dimension = self.description.model.projection_dim
        img_features = np.frombuffer(features, _DTYPE_OF[self.description.features]).reshape(-1, dimension)
        return window, VideoFeatures(np.frombuffer(embeds, "<f4"), img_features.astype(np.float32))

    def _read_description(self) -> IndexDescription:
        """Read the description, and refuse a file that is not an index of this version."""
        marks = self._connection.pragma("application_id"), self._connection.pragma("user_version")
        if marks == (0, 0):
            message = f"{self.folder} holds no videos yet: add some with `xclip-onnx index add`"
            raise VideoIndexNotFoundError(message)
        if marks[0] != APPLICATION_ID or marks[1] != SCHEMA_VERSION:
            message = (
                f"{self.folder / DATABASE} is not an index of schema {SCHEMA_VERSION} (found {marks[1]}): "
                "install the matching xclip-onnx, or make a new index"
            )
            raise VideoIndexError(message)
        content = json.loads(next(iter(self._connection.execute("SELECT description FROM meta")))[0])
        return IndexDescription(ModelIdentity(**content["model"]), content["features"], content.get("reuse", False))


def absolute(name: str | os.PathLike[str]) -> str:
    """Return the path by which the index knows a file; symbolic links are kept."""
    return os.path.abspath(name)  # noqa: PTH100 - Path.absolute keeps "..", and resolve follows links
