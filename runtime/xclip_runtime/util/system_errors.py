"""Errors of the operating system, in one line with the name that the user gave and what to do."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xclip_runtime.errors import XClipError
from xclip_runtime.util.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FREE_SPACE, _FORBIDDEN = "free space there, or choose another place", "change its permissions, or choose another place"
_FIXES = {
    **dict.fromkeys(FULL_DISK, _FREE_SPACE),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "check the path, and create its folder",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "give a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check its symbolic links",
    errno.EMFILE: "raise the number of open files with `ulimit -n`",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the network disk again",
}


def reason(error: OSError) -> str:
    """Return what the system says of an error, without number and file name."""
    return error.strerror or str(error) or type(error).__name__


def explain(error: OSError) -> str:
    """Describe an error of the system in one line, with the fix."""
    name = printable(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
    about = f"cannot read or write {name} ({reason(error)})" if name else reason(error)
    return f"{about}: {_FIXES.get(error.errno or 0, 'check the path and the disk')}"


@contextmanager
def naming(name: str | os.PathLike[str], *, instead_of: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Give errors of the system a name: those of files under ``instead_of``, a temporary name, and those without."""
    try:
        yield
    except OSError as error:
        inner = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        hidden = instead_of is not None and inner.startswith(os.fspath(instead_of))
        if isinstance(error, XClipError) or (inner and not hidden):
            raise
        shown = os.fspath(name) + inner[len(os.fspath(instead_of or "")) :]
        raise OSError(error.errno, reason(error), shown) from error
