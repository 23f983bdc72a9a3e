"""SQLite file of an index: its schema, connections to it, transactions, and the errors of its libraries."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import MissingExtraError, VideoIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apsw import Connection

DATABASE = "index.sqlite"
APPLICATION_ID = 0x58434C50
"""Mark of an index in the file's header: "XCLP"."""
SCHEMA_VERSION = 1
BUSY_MS = 60_000
"""Time to wait for another process that writes."""

SCHEMA = """
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
    new_frames INTEGER,
    frames INTEGER,
    drift REAL,
    UNIQUE (video, start)
);
CREATE VIRTUAL TABLE embeds USING vec0 (video_embeds FLOAT[{projection_dim}] distance_metric=cosine);
"""


ENCODING = {"new_frames": "INTEGER", "frames": "INTEGER", "drift": "REAL"}
"""Columns of windows that indexes of before lack, until something is added to them."""


def exists(folder: str | os.PathLike[str]) -> bool:
    """Return True if a folder holds an index."""
    return (Path(folder) / DATABASE).is_file()


def connect(folder: Path, *, create: bool = False) -> Connection:
    """Open the database in a folder, read-only where the file or the folder cannot be written."""
    apsw, sqlite_vec = _libraries()
    file = folder.absolute() / DATABASE
    if create:
        name, flags = str(file), apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    elif os.access(file, os.W_OK) and os.access(folder, os.W_OK):
        name, flags = str(file), apsw.SQLITE_OPEN_READWRITE
    else:
        # Unless it is told that the file never changes, SQLite makes files beside it even to read.
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
def transaction(connection: Connection) -> Iterator[None]:
    """Commit the block as a whole, or roll it back on an error.

    The write lock is taken at the start, so that two processes cannot deadlock.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def has_encodings(connection: Connection) -> bool:
    """Tell if windows have the columns of `ENCODING`."""
    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('windows')")}
    return columns.issuperset(ENCODING)


def add_encodings(connection: Connection) -> None:
    """Add the columns of `ENCODING` to windows, in a transaction."""
    for name, kind in ENCODING.items():
        connection.execute(f"ALTER TABLE windows ADD COLUMN {name} {kind}")


@contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
    """Raise the database's errors as VideoIndexError."""
    apsw, _ = _libraries()
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        message = f"the index in {folder} is damaged ({error}): restore it from a copy, or delete it and add the videos"
        raise VideoIndexError(message) from error
    except apsw.Error as error:
        message = (
            f"the index in {folder} cannot be used ({error}): check its permissions, the disk, and other processes"
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
