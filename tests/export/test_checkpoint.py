"""X-CLIP checkpoints are loaded, and anything else is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from copy import deepcopy as copy_of_model
from dataclasses import replace

import pytest
import torch

from helpers.checkpoints import clip_tokenizer
from xclip_export.checkpoint import load_checkpoint
from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import CheckpointError, LabelsError
from xclip_runtime.text.labels import read_label_names

# Between start and end of text, from OpenAI's tokenizer.
HMDB_TOKENS = {
    "brush hair": [8594, 2225],
    "cartwheel": [27705, 6744],
    "dribble": [1203, 5924],
    "flic flac": [2472, 322, 1577, 322],
    "handstand": [1722, 2087],
    "pullup": [2469, 27413],
    "pushup": [16028, 705],
    "situp": [7387, 705],
    "somersault": [9656, 40361],
    "kick ball": [4289, 1069],
    "kick": [4289],
    "sword exercise": [11356, 7016],
    "sword": [11356],
    "playing sports": [1629, 2054],
    "eating spaghetti": [4371, 18440],
    "go shopping": [861, 4266],
}
START, END = 49406, 49407


@pytest.fixture
def copy(small_checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint, folder)
    return folder


def test_a_folder_loads_in_fp32_for_inference(small):
    assert small.num_frames == 8
    assert small.image_size == 224
    assert small.mean == (0.485, 0.456, 0.406)
    assert not small.model.training
    assert {p.dtype for p in small.model.parameters()} == {torch.float32}
    assert small.revision is None


@pytest.mark.parametrize(("text", "tokens"), HMDB_TOKENS.items())
def test_labels_become_clip_tokens(small, text, tokens):
    assert small.tokenize([text]).tolist() == [[START, *tokens, END]]


def test_the_51_hmdb_labels_come_in_the_checkpoints_order_with_at_most_six_tokens(small):
    names = read_label_names("hmdb51")
    tokens = [small.tokenize([name]).shape[1] for name in names]

    assert len(names) == len(set(names)) == 51
    assert names[20:22] == ["kick ball", "kick"]
    assert names[44:46] == ["sword exercise", "sword"]
    assert (max(tokens), sum(tokens)) == (6, 176)
    assert (tokens.count(3), tokens.count(4)) == (30, 20)


def test_labels_are_padded_to_the_longest_with_end_of_text(small):
    assert small.tokenize(["kick", "kick ball"]).tolist() == [[START, 4289, END, END], [START, 4289, 1069, END]]


def test_a_label_longer_than_the_context_is_refused(small):
    with pytest.raises(LabelsError, match="more than 77 tokens"):
        small.tokenize(["word " * 100])


def test_labels_come_from_id2label_in_the_order_of_their_ids(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "id2label": {"10": "c", "2": "b", "0": "a"}}))

    assert load_checkpoint(str(copy)).label_names == ["a", "b", "c"]


def test_a_checkpoint_of_another_model_is_refused_by_name(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))

    with pytest.raises(CheckpointError, match="of type 'clip', not 'xclip'"):
        load_checkpoint(str(copy))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_description_is_named(copy, name):
    (copy / name).unlink()

    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(str(copy))


def test_a_missing_tokenizer_is_named(copy):
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (copy / name).unlink()

    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load_checkpoint(str(copy))


def test_truncated_weights_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(CheckpointError, match="is truncated"):
        load_checkpoint(str(copy))


def test_missing_weights_are_refused(copy, small):
    state = {k: v for k, v in small.model.state_dict().items() if "mit." not in k}
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match="lacks"):
        load_checkpoint(str(copy))


def test_weights_in_a_bin_file_load_as_well(copy, small):
    (copy / "model.safetensors").unlink()
    torch.save(small.model.state_dict(), copy / "pytorch_model.bin")

    loaded = load_checkpoint(str(copy)).model

    assert torch.equal(loaded.visual_projection.weight, small.model.visual_projection.weight)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_code_hidden_in_pickled_weights_never_runs(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    with (copy / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"logit_scale": Bomb(tmp_path / "ran")}, file)

    with pytest.raises(CheckpointError):
        load_checkpoint(str(copy))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("source", ["./nothing", "/no/such/folder", "nothing"])
def test_a_path_without_a_checkpoint_is_refused(source):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load_checkpoint(source)


def test_a_revision_of_a_folder_is_refused(small_checkpoint):
    with pytest.raises(CheckpointError, match="--revision is for hub ids"):
        load_checkpoint(str(small_checkpoint), revision="main")


def test_the_digest_follows_the_weights(copy, small):
    assert load_checkpoint(str(copy)).sha256 == small.sha256
    clip_tokenizer(copy).save_pretrained(copy)
    assert load_checkpoint(str(copy)).sha256 == small.sha256


def test_the_licence_comes_from_the_model_card(copy):
    (copy / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# X-CLIP\n")

    assert load_checkpoint(str(copy)).licence == "mit"


def changed(checkpoint, parameter):
    """The same checkpoint with one number changed."""
    model = copy_of_model(checkpoint.model)
    with torch.no_grad():
        model.get_parameter(parameter).view(-1)[0] += 1
    return replace(checkpoint, model=model)


def test_the_digest_of_the_text_tower_follows_its_weights_and_vocabulary_and_nothing_else(demo, small):
    digest = demo.text_tower_sha256

    assert changed(demo, "vision_model.post_layernorm.weight").text_tower_sha256 == digest
    assert changed(demo, "prompts_generator.alpha").text_tower_sha256 == digest
    assert changed(demo, "text_projection.weight").text_tower_sha256 != digest
    assert changed(demo, "text_model.final_layer_norm.bias").text_tower_sha256 != digest
    assert replace(demo, tokenizer=small.tokenizer).text_tower_sha256 != digest


def test_the_embedded_bundle_names_the_text_tower_of_its_checkpoint(demo):
    assert Bundle.open(DEMO_BUNDLE).text_tower_sha256 == demo.text_tower_sha256
