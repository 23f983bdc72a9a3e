"""Replace files and folders atomically: a reader finds the old content or the new, whole in either case."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.util.locks import locked
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file; after an OSError, which names it, an existing one has its old content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path, instead_of=temporary):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    r"""Create or replace a file of readable JSON: UTF-8, indented, with a final newline.

    File names with bytes that are not UTF-8 (lone surrogates in Python) become escapes such as ``\udcff``.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode(errors="backslashreplace"))


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends without an error.

    After an error, or when the exchange fails, an existing target is as it was and nothing else is left. What a killed
    process left is removed, and a target that it had moved aside is put back.

    Raises:
        OutputLockedError: Another process is writing the target.
        OSError: The folder cannot be made or put in place; it names the target.
    """
    place = Path(os.path.abspath(target))  # noqa: PTH100 - "." has no name, and links stay
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.partial")
    # Two folders within, so that the old one is hidden, too, until the new one is in its place.
    new, old = temporary / "new", temporary / "old"
    with locked(target), naming(target, instead_of=temporary), naming(target, instead_of=new):
        _sweep(temporary, place)
        try:
            new.mkdir(parents=True)
            yield new
            try:
                if place.exists():
                    place.rename(old)
                new.rename(place)
            except BaseException:
                _put_back(old, place)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _sweep(temporary: Path, target: Path) -> None:
    _put_back(temporary / "old", target)
    if temporary.exists():
        shutil.rmtree(temporary)


def _put_back(old: Path, target: Path) -> None:
    if old.exists() and not target.exists():
        old.rename(target)
