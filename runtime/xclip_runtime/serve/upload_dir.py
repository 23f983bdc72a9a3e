"""The folder of uploads: emptied after every request, removed with the server, and swept after one that was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "xclip-onnx-serve-"


class Scratch:
    """A private folder in the system's temporary one, locked for as long as this process lives."""

    def __init__(self) -> None:
        self._sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _try_lock(self.path)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A new empty file, removed in the end whatever happens."""
        descriptor, name = tempfile.mkstemp(dir=self.path)
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - the name is a string already

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @staticmethod
    def _sweep() -> None:
        """Remove what servers left behind that could not clean up: their locks are gone, too."""
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            lock = _try_lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _try_lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder, or None where another process does or locks are unknown."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
