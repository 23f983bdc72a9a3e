"""Locks of outputs, by which a second process that would write the same is refused."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.errors import OutputLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(output: str | os.PathLike[str] | None, *, inside: bool = False) -> Iterator[None]:
    """Hold the lock of an output while the block runs; the system frees it when the process dies, however it does.

    The lock is a hidden file that names the process: ``.NAME.lock`` beside the output, or ``.lock`` ``inside`` it if
    that is a folder. Without an output there is nothing to lock. Where no file can be created or locked, there is no
    lock: what fails then is the writing itself.

    Raises:
        OutputLockedError: Another process holds it, or this one.
    """
    if output is None:
        yield
        return
    target = Path(os.path.abspath(output))  # noqa: PTH100 - "." has no name, and links stay
    file = target / ".lock" if inside else target.with_name(f".{target.name}.lock")
    descriptor = _take(file, os.fspath(output))
    if descriptor is None:
        yield
        return
    try:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _take(file: Path, output: str) -> int | None:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # Its holder removed the file in between.
        except BlockingIOError:
            holder = os.read(descriptor, 300).decode(errors="replace") or "another process"
            os.close(descriptor)
            message = f"{output} is being written by {holder}: wait for it, or choose another place"
            raise OutputLockedError(message) from None
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
