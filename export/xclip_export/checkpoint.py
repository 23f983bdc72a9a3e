"""Load a Hugging Face X-CLIP checkpoint, from a folder or from the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPTokenizerFast, XCLIPModel

from xclip_runtime.errors import CheckpointError, LabelsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import XCLIPConfig

MODEL_TYPE = "xclip"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
HUB_FILES = ("*.json", "*.safetensors", "*.bin", "merges.txt", "README.md")

# Normalisation of every published X-CLIP checkpoint, for pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Position ids are buffers that newer transformers no longer store.
OPTIONAL_KEYS = ("position_ids",)


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint in memory.

    Attributes:
        name: The folder or hub id as the user gave it.
        revision: Commit of the hub repository; None for a folder.
        folder: Folder of its files.
        model: The model in torch fp32, in evaluation mode.
        tokenizer: CLIP's tokenizer.
        preprocessor: Content of preprocessor_config.json.
        sha256: Digest over its weight files, in the order of their names.
        licence: Licence that the model card names; None if it names none.
    """

    name: str
    revision: str | None
    folder: Path
    model: XCLIPModel
    tokenizer: CLIPTokenizerFast
    preprocessor: Mapping[str, Any]
    sha256: str
    licence: str | None

    @property
    def public_name(self) -> str:
        """Name for a bundle's manifest, without a path of this machine."""
        path = Path(self.name)
        return path.name if path.is_absolute() else self.name

    @property
    def config(self) -> XCLIPConfig:
        """Configuration of the model."""
        return self.model.config

    @property
    def num_frames(self) -> int:
        """T, frames in a clip."""
        return int(self.config.vision_config.num_frames)

    @property
    def image_size(self) -> int:
        """Height and width of a frame in pixels."""
        return int(self.config.vision_config.image_size)

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel pixel mean, for pixels in [0, 1]."""
        return tuple(self.preprocessor["image_mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel pixel standard deviation."""
        return tuple(self.preprocessor["image_std"])

    @property
    def label_names(self) -> list[str]:
        """Labels of config.json in the order of their ids; empty if it has none."""
        id2label = _read_json(self.folder / CONFIG).get("id2label") or {}
        return [id2label[i] for i in sorted(id2label, key=int)]

    @property
    def text_tower_sha256(self) -> str:
        """Digest of the text weights and the vocabulary, which determine the embedding of a text.

        Checkpoints trained with a frozen text tower share it, whatever their vision tower.
        """
        digest = hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode())
        parts = {"text_model": self.model.text_model, "text_projection": self.model.text_projection}
        for part, module in parts.items():
            for name, weight in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name} {tuple(weight.shape)}".encode())
                digest.update(weight.numpy().tobytes())
        return digest.hexdigest()

    def tokenize(self, texts: Sequence[str], *, pad_to_context: bool = False) -> torch.Tensor:
        """Tokenize texts.

        Args:
            texts: N texts.
            pad_to_context: Pad to the model's context length rather than to the longest text.

        Returns:
            Token ids, int64 (N, L).

        Raises:
            LabelsError: A text is longer than the context.
        """
        limit = int(self.config.text_config.max_position_embeddings)
        ids: list[list[int]] = self.tokenizer(list(texts))["input_ids"]
        too_long = next((text for text, row in zip(texts, ids, strict=True) if len(row) > limit), None)
        if too_long is not None:
            message = f"the label {too_long[:60]!r}… has more than {limit} tokens: shorten it"
            raise LabelsError(message)
        length = limit if pad_to_context else max(map(len, ids))
        return torch.tensor([row + [row[-1]] * (length - len(row)) for row in ids])


def load_checkpoint(source: str, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint.

    Args:
        source: A folder with config.json, weights, tokenizer and preprocessor files, or a hub id such as
            "microsoft/xclip-base-patch16-hmdb-2-shot".
        revision: Branch, tag or commit of a hub repository.

    Raises:
        CheckpointError: The checkpoint cannot be found, is not X-CLIP, is incomplete, or is unsafe to load.
    """
    folder, commit = _locate(source, revision)
    _check_config(source, folder)
    return Checkpoint(
        name=source,
        revision=commit,
        folder=folder,
        model=_load_model(source, folder),
        tokenizer=_load_tokenizer(source, folder),
        preprocessor=_load_preprocessor(source, folder),
        sha256=_weights_digest(folder),
        licence=_licence(folder),
    )


def _locate(source: str, revision: str | None) -> tuple[Path, str | None]:
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            message = f"{source} is a folder, and --revision is for hub ids: leave it out"
            raise CheckpointError(message)
        return folder, None
    if folder.exists() or source.startswith((".", "/", "~")) or source.count("/") != 1:
        message = f"no checkpoint folder at {source}: give a folder with config.json, or a hub id such as owner/name"
        raise CheckpointError(message)
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a local checkpoint needs no hub client

    try:
        snapshot = Path(snapshot_download(source, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub client raises many unrelated classes
        message = (
            f"cannot download {source} from the hub ({_first_line(error)}): "
            "check name, revision and network, or give a local folder"
        )
        raise CheckpointError(message) from error
    return snapshot, snapshot.name


def _check_config(source: str, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        message = f"{source} has no {CONFIG}: give the folder of a Hugging Face X-CLIP checkpoint"
        raise CheckpointError(message)
    model_type = _read_json(folder / CONFIG).get("model_type")
    if model_type != MODEL_TYPE:
        message = f"{source} is a checkpoint of type {model_type!r}, not {MODEL_TYPE!r}: only X-CLIP can be exported"
        raise CheckpointError(message)


def _load_model(source: str, folder: Path) -> XCLIPModel:
    try:
        model, report = XCLIPModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers, safetensors and pickle each raise their own classes
        message = f"cannot load the weights of {source}: {_first_line(error)}"
        raise CheckpointError(message) from error
    missing = [k for k in report["missing_keys"] if not k.endswith(OPTIONAL_KEYS)]
    wrong = [*missing, *(str(k[0]) for k in report["mismatched_keys"])]
    if wrong:
        message = f"{source} lacks {len(wrong)} of the model's weights ({wrong[0]}, …): download the checkpoint again"
        raise CheckpointError(message)
    return model.eval()


def _load_tokenizer(source: str, folder: Path) -> CLIPTokenizerFast:
    try:
        return CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a missing file raises OSError, a broken one almost anything
        message = f"{source} has no usable tokenizer: it needs tokenizer.json, or vocab.json and merges.txt"
        raise CheckpointError(message) from error


def _load_preprocessor(source: str, folder: Path) -> Mapping[str, Any]:
    # Required, since transformers' defaults for this model type normalise wrongly.
    if not (folder / PREPROCESSOR).is_file():
        message = (
            f"{source} has no {PREPROCESSOR}, which holds the pixel normalisation: "
            "copy it from the checkpoint that this one was trained from"
        )
        raise CheckpointError(message)
    content = _read_json(folder / PREPROCESSOR)
    for key in ("image_mean", "image_std"):
        if not (isinstance(content.get(key), list) and len(content[key]) == 3):
            message = f"{PREPROCESSOR} of {source} has no {key} of three numbers: add it"
            raise CheckpointError(message)
    return content


def _weights_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _licence(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()[:50]
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("license:")), None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"{path} is not valid JSON: download the checkpoint again"
        raise CheckpointError(message) from error
    if not isinstance(content, dict):
        message = f"{path} does not hold a JSON object: download the checkpoint again"
        raise CheckpointError(message)
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
