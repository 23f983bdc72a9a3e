"""State dict of a checkpoint's weight files, with the names and shapes that its configuration asks for."""

from __future__ import annotations

import json
import math
import zipfile
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from transformers import XCLIPModel
from transformers.modeling_utils import no_init_weights

from xclip_runtime.errors import CheckpointError
from xclip_runtime.util.plain_text import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import XCLIPConfig

    State = dict[str, torch.Tensor]

# Position ids are buffers that newer transformers no longer store.
OPTIONAL_KEYS = ("position_ids",)
WRAPPERS = ("module.", "base_model.model.", "model.")
"""Prefixes that DistributedDataParallel, peft and trainers put before every key."""
COMPILED = "_orig_mod."
"""Part of the keys of a module that torch.compile wrapped."""
LORA = ("lora_", ".base_layer.")
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
AGAIN = "download the checkpoint again"


def read_state(paths: Sequence[Path]) -> State:
    """Read the tensors of weight files as fp32, by their names; no code in them runs.

    Raises:
        CheckpointError: A file is truncated, unsafe, or not a weight file.
    """
    state: State = {}
    for path in paths:
        state.update(_read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def fit_state(state: State, config: XCLIPConfig, source: str) -> State:
    """Return the tensors under the names of the model, once they fit it.

    Raises:
        CheckpointError: Weights are missing, have other shapes, or are LoRA's.
    """
    state = _unwrapped(state)
    adapted = next((name for name in state if any(part in name for part in LORA)), None)
    if adapted is not None:
        message = (
            f"{source} has LoRA weights ({adapted}): merge them with peft's merge_and_unload(), and save the model"
        )
        raise CheckpointError(message)
    with torch.device("meta"), no_init_weights():
        wanted = XCLIPModel(config).state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith(OPTIONAL_KEYS)]
    if missing:
        foreign = next((name for name in state if name not in wanted and not name.endswith(OPTIONAL_KEYS)), None)
        instead = f", and has others, such as {foreign}" if foreign else ""
        message = f"{source} lacks {len(missing)} of the model's weights, such as {missing[0]}{instead}: {AGAIN}"
        raise CheckpointError(message)
    changed = next((name for name in wanted if name in state and state[name].shape != wanted[name].shape), None)
    if changed is not None:
        message = f"{source}: {_changed(changed, tuple(state[changed].shape), tuple(wanted[changed].shape), config)}"
        raise CheckpointError(message)
    return {name: state[name] for name in wanted if name in state}


def _unwrapped(state: State) -> State:
    """Remove what torch.compile, DistributedDataParallel and others put into every name."""
    state = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    while prefix := next((p for p in WRAPPERS if state and all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _changed(name: str, has: tuple[int, ...], needs: tuple[int, ...], config: XCLIPConfig) -> str:
    """Describe a tensor of another shape, with the field of config.json that decides it."""
    vision = config.vision_config
    field, old = "", 0
    if name == "mit.position_embedding" and len(has) == 3:
        field, old = "num_frames", has[1]
    elif name.startswith("vision_model.embeddings.position_embedding") and has[1:] == needs[1:]:
        field, old = "image_size", math.isqrt(has[0] - 1) * int(vision.patch_size)
    if not field:
        return f"{name} is of shape {has}, and config.json needs {needs}: take the config.json of these weights"
    return (
        f"{name} is of shape {has}, and the {field} {getattr(vision, field)} of config.json needs {needs}: "
        f"set {field} to {old}, or train at the new {field}"
    )


def _read_safetensors(path: Path) -> State:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if size > 8 and start[8:] != b"{":
            raise _foreign(path, "a safetensors file", start)
        header = file.read(length - 1) if 8 + length <= size else b""
    try:
        entries: Mapping[str, Mapping[str, Sequence[int]]] = json.loads(start[8:] + header) if header else {}
        needed = 8 + length + max((e["data_offsets"][1] for k, e in entries.items() if k != "__metadata__"), default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        needed = size
    if size <= 8 or size < needed or not header:
        message = f"{path} is truncated ({size} of {max(needed, 8 + length)} bytes): {AGAIN}"
        raise CheckpointError(message)
    try:
        state: State = safetensors.torch.load_file(path)
    except Exception as error:  # safetensors raises its own class, and others
        message = f"{path} is damaged ({first_line(error)}): {AGAIN}"
        raise CheckpointError(message) from error
    return state


def _read_pickle(path: Path) -> State:
    with path.open("rb") as file:
        start = file.read(9)
    if start and not start.startswith((ZIP, PICKLE)):
        raise _foreign(path, "a file of PyTorch weights", start)
    if not start or (start.startswith(ZIP) and not zipfile.is_zipfile(path)):
        message = f"{path} is truncated ({path.stat().st_size} bytes): {AGAIN}"
        raise CheckpointError(message)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle each raise their own classes
        message = f"cannot load the weights in {path} ({first_line(error)}): {AGAIN}, or convert it to safetensors"
        raise CheckpointError(message) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        message = f"{path} is not a state dict (tensors by name): save model.state_dict(), or use save_pretrained"
        raise CheckpointError(message)
    return state


def _foreign(path: Path, kind: str, start: bytes) -> CheckpointError:
    return CheckpointError(f"{path} is not {kind} (it begins with {start!r}): {AGAIN}")
