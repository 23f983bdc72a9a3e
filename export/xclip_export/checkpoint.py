"""Load a Hugging Face X-CLIP checkpoint, from a folder or from the hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
from transformers import CLIPTokenizerFast, XCLIPConfig, XCLIPModel

from xclip_export.checkpoint_files import CONFIG, CheckpointFiles, damaged, read_json
from xclip_export.state_dict import fit_state, read_state
from xclip_runtime.errors import CheckpointError, LabelsError
from xclip_runtime.util.plain_text import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MODEL_TYPE = "xclip"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR, PARTS = "processor_config.json", ("image_processor", "video_processor")
"""File in which transformers 5 keeps the content of PREPROCESSOR, and its names there."""
TOKENIZER, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
CARD = "README.md"

# Normalisation of every published X-CLIP checkpoint, for pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Description:
    """All of a checkpoint but its weights.

    Attributes:
        files: Its files.
        config: Configuration of the model.
        tokenizer: CLIP's tokenizer.
        preprocessor: Content of preprocessor_config.json.
        licence: Licence that the model card names; None if it names none.
    """

    files: CheckpointFiles
    config: XCLIPConfig
    tokenizer: CLIPTokenizerFast
    preprocessor: Mapping[str, Any]
    licence: str | None

    @property
    def name(self) -> str:
        """The folder as the user gave it, or the name of the hub's repository."""
        return self.files.name

    @property
    def revision(self) -> str | None:
        """Commit of the hub repository; None for a folder."""
        return self.files.commit

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        return self.files.folder

    @property
    def public_name(self) -> str:
        """Name for a bundle's manifest, without a path of this machine."""
        return self.folder.name if PurePath(self.name).is_absolute() else self.name

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
        id2label = read_json(self.folder / CONFIG).get("id2label") or {}
        return [id2label[i] for i in sorted(id2label, key=int)]

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


@dataclass(frozen=True)
class Checkpoint(Description):
    """Checkpoint in memory.

    Attributes:
        model: The model in torch fp32, in evaluation mode.
        sha256: Digest over its weight files, in the order of their names.
    """

    model: XCLIPModel
    sha256: str

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


def load_checkpoint(source: str, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint.

    Args:
        source: A folder with config.json, weights, tokenizer and preprocessor files, or a hub id such as
            "microsoft/xclip-base-patch16-hmdb-2-shot", also with "@revision" or as the address of its page.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        CheckpointError: The checkpoint cannot be found, is not X-CLIP, is incomplete, or is unsafe to load.
        HubError: The hub has no such repository, revision or file, or does not answer.
    """
    return load_weights(describe_checkpoint(source, revision))


def describe_checkpoint(source: str, revision: str | None = None) -> Description:
    """Load all of a checkpoint but its weights, which are not downloaded; arguments and errors as `load_checkpoint`."""
    files = CheckpointFiles.find(source, revision)
    return Description(
        files=files,
        config=_load_config(files),
        tokenizer=_load_tokenizer(files),
        preprocessor=_load_preprocessor(files),
        licence=_licence(files),
    )


def load_weights(description: Description, progress: Callable[[str], None] = lambda stage: None) -> Checkpoint:  # noqa: ARG005
    """Load the weights of a checkpoint; ``progress`` is called with each file that is downloaded.

    Raises:
        CheckpointError: Weights are missing, truncated, unsafe, or do not fit config.json.
        HubError: They cannot be downloaded.
    """
    paths = description.files.weights(progress)
    state = fit_state(read_state(paths), description.config, description.name)
    try:
        model = XCLIPModel.from_pretrained(None, config=description.config, state_dict=state, dtype=torch.float32)
    except Exception as error:  # transformers raises many unrelated classes
        message = f"cannot load the weights of {description.name} ({first_line(error)}): download the checkpoint again"
        raise CheckpointError(message) from error
    fields = {field.name: getattr(description, field.name) for field in dataclasses.fields(description)}
    return Checkpoint(**fields, model=model.eval(), sha256=_digest(paths))


def _load_config(files: CheckpointFiles) -> XCLIPConfig:
    path = files.get(CONFIG)
    if path is None:
        message = f"{files.name} has no {CONFIG}: give the folder of a Hugging Face X-CLIP checkpoint"
        raise CheckpointError(message)
    content = read_json(path)
    model_type = content.get("model_type")
    if model_type != MODEL_TYPE:
        message = f"{files.name} is of type {model_type!r}, not {MODEL_TYPE!r}: only X-CLIP can be exported"
        raise CheckpointError(message)
    try:
        return XCLIPConfig.from_dict(content)
    except Exception as error:  # transformers raises many unrelated classes
        raise damaged(path, first_line(error)) from error


def _load_tokenizer(files: CheckpointFiles) -> CLIPTokenizerFast:
    path = files.get(TOKENIZER)
    vocabulary, merges = (None, None) if path else (files.get(VOCABULARY), files.get(MERGES))
    if path is None and (vocabulary is None or merges is None):
        message = f"{files.name} has no tokenizer: it needs {TOKENIZER}, or {VOCABULARY} and {MERGES}"
        raise CheckpointError(message)
    if vocabulary is not None:
        read_json(vocabulary)
    try:
        if path is not None:
            # transformers would take its own tokenizer in place of a file that it cannot read.
            tokenizers.Tokenizer.from_file(str(path))
            return CLIPTokenizerFast(tokenizer_file=str(path))
        return CLIPTokenizerFast(vocab_file=str(vocabulary), merges_file=str(merges))
    except Exception as error:  # tokenizers raises bare exceptions
        kept = path or merges
        raise damaged(kept, "not a tokenizer") if kept else error from error


def _load_preprocessor(files: CheckpointFiles) -> Mapping[str, Any]:
    # Required, since transformers' defaults for this model type normalise wrongly.
    path = files.get(PREPROCESSOR) or files.get(PROCESSOR)
    if path is None:
        message = (
            f"{files.name} has no {PREPROCESSOR}, which holds the pixel normalisation: "
            "copy it from the checkpoint that this one was trained from"
        )
        raise CheckpointError(message)
    content = read_json(path)
    content = next((content[part] for part in PARTS if isinstance(content.get(part), dict)), content)
    for key in ("image_mean", "image_std"):
        values = content.get(key)
        if not (isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)):
            message = f"{path} has no {key} of three numbers: add it"
            raise CheckpointError(message)
    return content


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _licence(files: CheckpointFiles) -> str | None:
    card = files.get(CARD)
    if card is None:
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()[:50]
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("license:")), None)
