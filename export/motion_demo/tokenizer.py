"""Tokenizer in CLIP's format, with the first merges of CLIP's vocabulary."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from transformers import CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

if TYPE_CHECKING:
    from pathlib import Path

MAX_LENGTH = 77


def read_merges() -> list[str]:
    """Return the merges, most frequent first, each as its two parts with a space between."""
    return files("motion_demo").joinpath("data/clip_merges.txt").read_text("utf-8").splitlines()


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Number the tokens as CLIP does: bytes, bytes that end a word, merges, start and end of text.

    The last id must be the end of text: the text tower pools at the highest id of a sequence.
    """
    symbols = list(bytes_to_unicode().values())
    tokens = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *(merge.replace(" ", "") for merge in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(folder: Path) -> CLIPTokenizerFast:
    """Write the tokenizer's files for transformers and for the tokenizers library, and return the tokenizer.

    Args:
        folder: An existing directory.
    """
    merges = read_merges()
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps(vocabulary(merges), ensure_ascii=False), "utf-8")
    merges_file.write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    tokenizer = CLIPTokenizerFast(str(vocab_file), str(merges_file), model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer
