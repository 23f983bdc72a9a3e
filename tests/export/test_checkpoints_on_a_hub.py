"""Checkpoints come from a model hub in every layout, with no more downloaded than is needed."""

from __future__ import annotations

import json

import pytest
import torch

from helpers import hub_layouts as layouts
from helpers.hub_server import TOKEN
from xclip_export import export_bundle
from xclip_export.checkpoint import describe_checkpoint, load_checkpoint, load_weights
from xclip_runtime.errors import (
    CheckpointError,
    HubAccessError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    LabelsError,
)

SAFETENSORS, PICKLED = layouts.SAFETENSORS, layouts.PICKLED
LAYOUTS = {
    "as transformers 4 saves it": lambda files: files,
    "of 2022": layouts.of_2022,
    "of 2022, without tokenizer.json": lambda files: layouts.without(layouts.of_2022(files), "tokenizer.json"),
    "of 2022, before PyTorch's zip format": lambda files: {
        **layouts.of_2022(files),
        PICKLED: layouts.pickled(layouts.state_of(files), legacy=True),
    },
    "both formats": lambda files: {**files, PICKLED: b"never read"},
    "sharded": layouts.sharded,
    "sharded, pickled": lambda files: layouts.sharded(files, of_pickles=True),
    "fp32": lambda files: layouts.in_dtype(files, torch.float32),
    "fp16": lambda files: layouts.in_dtype(files, torch.float16),
    "transformers 5": layouts.of_transformers_5,
}


@pytest.fixture(scope="session")
def files(demo_checkpoint):
    """Files of motion-demo's checkpoint, by name."""
    return layouts.files_of(demo_checkpoint)


@pytest.fixture
def add(hub, files):
    """Add files as owner/x; without any, those of motion-demo."""

    def add_repository(changed=None, **facts):
        return hub.add("owner/x", {**(changed or files), **layouts.UNWANTED}, **facts)

    return add_repository


def refused(kind=CheckpointError, source="owner/x"):
    """The message of the error that loading raises: one line with what to do."""
    with pytest.raises(kind) as caught:
        load_checkpoint(source)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(hub, add, files, demo, layout):
    commit = add(LAYOUTS[layout](files))

    loaded = load_checkpoint("owner/x")

    assert loaded.revision == commit
    assert loaded.licence == "mit"
    assert loaded.mean == demo.mean
    assert loaded.label_names == demo.label_names
    assert loaded.tokenizer(demo.label_names)["input_ids"] == demo.tokenizer(demo.label_names)["input_ids"]
    assert {tensor.dtype for tensor in loaded.model.parameters()} == {torch.float32}
    expected = demo.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert not set(hub.downloads()) & set(layouts.UNWANTED)
    assert sum(name.endswith((".safetensors", ".bin")) for name in hub.downloads()) == (2 if "sharded" in layout else 1)


def test_bf16_loads_as_fp32(add, files, demo):
    add(layouts.in_dtype(files, torch.bfloat16))

    loaded = load_checkpoint("owner/x").model

    assert torch.allclose(loaded.visual_projection.weight, demo.model.visual_projection.weight, atol=0.01)
    assert loaded.visual_projection.weight.dtype == torch.float32


def test_weights_are_downloaded_last_and_announced_with_their_size(hub, add):
    add()
    description = describe_checkpoint("owner/x")
    assert SAFETENSORS not in hub.downloads()

    said = []
    load_weights(description, said.append)
    assert hub.downloads()[-1] == SAFETENSORS
    [line] = said
    assert line.startswith(f"downloading {SAFETENSORS}, ")
    assert line.endswith(" MB")


def test_labels_that_do_not_fit_are_refused_before_the_weights_are_downloaded(hub, add, files, tmp_path):
    add(layouts.edited(files, "config.json", id2label=None, label2id=None))
    with pytest.raises(LabelsError, match="has no labels"):
        export_bundle("owner/x", tmp_path / "bundle")
    long = tmp_path / "labels.txt"
    long.write_text("word " * 100)
    with pytest.raises(LabelsError, match="more than 77 tokens"):
        export_bundle("owner/x", tmp_path / "bundle", labels_file=str(long))

    assert SAFETENSORS not in hub.downloads()


def test_a_checkpoint_is_named_by_repository_and_commit_however_it_is_spelt(hub, add):
    commit = add()

    described = describe_checkpoint(f"{hub.url}/owner/x/tree/main")

    assert (described.public_name, described.revision, described.licence) == ("owner/x", commit, "mit")


@pytest.mark.parametrize("source", ["owner/x@v1", "https://huggingface.co/owner/x/tree/v1"])
def test_a_revision_may_be_part_of_the_source(add, source):
    add()
    commit = add(revision="v1")

    assert describe_checkpoint(source).revision == commit
    with pytest.raises(HubError, match="two revisions"):
        describe_checkpoint(source, "v2")


def test_refusals_of_the_hub_say_which_it_is(hub, add, files, monkeypatch):
    add()
    hub.add("owner/private", files, private=True)
    hub.add("owner/gated", files, gated=True)

    assert "set HF_TOKEN" in refused(HubNotFoundError, "owner/private")
    assert "ask for access" in refused(HubAccessError, "owner/gated")
    assert "no revision v9" in refused(HubNotFoundError, "owner/x@v9")
    assert "no repository owner/y" in refused(HubNotFoundError, "owner/y")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_checkpoint("owner/private").revision


def test_a_cut_download_of_weights_is_resumed(hub, add, caplog):
    add()
    hub.cuts[SAFETENSORS] = [50_000]

    load_checkpoint("owner/x")

    assert hub.ranges == ["bytes=50000-"]
    assert len(caplog.records) == 1


def test_weights_are_compared_with_the_sha256_that_the_hub_names(hub, add, files):
    add()
    hub.lies[SAFETENSORS] = files[SAFETENSORS][:-1] + bytes([files[SAFETENSORS][-1] ^ 1])

    assert "another SHA-256 than the hub names" in refused()


def test_an_incomplete_cache_says_to_go_online_and_a_complete_one_is_enough(add, monkeypatch):
    add()
    describe_checkpoint("owner/x")
    hub_url = "http://127.0.0.1:9"
    with monkeypatch.context() as offline:
        offline.setenv("HF_ENDPOINT", hub_url)
        assert "cannot reach 127.0.0.1:9" in refused(HubUnavailableError)
    load_checkpoint("owner/x")
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    assert load_checkpoint("owner/x").model


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"", b"\xff\xfe{", b"<!doctype html>"])
def test_a_damaged_description_is_called_damaged_before_the_weights_are_downloaded(hub, add, files, name, content):
    add({**files, name: content})

    message = refused()

    assert "is damaged" in message
    assert name in message
    assert SAFETENSORS not in hub.downloads()


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_damaged_vocabulary_is_called_damaged(add, files, name):
    add({**layouts.without(files, "tokenizer.json"), name: b"\xff\xfe"})

    assert f"{name} is damaged" in refused()


def test_a_config_of_nonsense_is_called_damaged(add, files):
    add(layouts.edited(files, "config.json", vision_config="none"))

    assert "config.json is damaged" in refused()


def test_a_processor_without_the_normalisation_names_it(add, files):
    add({**layouts.of_transformers_5(files), "processor_config.json": b'{"image_processor": {}}'})

    assert "processor_config.json has no image_mean" in refused()


def test_a_repository_without_weights_says_which_it_needs(add, files):
    add(layouts.without(files, SAFETENSORS))
    assert "needs model.safetensors or pytorch_model.bin" in refused()

    add({**layouts.without(files, SAFETENSORS), "adapter_model.safetensors": b""})
    assert "holds a LoRA adapter" in refused()


def test_a_missing_shard_and_a_damaged_index_are_named(add, files):
    whole = layouts.sharded(files)
    add(layouts.without(whole, "model-00002-of-00002.safetensors"))
    assert "lacks model-00002-of-00002.safetensors" in refused()

    for weight_map in ({}, {"a": "../../secret.safetensors"}, None):
        add({**whole, "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()})
        assert "names no weight files" in refused()
