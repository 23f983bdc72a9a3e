"""Temporary directory of uploads."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.errors import DiskFullError
from xclip_runtime.util.system_errors import FULL_DISK

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

PREFIX = "xclip-onnx-serve-"


class UploadDir:
    """A private temporary directory, locked while this process lives.

    Directories of servers that were killed are removed at construction: their locks are free.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _try_lock(self.path)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Create an empty file; delete it on exit.

        Raises:
            DiskFullError: The disk has no room, for the file or for what is written to it.
        """
        name: str | None = None
        try:
            descriptor, name = tempfile.mkstemp(dir=self.path)
            os.close(descriptor)
            yield Path(name)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            logger.error("no room for uploads", extra={"fields": {"folder": str(self.path)}})
            message = "the server has no room for the upload: send a smaller one, or try again later"
            raise DiskFullError(message) from error
        finally:
            if name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name)  # noqa: PTH108 - the name is a string already

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _try_lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _try_lock(folder: Path) -> int | None:
    """Lock a directory; return the descriptor that holds the lock, or None if it is taken or not supported."""
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
