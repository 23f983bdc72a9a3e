"""Folder of results, on a disk or in an object store, whose files appear whole."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from xclip_runtime.errors import BulkError

# Readers of Parquet datasets ignore names that begin with an underscore or a dot.
_UNFINISHED = "_unfinished-"
# An object appears when it is complete, and a rename would be a copy.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}


class ResultStore:
    """Folder of results, a path or an fsspec address; it is created."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = fsspec.core.url_to_fs(url)
        innermost = self._fs
        while isinstance(getattr(innermost, "fs", None), fsspec.AbstractFileSystem):
            innermost = innermost.fs
        if isinstance(innermost, MemoryFileSystem):
            message = f"{url} is the memory of one process, lost at its end: give a folder or an object store"
            raise BulkError(message)
        protocol = self._fs.protocol
        self._whole_puts = not _OBJECT_STORES.isdisjoint([protocol] if isinstance(protocol, str) else protocol)
        self._fs.makedirs(self._root, exist_ok=True)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; return False if there is.

        Where the file system has no such operation, two that call this at once may both succeed.
        """
        path = self._path(name)
        try:
            with self._fs.open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except (ValueError, NotImplementedError):
            if self._fs.exists(path):
                return False
            self.put(name, content)
        except OSError:  # Some stores word a condition that is not met in other ways.
            if not self._fs.exists(path):
                raise
            return False
        return True

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file."""
        if self._whole_puts:
            self._fs.pipe_file(self._path(name), content)
            return
        unfinished = self._path(f"{_UNFINISHED}{uuid4().hex}")
        try:
            self._fs.pipe_file(unfinished, content)
            self._fs.mv(unfinished, self._path(name))
        except BaseException:
            if self._fs.exists(unfinished):
                self._fs.rm_file(unfinished)
            raise

    def get(self, name: str) -> bytes:
        """Read a file."""
        content: bytes = self._fs.cat_file(self._path(name))
        return content

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def names(self, pattern: str) -> list[str]:
        """List the files that match a pattern."""
        self._fs.invalidate_cache()
        return [path.rpartition("/")[2] for path in self._fs.glob(self._path(pattern))]

    def age(self, name: str) -> float:
        """Return the seconds since a file was written, by the clock of the store."""
        now = f"{_UNFINISHED}{uuid4().hex}"
        self._fs.pipe_file(self._path(now), b"now")
        try:
            self._fs.invalidate_cache()
            times = [self._fs.modified(self._path(each)) for each in (now, name)]
        finally:
            self.remove(now)
        return float((times[0] - times[1]).total_seconds())

    def sweep(self) -> None:
        """Remove what processes that were killed left unfinished."""
        for name in self.names(f"{_UNFINISHED}*"):
            self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
