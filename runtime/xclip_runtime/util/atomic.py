"""Replace files and folders atomically: a reader finds the old content or the new, whole in either case."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file.

    Raises:
        OSError: The file cannot be written; an existing one keeps its content.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Create or replace a file of UTF-8 text.

    Raises:
        OSError: As for `write_bytes`.
        UnicodeEncodeError: The text holds lone surrogates.
    """
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    r"""Create or replace a file of readable JSON: UTF-8, indented, with a final newline.

    File names with bytes that are not UTF-8 (lone surrogates in Python) become escapes such as ``\udcff``.

    Raises:
        OSError: As for `write_bytes`.
        TypeError: The content has no JSON form.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode(errors="backslashreplace"))


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends without an error.

    After an error, or when the exchange fails, an existing target is as it was and nothing else is left.

    Raises:
        OSError: The folder cannot be made or put in place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    # Two folders within, since mkdtemp's own is private to the user, and a bundle is not.
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
