"""Seeded checkpoints on disk, with CLIP's real tokenizer."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from xclip_export.seeded import save_checkpoint, seeded_config, seeded_model

if TYPE_CHECKING:
    from typing import Any

MERGES_FILE = Path(__file__).parents[1] / "data/clip_bpe_merges.txt.gz"
CLIP_VOCABULARY = 49408


@cache
def clip_tokenizer(folder: Path) -> CLIPTokenizerFast:
    """OpenAI CLIP's tokenizer, built from its published merges in ``folder``."""
    symbols = list(bytes_to_unicode().values())
    count = CLIP_VOCABULARY - 2 * len(symbols) - 2
    merges = gzip.decompress(MERGES_FILE.read_bytes()).decode().split("\n")[1 : 1 + count]
    words = [*symbols, *(s + "</w>" for s in symbols), *(m.replace(" ", "") for m in merges)]
    tokens = [*words, "<|startoftext|>", "<|endoftext|>"]
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    merges_file.write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return CLIPTokenizerFast(str(vocab_file), str(merges_file), model_max_length=77)


def write_seeded_checkpoint(folder: Path, **shape: Any) -> Path:
    """A checkpoint of the given shape (see seeded_config) in a new folder."""
    folder.mkdir(parents=True)
    save_checkpoint(seeded_model(seeded_config(**shape)), clip_tokenizer(folder), folder)
    return folder
