"""Weight files that are cut off, foreign, wrapped or of another shape say so."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from helpers import hub_layouts as layouts
from xclip_export.checkpoint import load_checkpoint
from xclip_runtime.errors import CheckpointError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605247071\n"


@pytest.fixture
def copy(demo_checkpoint, tmp_path):
    """A copy of motion-demo's checkpoint."""
    return shutil.copytree(demo_checkpoint, tmp_path / "copy")


@pytest.fixture(scope="module")
def state(demo_checkpoint):
    return layouts.state_of(layouts.files_of(demo_checkpoint))


def refused(folder):
    """The message of the error that loading raises: one line with what to do."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    return message


def as_pickle(folder, content):
    (folder / layouts.SAFETENSORS).unlink()
    (folder / layouts.PICKLED).write_bytes(content)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000, -1])
def test_truncated_safetensors_are_called_truncated(copy, kept):
    path = copy / layouts.SAFETENSORS
    path.write_bytes(path.read_bytes()[:kept])

    assert f"{path} is truncated" in refused(copy)


@pytest.mark.parametrize(
    "content", [b"<!doctype html><html>", b"PK\x03\x04" + bytes(50), b"\x80\x02}q\x00." + bytes(9)]
)
def test_a_foreign_file_is_not_safetensors(copy, content):
    (copy / layouts.SAFETENSORS).write_bytes(content)

    assert "is not a safetensors file (it begins with" in refused(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_called_one(copy, name):
    if name == layouts.PICKLED:
        (copy / layouts.SAFETENSORS).unlink()
    (copy / name).write_bytes(POINTER)

    message = refused(copy)

    assert f"{name} is a Git LFS pointer" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0, 2000, -500])
def test_truncated_pickles_name_their_file(copy, state, kept, legacy):
    as_pickle(copy, layouts.pickled(state, legacy=legacy)[:kept])

    message = refused(copy)

    assert layouts.PICKLED in message
    assert "download the checkpoint again" in message


@pytest.mark.parametrize("content", [b"<!doctype html>", b"\0" * 100, b'{"a": 1}'])
def test_a_foreign_file_is_not_pytorchs(copy, content):
    as_pickle(copy, content)

    assert "is not a file of PyTorch weights" in refused(copy)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "model": {}}, {"a": "b"}])
def test_a_pickle_of_something_else_is_not_a_state_dict(copy, content):
    as_pickle(copy, layouts.pickled(content))

    assert "is not a state dict" in refused(copy)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: name.replace("vision_model.", "vision_model._orig_mod.", 1),
    ],
)
def test_names_of_wrapped_models_are_unwrapped(copy, state, demo, wrap):
    save_file({wrap(name): tensor for name, tensor in state.items()}, copy / layouts.SAFETENSORS)

    loaded = load_checkpoint(str(copy)).model.state_dict()

    assert all(torch.equal(tensor, loaded[name]) for name, tensor in demo.model.state_dict().items())


def test_a_prefix_of_some_names_is_named(copy, state):
    odd = {f"module.{name}" if "mit." in name else name: tensor for name, tensor in state.items()}
    save_file(odd, copy / layouts.SAFETENSORS)

    message = refused(copy)

    assert "such as mit." in message
    assert "and has others, such as module.mit." in message


def test_lora_weights_are_named_with_how_to_merge_them(copy, state):
    lora = {"base_model.model.text_projection.lora_A.default.weight": torch.zeros(4, 4)}
    save_file({**{f"base_model.model.{k}": v for k, v in state.items()}, **lora}, copy / layouts.SAFETENSORS)

    message = refused(copy)

    assert "text_projection.lora_A.default.weight" in message
    assert "merge_and_unload()" in message


@pytest.mark.parametrize(
    ("field", "value", "tensor", "was"),
    [
        ("num_frames", 8, "mit.position_embedding", "set num_frames to 32"),
        ("image_size", 336, "vision_model.embeddings.position_embedding.weight", "set image_size to 224"),
        ("intermediate_size", 96, "fc1.weight", "take the config.json of these weights"),
    ],
)
def test_a_changed_field_of_the_config_names_tensor_and_sizes(copy, field, value, tensor, was):
    config = layouts.files_of(copy)
    vision = {**json.loads(config["config.json"])["vision_config"], field: value}
    (copy / "config.json").write_bytes(layouts.edited(config, "config.json", vision_config=vision)["config.json"])

    message = refused(copy)

    assert f"{tensor} is of shape (" in message
    assert was in message
