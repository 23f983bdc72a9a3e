"""Bundle: the folder that an export writes and a model loads.

``manifest.json``, written last, lists every other file with its size and SHA-256; a folder without a manifest is not a
bundle. A bundle on a model hub has the same files, each of which is downloaded when it is first used. This module does
not depend on ONNX Runtime or video.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from xclip_runtime.bundle.manifest import COPY_AGAIN, MANIFEST, damaged, read_json, read_manifest
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    PrecisionUnavailableError,
)
from xclip_runtime.hub import Repository, is_lfs_pointer, parse_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

TOKENIZER = "tokenizer.json"
"""File that belongs to the text tower."""

Tower = Literal["vision", "prompt", "text", "stream", "head"]
"""Part of the model that a graph computes; "stream" and "head" are the vision tower for streams."""
Precision = Literal["fp32", "fp16", "int8"]
Profile = Literal["videox", "hf"]
"""Preprocessing of frames; see `xclip_runtime.FrameTransform`."""
Target = Literal["any", "cpu", "cuda"]
"""Target of a graph: any runtime (standard operators only), or the kernels of one execution provider."""


@dataclass(frozen=True)
class FileEntry:
    """File of a bundle."""

    path: str
    """Path relative to the bundle, with forward slashes."""

    size: int
    """Size in bytes."""

    sha256: str
    """Hexadecimal digest of the content."""


@dataclass(frozen=True)
class GraphEntry:
    """ONNX graph of a bundle."""

    name: str
    """File name without suffix, for example "vision_model_int8"."""

    file: str
    """Path of the .onnx file, relative to the bundle."""

    tower: Tower
    precision: Precision
    target: Target
    parity: Mapping[str, Any]
    """Errors relative to the checkpoint in torch fp32; see ``xclip_export.parity``."""

    data_files: tuple[str, ...]
    """Weight files of the graph, relative to the bundle."""


@dataclass(frozen=True)
class LabelSet:
    """Labels that a bundle was exported with, in the order of its embeddings."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    """Texts that were encoded, one for each name."""


@dataclass(frozen=True)
class Bundle:
    """Bundle with its manifest read; files are checked when they are used."""

    path: Path
    """The folder; for a bundle on a model hub, that of its commit in the cache."""

    manifest: Mapping[str, Any]
    """The parsed ``manifest.json``."""

    repository: Repository | None = None
    """Source of files that the folder lacks; None for a bundle that is not on a hub."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check_sizes: bool = True) -> Bundle:
        """Read the manifest, and check the size of every file.

        The SHA-256 of a file is checked when the file is used. The name "motion-demo" stands for the embedded bundle,
        unless there is a bundle of that name in the working directory. Where there is no folder "owner/name", it is a
        repository on a model hub, of which only the files that are used are downloaded (extra [hub]).

        Args:
            path: A folder, "owner/name" or "owner/name@revision" on a model hub, or the address of its page.
            check_sizes: Check the sizes of a folder's files.

        Raises:
            BundleNotFoundError: ``path`` is neither a folder nor the name of a repository, or no path at all.
            BundleSchemaError: The folder is not a bundle, or has an unknown schema.
            BundleCorruptError: A file is missing or has another size.
            HubError: The hub has no such repository, revision or file, or does not answer.
            MissingExtraError: huggingface_hub is not installed.
        """
        try:
            folder = Path(path)
        except TypeError:
            kind = type(path).__name__
            message = f"{kind} is not a bundle: give the folder that `xclip-onnx export` wrote, or motion-demo"
            raise BundleNotFoundError(message) from None
        if folder == Path(DEMO_BUNDLE.name) and not (folder / MANIFEST).is_file():
            folder = DEMO_BUNDLE
        name = parse_name(path) if isinstance(path, str) and not folder.exists() else None
        if name is not None:
            missing = f"give the repository of a bundle, or export the checkpoint: xclip-onnx export {name[0]}"
            repository = Repository.open(*name, MANIFEST, missing=missing)
            return cls(repository.folder, read_manifest(repository.folder, _push_again(repository)), repository)
        if not folder.is_dir():
            message = (
                f"no bundle at {folder}: give the folder that `xclip-onnx export` wrote, motion-demo, "
                "or owner/name on a model hub"
            )
            raise BundleNotFoundError(message)
        bundle = cls(folder, read_manifest(folder))
        for entry in bundle.files if check_sizes else ():
            bundle._check_size(entry)
        return bundle

    @cached_property
    def files(self) -> tuple[FileEntry, ...]:
        """Files of the manifest."""
        return tuple(FileEntry(name, f["size"], f["sha256"]) for name, f in self.manifest["files"].items())

    @cached_property
    def graphs(self) -> tuple[GraphEntry, ...]:
        """ONNX graphs of the bundle."""
        return tuple(
            GraphEntry(
                name, g["file"], g["tower"], g["precision"], g["target"], g["parity"], tuple(g.get("data_files") or ())
            )
            for name, g in self.manifest["graphs"].items()
        )

    @property
    def text_tower_sha256(self) -> str:
        """Digest of the text weights and the vocabulary, which determine the embedding of a text.

        Raises:
            BundleSchemaError: The manifest lacks it.
        """
        digest = self.manifest.get("text_tower_sha256")
        if not isinstance(digest, str):
            message = f"{self.path} lacks the digest of its text tower: export the bundle again"
            raise BundleSchemaError(message)
        return digest

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of the whole bundle: the manifest holds the digest of every other file."""
        return sha256_of(self.path / MANIFEST)

    @property
    def checkpoint_name(self) -> str:
        """Name of the checkpoint: its hub id, or the name of its folder."""
        if self.path.resolve() == DEMO_BUNDLE.resolve():
            return DEMO_BUNDLE.name
        checkpoint = str(self.manifest["source"]["checkpoint"])
        folders = [part for part in checkpoint.split("/") if part not in ("", ".", "..")]
        if len(folders) == 2 and checkpoint == "/".join(folders):
            return checkpoint
        # Trainers write "checkpoint-500" into the folder that bears the name.
        named = [part for part in folders if not part.startswith("checkpoint")]
        return (named or folders or [checkpoint])[-1]

    @property
    def num_frames(self) -> int:
        """T, the number of frames in a clip."""
        return int(self.manifest["model"]["num_frames"])

    @property
    def image_size(self) -> int:
        """Height and width of a prepared frame, in pixels."""
        return int(self.manifest["model"]["image_size"])

    @property
    def projection_dim(self) -> int:
        """D, the length of a video's or text's embedding."""
        return int(self.manifest["model"]["projection_dim"])

    @property
    def logit_scale(self) -> float:
        """Factor between a cosine and its logit."""
        return float(self.manifest["model"]["logit_scale"])

    @cached_property
    def preprocessor(self) -> Mapping[str, Any]:
        """Content of ``preprocessor_config.json``.

        Raises:
            BundleCorruptError: The file is missing, changed or damaged.
        """
        path = self.checked("preprocessor_config.json")
        content = read_json(path)
        if content.get("profile") not in get_args(Profile):
            raise damaged(path, f"its profile is {content.get('profile')!r}")
        return content

    @cached_property
    def labels(self) -> LabelSet:
        """Label set of ``labels.json``.

        Raises:
            BundleCorruptError: The file is missing, changed or damaged.
        """
        path = self.checked("labels.json")
        content = read_json(path)
        lists = [content.get(name) for name in ("names", "texts")]
        if not all(isinstance(texts, list) and all(isinstance(t, str) for t in texts) for texts in lists):
            raise damaged(path, "it lacks names or texts")
        return LabelSet(*map(tuple, lists))  # type: ignore[arg-type]

    @cached_property
    def text_embeds(self) -> NDArray[np.float32]:
        """Label embeddings, float32 (N, D), in label order and not normalised."""
        import numpy as np  # noqa: PLC0415 - reading a manifest must not cost numpy's import

        path = self.checked("text_embeds.npy")
        try:
            # Mapped: the header may name a shape that the file, and memory, do not hold.
            embeds: NDArray[np.float32] = np.array(np.lib.format.open_memmap(path, mode="r"))
        except (ValueError, EOFError, OSError, OverflowError) as error:
            raise damaged(path, "not an array of NumPy") from error
        expected = (len(self.labels.names), self.projection_dim)
        if embeds.shape != expected or embeds.dtype != np.float32:
            message = (
                f"text_embeds.npy in {self.path} holds {embeds.dtype} {embeds.shape}, "
                f"its labels need float32 {expected}: export the bundle again"
            )
            raise BundleCorruptError(message)
        return embeds

    def graphs_of(self, tower: Tower) -> tuple[GraphEntry, ...]:
        """List the graphs of a tower, in the manifest's order."""
        return tuple(g for g in self.graphs if g.tower == tower)

    def graph(self, tower: Tower, precision: Precision, prefer: Target = "any") -> GraphEntry:
        """Find the graph of a tower in a precision, preferably the one written for ``prefer``.

        Raises:
            PrecisionUnavailableError: The bundle has no such graph.
        """
        usable = [g for g in self.graphs_of(tower) if g.precision == precision and g.target in (prefer, "any")]
        if not usable:
            own = (prefer, "any")
            found = {g.precision + ("" if g.target in own else f" for {g.target}") for g in self.graphs_of(tower)}
            held = ", ".join(sorted(found)) or "none"
            message = (
                f"{self.path} holds no {precision} {tower} graph for this device (it holds: {held}): "
                f"choose one of those, or export again for it with --precision {precision}"
            )
            raise PrecisionUnavailableError(message)
        return max(usable, key=lambda g: g.target == prefer)

    @property
    def text_graph(self) -> GraphEntry:
        """The graph of the text tower.

        Raises:
            BundleError: The bundle has none.
        """
        found = self.graphs_of("text")
        if not found:
            message = (
                f"{self.path} has no text tower, which labels and texts of your own need: take a bundle that was "
                "packed without --no-text, or a set of `xclip-onnx labels encode`"
            )
            raise BundleError(message)
        return found[0]

    def checked(self, name: str) -> Path:
        """Check size and SHA-256 of a file, and return its path.

        Raises:
            BundleCorruptError: The file is not in the manifest, missing, or changed.
        """
        entry = next((f for f in self.files if f.path == name), None)
        if entry is None:
            message = f"{self.path} does not list {name} in its manifest: export the bundle again"
            raise BundleCorruptError(message)
        path = self._check_size(entry)
        if sha256_of(path) == entry.sha256:
            return path
        if self.repository is not None and sha256_of(self.repository.fetch(name, again=True)) == entry.sha256:
            return path
        message = f"{path} has changed since the export (SHA-256 differs): {self._fix}"
        raise BundleCorruptError(message)

    def checked_graph(self, graph: GraphEntry) -> Path:
        """Check a graph's .onnx file and weight files, and return the path of the .onnx file.

        Raises:
            BundleCorruptError: A file is missing or changed.
        """
        for name in graph.data_files:
            self.checked(name)
        return self.checked(graph.file)

    def problems(self) -> Iterator[tuple[FileEntry, str | None]]:
        """Check every file; yield each with its problem, or None."""
        for entry in self.files:
            problem = None
            try:
                self.checked(entry.path)
            except BundleCorruptError as error:
                problem = str(error)
            yield entry, problem

    @property
    def _fix(self) -> str:
        return COPY_AGAIN if self.repository is None else _push_again(self.repository)

    def _check_size(self, entry: FileEntry) -> Path:
        path = self.path / entry.path
        if self.repository is not None:
            other = path.is_file() and path.stat().st_size != entry.size
            self.repository.fetch(entry.path, size=entry.size, again=other)
        if not path.is_file():
            message = f"{path} is missing: copy or export the bundle again"
            raise BundleCorruptError(message)
        if (size := path.stat().st_size) != entry.size:
            message = f"{path} has {size} bytes, its manifest says {entry.size}: {self._fix}"
            if is_lfs_pointer(path):
                message = f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"
            raise BundleCorruptError(message)
        return path


def _push_again(repository: Repository) -> str:
    return f"ask the owner of {repository.name} to push it again"


def sha256_of(path: Path) -> str:
    """Compute the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
