"""Label sets with their text embeddings, encoded once for every model with the same text tower.

A saved set is two files, like the labels of a bundle: ``NAME.npy``, float32 (N, D), and ``NAME.json`` with the names,
the templates, and the digest of the text tower that the embeddings are valid for.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import LabelsError
from xclip_runtime.text.labels import PLACEHOLDER, as_texts, fill, label_set
from xclip_runtime.util.atomic import write_bytes, write_json
from xclip_runtime.util.system_errors import explain

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from xclip_runtime.text.encoder import TextEncoder

FORMAT = "xclip-onnx-labels"
SCHEMA_VERSION = 1
SUFFIXES = (".json", ".npy")


@dataclass(frozen=True, eq=False)
class EncodedLabels:
    """A label set with its text embeddings, usable without a text tower."""

    names: tuple[str, ...]
    """In the order of the model's logits."""

    templates: tuple[str, ...]
    """Templates that each name was encoded with; several are an ensemble."""

    text_embeds: NDArray[np.float32]
    """float32 (N, D), not normalised."""

    text_tower_sha256: str
    """Digest of the text tower, see `xclip_runtime.bundle.Bundle.text_tower_sha256`."""

    def check_fits(self, text_tower_sha256: str) -> None:
        """Raise a LabelsError for another text tower than the one that encoded this set."""
        if text_tower_sha256 != self.text_tower_sha256:
            message = (
                f"these labels were encoded by another text tower ({self.text_tower_sha256[:12]}…, the bundle has "
                f"{text_tower_sha256[:12]}…): encode them again with `xclip-onnx labels encode` and this bundle"
            )
            raise LabelsError(message)


def encode_labels(
    encoder: TextEncoder, names: Iterable[str], templates: str | Iterable[str] = PLACEHOLDER, *, truncate: bool = False
) -> EncodedLabels:
    """Encode labels with one template or an `ensemble` of several; duplicates are kept, and logged at WARNING.

    Raises:
        LabelsError: There is no label, one is empty or too long, or a template has no ``{}``.
        MissingExtraError: ``tokenizers`` is not installed (extra [text]).
        BundleError: The bundle's tokenizer or text graph is missing or changed.
    """
    templates = (templates,) if isinstance(templates, str) else as_texts(templates, "templates")
    if not templates:
        message = f"there is no template: give at least one, such as {PLACEHOLDER!r} for the bare label"
        raise LabelsError(message)
    names = label_set(names, templates[0]).names
    texts = [fill(template, names) for template in templates]
    embeds = ensemble(encoder.encode(of_template, truncate=truncate) for of_template in texts)
    return EncodedLabels(names, templates, embeds, encoder.sha256)


def ensemble(embeds: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Combine the embeddings of several templates to one per label.

    The direction is CLIP's: each embedding at unit length, their mean, at unit length again (zero-shot notebook of
    openai/CLIP). X-CLIP adds its video-specific prompt to the embedding before it takes the cosine, so the length
    counts: it is the mean of the lengths that went in. One template gives its embedding unchanged.

    Each template's embeddings, and the result, are float32 (N, D), not normalised.
    """
    count, direction, length = 0, np.float32(0), np.float32(0)
    for part in embeds:
        count, direction, length = count + 1, direction + part / _length(part), length + _length(part)
    if count == 1:
        return part
    result: NDArray[np.float32] = (direction / _length(direction) * (length / count)).astype(np.float32)
    return result


def save_labels(labels: EncodedLabels, path: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write ``NAME.json`` and ``NAME.npy``, each atomically, and return their paths in that order.

    Args:
        labels: The label set.
        path: NAME, with either suffix or none.
        overwrite: Replace existing files.

    Raises:
        LabelsError: One of the files exists and ``overwrite`` is off, or cannot be written.
    """
    description, embeds = _files(path)
    existing = next((file for file in (description, embeds) if file.exists()), None)
    if existing is not None and not overwrite:
        message = f"{existing} exists: choose another name, or pass --overwrite to replace it"
        raise LabelsError(message)
    content = io.BytesIO()
    np.save(content, labels.text_embeds)
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "text_tower_sha256": labels.text_tower_sha256,
        "text_embeds_sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "templates": labels.templates,
        "names": labels.names,
    }
    try:
        write_bytes(embeds, content.getvalue())
        write_json(description, document)
    except OSError as error:
        raise LabelsError(explain(error)) from error
    return description, embeds


def load_labels(path: str | os.PathLike[str]) -> EncodedLabels:
    """Read a label set that `save_labels` wrote.

    Args:
        path: Either file.

    Raises:
        LabelsError: A file is missing, changed, or not of a label set.
    """
    description, embeds_file = _files(path)
    document = _read_description(description)
    try:
        content = embeds_file.read_bytes()
    except OSError as error:
        message = f"cannot read {embeds_file}: {error.strerror or error}; it belongs to {description}"
        raise LabelsError(message) from error
    if hashlib.sha256(content).hexdigest() != document["text_embeds_sha256"]:
        message = f"{embeds_file} is not the file that {description} was written with: encode the labels again"
        raise LabelsError(message)
    try:
        embeds: NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy's parser raises many unrelated classes
        message = f"{embeds_file} is not a .npy file: encode the labels again"
        raise LabelsError(message) from error
    names, templates = tuple(document["names"]), tuple(document["templates"])
    if embeds.dtype != np.float32 or embeds.ndim != 2 or len(embeds) != len(names) or not names:
        message = f"{embeds_file} holds {embeds.dtype} {embeds.shape} for {len(names)} labels: encode the labels again"
        raise LabelsError(message)
    return EncodedLabels(names, templates, embeds, document["text_tower_sha256"])


def is_encoded(path: str | os.PathLike[str]) -> bool:
    """Return True for the suffixes of `save_labels`, and False for a list of names."""
    return Path(path).suffix.lower() in SUFFIXES


def _length(x: NDArray[np.float32]) -> NDArray[np.float32]:
    length: NDArray[np.float32] = np.linalg.norm(x, axis=1, keepdims=True)
    return length


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    file = Path(path)
    stem = file.with_suffix("") if is_encoded(file) else file
    return stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.npy")


def _read_description(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        message = f"cannot read labels from {path}: {error.strerror or error}"
        raise LabelsError(message) from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        message = f"{path} is not a label set: give a file of `xclip-onnx labels encode`, or a .txt of one label a line"
        raise LabelsError(message)
    texts = [document.get("text_tower_sha256"), document.get("text_embeds_sha256")]
    lists = [document.get("names"), document.get("templates")]
    strings = [*texts, *(item for part in lists if isinstance(part, list) for item in part)]
    if (
        document.get("schema_version") != SCHEMA_VERSION
        or not all(isinstance(part, list) for part in lists)
        or not all(isinstance(item, str) for item in strings)
    ):
        message = f"{path} is a label set that this version does not read: encode the labels again"
        raise LabelsError(message)
    return document
