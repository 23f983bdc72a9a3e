"""Files of a checkpoint in the layouts that repositories on the hub have had since 2022."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Files = dict[str, bytes]

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
CARD = b"---\nlanguage: en\nlicense: mit\ntags:\n- vision\n---\n# X-CLIP\n"
UNWANTED = dict.fromkeys(
    (
        *("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "tf_model.h5", "flax_model.msgpack"),
        *("checkpoint-500/model.safetensors", "checkpoint-500/optimizer.bin", "model.fp16.safetensors", "events.out"),
    ),
    b"no exporter reads this",
)


def files_of(folder: Path) -> Files:
    """Files of a checkpoint's folder, with a model card."""
    return {"README.md": CARD, **{path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}}


def state_of(files: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
    """Tensors of model.safetensors."""
    return safetensors.torch.load(files[SAFETENSORS])


def edited(files: Mapping[str, bytes], name: str, **changes: Any) -> Files:
    """Files with fields of a JSON file replaced; None removes one."""
    content = {**json.loads(files[name]), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    return {**files, name: json.dumps(content).encode()}


def without(files: Mapping[str, bytes], *names: str) -> Files:
    return {name: data for name, data in files.items() if name not in names}


def pickled(state: object, *, legacy: bool = False) -> bytes:
    """Content of a .bin file, as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def with_state(files: Mapping[str, bytes], state: Mapping[str, torch.Tensor]) -> Files:
    """Files with other tensors in model.safetensors."""
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    return {**files, SAFETENSORS: safetensors.torch.save(contiguous, {"format": "pt"})}


def in_dtype(files: Mapping[str, bytes], dtype: torch.dtype) -> Files:
    return with_state(files, {name: tensor.to(dtype) for name, tensor in state_of(files).items()})


def of_2022(files: Mapping[str, bytes]) -> Files:
    """As Microsoft uploaded them: pickled weights with position ids, a long config, no tokenizer.json needed."""
    state = state_of(files)
    config = json.loads(files["config.json"])
    for part, rows in (("text", config["text_config"]["max_position_embeddings"]), ("vision", 197)):
        state[f"{part}_model.embeddings.position_ids"] = torch.arange(rows)[None]
        config[f"{part}_config_dict"] = None
        config[f"{part}_config"] |= {
            "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
            "_name_or_path": "",
            "torch_dtype": None,
        }
    config |= {"transformers_version": None, "torch_dtype": "float32", "model_type": "xclip"}
    config.pop("dtype", None)
    kept = without(files, SAFETENSORS)
    return {**kept, "config.json": json.dumps(config).encode(), PICKLED: pickled(state)}


def of_transformers_5(files: Mapping[str, bytes]) -> Files:
    """As transformers 5 saves them: one file for the processor, tokenizer.json alone."""
    processor = {
        "image_processor": {
            **json.loads(files["preprocessor_config.json"]),
            "image_processor_type": "VideoMAEImageProcessor",
        },
        "processor_class": "XCLIPProcessor",
    }
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "backend": "tokenizers",
        "extra_special_tokens": [],
        "is_local": True,
    }
    kept = without(files, "preprocessor_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
    return {
        **edited(kept, "config.json", transformers_version="5.2.0"),
        "processor_config.json": json.dumps(processor).encode(),
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
    }


def sharded(files: Mapping[str, bytes], *, of_pickles: bool = False) -> Files:
    """Weights in two files and an index."""
    state = state_of(files)
    stem, suffix = ("pytorch_model", "bin") if of_pickles else ("model", "safetensors")
    index: dict[str, str] = {}
    shards: Files = {}
    for number in (1, 2):
        name = f"{stem}-{number:05}-of-00002.{suffix}"
        part = {key: state[key].contiguous() for key in sorted(state)[number - 1 :: 2]}
        shards[name] = pickled(part) if of_pickles else safetensors.torch.save(part)
        index |= dict.fromkeys(part, name)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    return {**without(files, SAFETENSORS), **shards, f"{stem}.{suffix}.index.json": json.dumps(content).encode()}
