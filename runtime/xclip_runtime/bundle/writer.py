"""Write a bundle atomically, with the manifest that makes it one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import sha256_of
from xclip_runtime.bundle.manifest import FORMAT, MANIFEST, SCHEMA_VERSION
from xclip_runtime.errors import BundleError
from xclip_runtime.util.atomic import replaced_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def bundle_folder(target: Path, *, source: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    Args:
        target: Folder of the bundle.
        source: Folder that it is made from; a folder that holds this one is never replaced.
        overwrite: Replace an existing bundle. Another folder is never replaced.

    Raises:
        BundleError: ``target`` exists and may not be replaced.
        OutputLockedError: Another process is writing it.
    """
    with replaced_folder(target) as folder:
        _check_target(target, source, overwrite=overwrite)
        yield folder


def _check_target(target: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse a target that must not be replaced.

    Raises:
        BundleError: ``target`` is a bundle and ``overwrite`` is False, holds ``source``, or is anything else but an
            empty folder.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        message = f"{target} exists and is not a bundle: choose another folder"
        raise BundleError(message)
    if target.resolve() in source.resolve().parents:
        message = f"{target} holds {source}, which would be lost: choose another folder"
        raise BundleError(message)
    if not overwrite:
        message = f"{target} exists: choose another folder, or pass --overwrite to replace it"
        raise BundleError(message)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` over all files in ``folder``, as the last step: it makes the folder a bundle."""
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    for name in files:
        _sync(folder / name)
    write_json(folder / MANIFEST, {"format": FORMAT, "schema_version": SCHEMA_VERSION, **facts, "files": files})


def _sync(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
