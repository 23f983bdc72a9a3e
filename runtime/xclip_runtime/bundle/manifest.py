"""The manifest of a bundle: read, and checked for all that is used of it."""

from __future__ import annotations

import json
import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import BundleCorruptError, BundleSchemaError
from xclip_runtime.hub import is_lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT = "xclip-onnx-bundle"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
COPY_AGAIN = "copy or export the bundle again"

ANY = "*"
"""Key of a shape that stands for every name."""
LARGEST = 1 << 16
"""Largest number of frames, pixels or components."""


def read_manifest(folder: Path, fix: str = COPY_AGAIN) -> Mapping[str, Any]:
    """Read the manifest of a bundle.

    Raises:
        BundleSchemaError: The folder is not a bundle, or has an unknown schema.
        BundleCorruptError: The manifest is damaged, which ``fix`` says how to mend.
    """
    path = folder / MANIFEST
    if not path.is_file():
        message = f"{folder} is not a bundle (no {MANIFEST}): give a folder that `xclip-onnx export` wrote"
        raise BundleSchemaError(message)
    if is_lfs_pointer(path):
        pull = "run `git lfs pull` in its folder" if fix == COPY_AGAIN else fix
        message = f"{path} is a Git LFS pointer, not the file itself: {pull}"
        raise BundleCorruptError(message)
    manifest = read_json(path, fix)
    if manifest.get("format") != FORMAT:
        message = f"{path} does not describe an xclip-onnx bundle: give a folder that `xclip-onnx export` wrote"
        raise BundleSchemaError(message)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        message = (
            f"{folder} has bundle schema {manifest.get('schema_version')}, this version reads {SCHEMA_VERSION}: "
            "install the matching xclip-onnx or export again"
        )
        raise BundleSchemaError(message)
    misfit = next(_misfits(manifest, _SHAPE), None)
    if misfit is not None:
        raise damaged(path, f"its {misfit[:200]!r} is missing or wrong", fix)
    for name in (*manifest["files"], *_graph_files(manifest)):
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            message = f"{path} names a file outside the bundle ({name}): do not use this bundle"
            raise BundleCorruptError(message)
        if name not in manifest["files"] or name in ("", ".") or str(parts) != name or not name.isprintable():
            raise damaged(path, f"it does not list the file {name[:200]!r}", fix)
    return manifest


def read_json(path: Path, fix: str = COPY_AGAIN) -> dict[str, Any]:
    """Read a JSON object of a bundle, or raise a BundleCorruptError."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, "not valid JSON", fix) from error
    if not isinstance(content, dict):
        raise damaged(path, "not a JSON object", fix)
    return content


def damaged(path: Path, cause: str, fix: str = COPY_AGAIN) -> BundleCorruptError:
    """Make the error of a file whose content is not what it should be."""
    return BundleCorruptError(f"{path} is damaged ({cause}): {fix}")


def _graph_files(manifest: Mapping[str, Any]) -> Iterator[str]:
    for graph in manifest["graphs"].values():
        yield graph["file"]
        yield from graph.get("data_files") or ()


def _misfits(value: object, shape: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the fields that are missing, or not as a shape has them."""
    if callable(shape):
        if not shape(value):
            yield name or MANIFEST
    elif not isinstance(value, dict):
        yield name or MANIFEST
    else:
        for key in value if ANY in shape else shape:
            yield from _misfits(value.get(key), shape.get(key, shape.get(ANY)), f"{name}.{key}".lstrip("."))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _are_texts_or_none(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_text, value)))


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _are_tensors_or_none(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_tensor, value)))


def _is_tensor(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and _is_text(value.get("dtype"))
        and isinstance(value.get("shape"), list)
        and all(_is_text(size) or _is_size(size) for size in value["shape"])
    )


_SHAPE: Mapping[str, Any] = {
    "source": {"checkpoint": _is_text, "revision": _is_text_or_none, "licence": _is_text_or_none},
    "tools": {ANY: _is_text},
    "model": {
        **dict.fromkeys(("num_frames", "image_size", "projection_dim"), _is_count),
        "logit_scale": _is_number,
    },
    "graphs": {
        ANY: {
            **dict.fromkeys(("file", "tower", "precision", "target"), _is_text),
            "data_files": _are_texts_or_none,
            **dict.fromkeys(("inputs", "outputs"), _are_tensors_or_none),
            "parity": dict.fromkeys(("max_abs_logit", "cosine", "top1_agreement"), _is_number),
        }
    },
    "golden_logits": _are_numbers,
    "files": {ANY: {"size": _is_size, "sha256": _is_text}},
}
"""Predicates, or fields with their own shapes."""
