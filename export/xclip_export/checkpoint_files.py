"""Files of a checkpoint, in a folder or on a model hub, from which no more is downloaded than is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import sha256_of
from xclip_runtime.errors import CheckpointError, HubUnavailableError
from xclip_runtime.hub import DOWNLOADING, HubFile, Repository, is_lfs_pointer, parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONFIG = "config.json"
# In the order of preference: one file, or the index of several.
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class CheckpointFiles:
    """Files of a checkpoint, each of which is downloaded when it is asked for."""

    name: str
    """Folder as the user gave it, or name of the repository."""
    folder: Path
    listed: Mapping[str, HubFile]
    """Files that there are, by their names."""
    repository: Repository | None = None
    unavailable: HubUnavailableError | None = None
    """Error of a hub that did not list its files; those in the cache are listed instead."""

    @classmethod
    def find(cls, source: str, revision: str | None = None) -> CheckpointFiles:
        """Find a checkpoint by its config.json.

        Raises:
            CheckpointError: There is no such folder, or it has no config.json.
            HubError: The hub has no such repository or revision, or does not answer.
            MissingExtraError: huggingface_hub is not installed.
        """
        folder = Path(source)
        if folder.is_dir():
            if revision is not None:
                message = f"{source} is a folder, and --revision is for hub ids: leave it out"
                raise CheckpointError(message)
            return cls(source, folder, _listed(folder))
        named = None if folder.exists() else parse_name(source, revision)
        if named is None:
            message = f"no checkpoint folder at {source}: give a folder with {CONFIG}, or a hub id such as owner/name"
            raise CheckpointError(message)
        repository = Repository.open(*named, CONFIG, missing="give the repository of a Hugging Face X-CLIP checkpoint")
        try:
            return cls(repository.name, repository.folder, repository.files(), repository)
        except HubUnavailableError as error:
            return cls(repository.name, repository.folder, _listed(repository.folder), repository, error)

    @property
    def commit(self) -> str | None:
        """Commit of the repository; None for a folder."""
        return None if self.repository is None else self.repository.commit

    def get(self, name: str) -> Path | None:
        """Return the path of a file, or None if the checkpoint has none of that name.

        Raises:
            CheckpointError: The file is a Git LFS pointer.
            HubError: It cannot be downloaded.
        """
        if name not in self.listed:
            return None
        path = self.folder / name
        if self.repository is not None:
            path = self.repository.fetch(name, size=self.listed[name].size)
        if is_lfs_pointer(path):
            message = f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"
            raise CheckpointError(message)
        return path

    def weights(self, progress: Callable[[str], None]) -> list[Path]:
        """Return the weight files of one format: safetensors if there are any, else PyTorch's.

        Raises:
            CheckpointError: There are none, or the content of one is not what the hub names.
            HubError: One cannot be downloaded.
        """
        return [self._weights(name, progress) for name in self._weight_names()]

    def _weight_names(self) -> list[str]:
        found = next((name for name in WEIGHTS if name in self.listed), None)
        if found is None:
            if self.unavailable is not None:
                raise self.unavailable
            adapter = next((name for name in ADAPTERS if name in self.listed), None)
            message = f"{self.name} has no weights: it needs {WEIGHTS[0]} or {WEIGHTS[2]}"
            if adapter is not None:
                message = (
                    f"{self.name} holds a LoRA adapter ({adapter}), not a model: "
                    "merge it into its base with peft's merge_and_unload(), and save that"
                )
            raise CheckpointError(message)
        if not found.endswith(".json"):
            return [found]
        path = self.get(found)
        shards = set((read_json(path).get("weight_map") or {}).values()) if path else set()
        if not shards or not all(isinstance(name, str) and Path(name).name == name for name in shards):
            message = f"{path} is damaged (it names no weight files): download the checkpoint again"
            raise CheckpointError(message)
        if missing := sorted(shards - set(self.listed)):
            if self.unavailable is not None:
                raise self.unavailable
            message = f"{self.name} lacks {missing[0]}, which its {found} names: download the checkpoint again"
            raise CheckpointError(message)
        return sorted(shards)

    def _weights(self, name: str, progress: Callable[[str], None]) -> Path:
        listed, repository = self.listed[name], self.repository
        if repository is not None and not (self.folder / name).is_file():
            progress(f"{DOWNLOADING} {name}" + (f", {listed.size / 1e6:.0f} MB" if listed.size else ""))
        path = self.get(name)
        if path is None or repository is None or listed.sha256 is None or sha256_of(path) == listed.sha256:
            return self.folder / name
        path = repository.fetch(name, size=listed.size, again=True)
        if sha256_of(path) != listed.sha256:
            message = f"{name} of {self.name} has another SHA-256 than the hub names: ask its owner to upload it again"
            raise CheckpointError(message)
        return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint, or raise a CheckpointError."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, "not valid JSON") from error
    if not isinstance(content, dict):
        raise damaged(path, "not a JSON object")
    return content


def damaged(path: Path, cause: str) -> CheckpointError:
    """Make the error of a file whose content is not what it should be."""
    return CheckpointError(f"{path} is damaged ({cause}): download the checkpoint again")


def _listed(folder: Path) -> dict[str, HubFile]:
    return {path.name: HubFile(path.stat().st_size) for path in folder.iterdir() if path.is_file()}
