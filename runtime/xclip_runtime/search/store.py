"""The database on disk: SQLite with the vector search of sqlite-vec. It knows nothing of models, videos or frames.

Every change is one transaction, synced before it counts as done. What a killed process left half done is rolled back by
SQLite when the index is opened next.

    meta      what made the index                       one row
    videos    path, size, mtime, how it was cut         a row a file
    windows   start, end, img_features                  a row a window; a whole file is one window
    embeds    video_embeds at unit length               sqlite-vec's table, same row ids as windows
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from xclip_runtime.errors import MissingExtraError, VideoIndexError, VideoIndexNotFoundError
from xclip_runtime.results import VideoFeatures
from xclip_runtime.search.identity import ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apsw import Connection
    from numpy.typing import NDArray
    from typing_extensions import Self

FeatureType = Literal["fp16", "fp32"]

DATABASE = "index.sqlite"
APPLICATION_ID = 0x58434C50
"""Marks the file as ours in its header: "XCLP"."""
SCHEMA_VERSION = 1
MOST_NEAREST = 4096
"""What sqlite-vec answers at most in one query."""
BUSY_MS = 60_000
"""How long to wait for another process that writes."""

_DTYPE_OF: dict[FeatureType, np.dtype[Any]] = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
_SCHEMA = """
CREATE TABLE meta (description TEXT NOT NULL);
CREATE TABLE videos (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    window REAL,
    hop REAL,
    complete INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    video INTEGER NOT NULL REFERENCES videos (id),
    start REAL NOT NULL,
    "end" REAL NOT NULL,
    img_features BLOB NOT NULL,
    UNIQUE (video, start)
);
CREATE VIRTUAL TABLE embeds USING vec0 (video_embeds FLOAT[{projection_dim}] distance_metric=cosine);
"""


@dataclass(frozen=True)
class Description:
    """What an index was made with; fixed for its life."""

    model: ModelIdentity
    features: FeatureType
    """How img_features are stored."""


@dataclass(frozen=True)
class Source:
    """A file as it was when it was read, and how it was cut."""

    path: str
    """Absolute."""
    size: int
    """In bytes."""
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970."""
    window: float | None
    """Seconds of a window; None for the whole file."""
    hop: float | None
    """Seconds from one window to the next; None for the whole file."""


@dataclass(frozen=True)
class Entry:
    """A file in the index."""

    source: Source
    complete: bool
    """Whether all its windows are in; False after a run that was killed."""
    windows: int
    seconds: float
    """End of its last window."""


@dataclass(frozen=True)
class Span:
    """Which part of which file a window shows."""

    path: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""


class Store:
    """An open index. Close it, or use it as a context manager.

    Args:
        folder: Where its files are.
        connection: To the database in it.
    """

    def __init__(self, folder: Path, connection: Connection) -> None:
        self.folder = folder
        self._connection = connection
        self.description = self._read_description()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open an index that is there; one on a read-only disk, too.

        Raises:
            VideoIndexNotFoundError: There is none.
            VideoIndexError: It is damaged, or of another version.
            MissingExtraError: The extra [index] is not installed.
        """
        path = Path(folder)
        if not exists(path):
            message = f"no index at {path}: make one with `xclip-onnx index add VIDEO... --index {path}`"
            raise VideoIndexNotFoundError(message)
        with _translated(path):
            return cls(path, _connect(path))

    @classmethod
    def create(cls, folder: str | os.PathLike[str], description: Description) -> Store:
        """Make an index, or open the one that another process has just made there.

        Raises:
            VideoIndexError: The folder holds something else.
            MissingExtraError: The extra [index] is not installed.
        """
        path = Path(folder)
        if not exists(path) and path.is_dir() and any(path.iterdir()):
            message = f"{path} holds other files and no index: name an empty folder, or one that is not there yet"
            raise VideoIndexError(message)
        with _translated(path):
            path.mkdir(parents=True, exist_ok=True)
            connection = _connect(path, create=True)
            # Both take effect only while the file is empty, and outside of a transaction.
            connection.pragma("auto_vacuum", "INCREMENTAL")
            connection.pragma("journal_mode", "WAL")
            with _transaction(connection):
                if connection.pragma("user_version") == 0:
                    connection.execute(_SCHEMA.format(projection_dim=description.model.projection_dim))
                    connection.execute("INSERT INTO meta VALUES (?)", (json.dumps(asdict(description)),))
                    connection.pragma("application_id", APPLICATION_ID)
                    connection.pragma("user_version", SCHEMA_VERSION)
            return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; to be called more than once if need be."""
        with _translated(self.folder):
            self._connection.close()

    def entry(self, path: str) -> Entry | None:
        """What the index knows of a file."""
        return next(self._entries("WHERE path = ?", (os.fsencode(path),)), None)

    def entries(self) -> Iterator[Entry]:
        """Every file, by its path."""
        return self._entries("", ())

    def starts(self, path: str) -> set[float]:
        """Where the windows of a file begin that are in the index already, seconds."""
        query = "SELECT start FROM windows JOIN videos ON videos.id = video WHERE path = ?"
        return {start for (start,) in self._rows(query, (os.fsencode(path),))}

    def put(
        self, source: Source, start: float, end: float, features: VideoFeatures, *, first: bool, last: bool
    ) -> None:
        """Add one window in one transaction.

        Args:
            source: The file that it is of.
            start: Seconds.
            end: Seconds.
            features: What the model sees in it.
            first: Whether it is the first of its file; what the index holds of that path goes in the same transaction.
            last: Whether the file is complete with it.
        """
        path = os.fsencode(source.path)
        with _translated(self.folder), _transaction(self._connection):
            if first:
                self._delete(path)
                self._connection.execute(
                    "INSERT INTO videos (path, size, mtime_ns, window, hop) VALUES (?, ?, ?, ?, ?)",
                    (path, source.size, source.mtime_ns, source.window, source.hop),
                )
            self._connection.execute(
                'INSERT INTO windows (video, start, "end", img_features) SELECT id, ?, ?, ? FROM videos WHERE path = ?',
                (start, end, self._stored(features.img_features), path),
            )
            self._connection.execute(
                "INSERT INTO embeds (rowid, video_embeds) VALUES (?, ?)",
                (self._connection.last_insert_rowid(), features.unit_embeds.astype("<f4").tobytes()),
            )
            if last:
                self._connection.execute("UPDATE videos SET complete = 1 WHERE path = ?", (path,))

    def complete(self, path: str) -> None:
        """Note that all windows of a file are in."""
        with _translated(self.folder), _transaction(self._connection):
            self._connection.execute("UPDATE videos SET complete = 1 WHERE path = ?", (os.fsencode(path),))

    def under(self, name: str | os.PathLike[str]) -> list[str]:
        """The file of that name, or all files below the folder of that name, whether still there or not."""
        path = os.fsencode(absolute(name))
        folder = path.rstrip(os.fsencode(os.sep)) + os.fsencode(os.sep)
        query = "SELECT path FROM videos WHERE path = ? OR substr(path, 1, ?) = ? ORDER BY path"
        return [os.fsdecode(found) for (found,) in self._rows(query, (path, len(folder), folder))]

    def delete(self, paths: Iterable[str]) -> int:
        """Delete files and all their windows, in one transaction; return how many of the files were there.

        Their space goes back to the file system when the index is closed, but for that of the embeddings, about a
        hundredth, which stays reserved.
        """
        with _translated(self.folder):
            with _transaction(self._connection):
                deleted = sum(self._delete(os.fsencode(path)) for path in paths)
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return deleted

    def nearest(self, unit_embed: NDArray[np.float32], count: int) -> list[int]:
        """The windows whose embeddings are nearest by cosine, nearest first. All are looked at, on the disk.

        Args:
            unit_embed: float32 (D,).
            count: How many; at most :data:`MOST_NEAREST`.
        """
        query = "SELECT rowid FROM embeds WHERE video_embeds MATCH ? AND k = ? ORDER BY distance"
        return [row for (row,) in self._rows(query, (unit_embed.astype("<f4").tobytes(), count))]

    def features(self, windows: Sequence[int] | None = None) -> Iterator[tuple[int, VideoFeatures]]:
        """Windows with their features, read as needed; ``video_embeds`` are of unit length.

        Args:
            windows: Their ids; None for all, by file and time.
        """
        query = (
            "SELECT windows.id, embeds.video_embeds, img_features FROM windows CROSS JOIN embeds "
            "ON embeds.rowid = windows.id "
        )
        if windows is None:
            yield from map(self._loaded, self._rows(f"{query} ORDER BY video, start", ()))
        for window in windows or ():
            yield from map(self._loaded, self._rows(f"{query} WHERE windows.id = ?", (window,)))

    def windows(self, path: str) -> list[int]:
        """The windows of a file, in the order of time."""
        query = "SELECT windows.id FROM windows JOIN videos ON videos.id = video WHERE path = ? ORDER BY start"
        return [window for (window,) in self._rows(query, (os.fsencode(path),))]

    def span(self, window: int) -> Span:
        """Which part of which file a window shows."""
        query = 'SELECT path, start, "end" FROM windows JOIN videos ON videos.id = video WHERE windows.id = ?'
        path, start, end = next(self._rows(query, (window,)))
        return Span(os.fsdecode(path), start, end)

    def __len__(self) -> int:
        """How many windows there are."""
        return int(next(self._rows("SELECT count(*) FROM windows", ()))[0])

    @property
    def bytes_on_disk(self) -> int:
        """Size of the database; with its journal, while it is open."""
        return sum(file.stat().st_size for file in self.folder.glob(f"{DATABASE}*"))

    def _entries(self, where: str, values: tuple[bytes, ...]) -> Iterator[Entry]:
        query = (
            'SELECT path, size, mtime_ns, window, hop, complete, count(windows.id), max("end") FROM videos '  # noqa: S608
            f"LEFT JOIN windows ON video = videos.id {where} GROUP BY videos.id ORDER BY path"
        )
        for path, size, mtime_ns, window, hop, complete, windows, seconds in self._rows(query, values):
            source = Source(os.fsdecode(path), size, mtime_ns, window, hop)
            yield Entry(source, bool(complete), windows, seconds or 0.0)

    def _rows(self, query: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        with _translated(self.folder):
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

    def _read_description(self) -> Description:
        """Refuse what is no index, or one of another version."""
        marks = self._connection.pragma("application_id"), self._connection.pragma("user_version")
        if marks == (0, 0):
            message = f"{self.folder} holds no videos yet: add some with `xclip-onnx index add`"
            raise VideoIndexNotFoundError(message)
        if marks[0] != APPLICATION_ID or marks[1] != SCHEMA_VERSION:
            message = (
                f"{self.folder / DATABASE} is no index of schema {SCHEMA_VERSION} (it says {marks[1]}): "
                "install the matching xclip-onnx, or make a new index"
            )
            raise VideoIndexError(message)
        content = json.loads(next(iter(self._connection.execute("SELECT description FROM meta")))[0])
        return Description(ModelIdentity(**content["model"]), content["features"])


def exists(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an index."""
    return (Path(folder) / DATABASE).is_file()


def absolute(name: str | os.PathLike[str]) -> str:
    """The path under which the index knows a file; symbolic links are kept."""
    return os.path.abspath(name)  # noqa: PTH100 - Path.absolute keeps "..", and resolve follows links


def check_features(features: str) -> None:
    """Refuse an unknown way to store features.

    Raises:
        ValueError: It is neither "fp16" nor "fp32".
    """
    if features not in get_args(FeatureType):
        message = f"features {features!r} are unknown: choose one of {', '.join(get_args(FeatureType))}"
        raise ValueError(message)


def _connect(folder: Path, *, create: bool = False) -> Connection:
    apsw, sqlite_vec = _libraries()
    file = folder.absolute() / DATABASE
    if create:
        name, flags = str(file), apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    elif os.access(file, os.W_OK) and os.access(folder, os.W_OK):
        name, flags = str(file), apsw.SQLITE_OPEN_READWRITE
    else:
        # A reader, too, makes files beside the database, unless it is told that nobody writes.
        name, flags = f"{file.as_uri()}?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection: Connection = apsw.Connection(name, flags=flags)
    connection.set_busy_timeout(BUSY_MS)
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    connection.pragma("synchronous", "FULL")
    connection.pragma("foreign_keys", True)
    return connection


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """All or nothing; the right to write is taken at once, so that two processes cannot wait for each other."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn the database's errors into ours."""
    apsw, _ = _libraries()
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        message = f"the index in {folder} is damaged ({error}): restore it from a copy, or delete it and add the videos"
        raise VideoIndexError(message) from error
    except apsw.Error as error:
        message = (
            f"the index in {folder} cannot be used ({error}): check its permissions, the disk, and who else uses it"
        )
        raise VideoIndexError(message) from error


def _libraries() -> tuple[Any, Any]:
    try:
        import apsw  # noqa: PLC0415 - optional
        import sqlite_vec  # noqa: PLC0415 - optional
    except ImportError as error:
        feature = "an index of videos"
        raise MissingExtraError(feature, "index") from error
    return apsw, sqlite_vec
