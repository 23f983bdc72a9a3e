"""Copies of the embedded bundle, changed on purpose."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import sha256_of
from xclip_runtime.bundle.manifest import MANIFEST
from xclip_runtime.demo import DEMO_BUNDLE

if TYPE_CHECKING:
    from pathlib import Path


def copy_bundle(folder: Path) -> Path:
    """A writable copy of motion-demo."""
    shutil.copytree(DEMO_BUNDLE, folder)
    return folder


def edit_manifest(bundle: Path, **changes: Any) -> None:
    """Replace top-level fields of a manifest."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def reseal(bundle: Path) -> None:
    """Make the manifest agree with files that were changed on purpose."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in manifest["files"]:
        path = bundle / name
        manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def flip_byte(path: Path, offset: int = -1) -> None:
    """Change one byte in place."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
