"""Label sets that are encoded once, and refused wherever their numbers would mean something else."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bundles import copy_bundle, edit_manifest
from xclip_runtime import XClip
from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import BundleSchemaError, LabelsError
from xclip_runtime.text.encoder import TextEncoder
from xclip_runtime.text.label_embeddings import encode_labels, load_labels, save_labels

NAMES = ["an orange shape circling", "a red shape", "réveil 😀"]


@pytest.fixture(scope="module")
def labels():
    return encode_labels(TextEncoder(Bundle.open(DEMO_BUNDLE)), NAMES, ["{}", "a video of {}"])


@pytest.fixture
def saved(labels, tmp_path):
    return save_labels(labels, tmp_path / "set.json")


@pytest.mark.parametrize("suffix", ["", ".json", ".npy"])
def test_a_set_is_two_files_and_either_names_it(labels, tmp_path, suffix):
    files = save_labels(labels, tmp_path / f"set.v1{suffix}")

    assert [file.name for file in files] == ["set.v1.json", "set.v1.npy"]
    for file in files:
        loaded = load_labels(file)
        assert (loaded.names, loaded.templates) == (tuple(NAMES), ("{}", "a video of {}"))
        assert loaded.text_tower_sha256 == Bundle.open(DEMO_BUNDLE).text_tower_sha256
        np.testing.assert_array_equal(loaded.text_embeds, labels.text_embeds)


def test_a_set_gives_the_answers_of_its_labels_without_any_text_tower(saved, monkeypatch):
    typed = XClip(DEMO_BUNDLE, device="cpu").with_labels(NAMES, ["{}", "a video of {}"]).classify(DEMO_VIDEO)
    monkeypatch.setitem(sys.modules, "tokenizers", None)

    loaded = XClip(DEMO_BUNDLE, device="cpu").with_labels(load_labels(saved[0])).classify(DEMO_VIDEO)

    assert loaded.labels == typed.labels


def test_another_text_tower_refuses_a_set(labels, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    edit_manifest(bundle, text_tower_sha256="f" * 64)

    with pytest.raises(LabelsError, match="another text tower"):
        XClip(bundle, device="cpu").with_labels(labels)


def test_a_bundle_that_does_not_name_its_text_tower_is_to_be_exported_again(labels, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    edit_manifest(bundle, text_tower_sha256=None)

    with pytest.raises(BundleSchemaError, match="export the bundle again"):
        XClip(bundle, device="cpu").with_labels(labels)


@pytest.mark.parametrize("existing", ["set.json", "set.npy"])
def test_an_existing_file_is_replaced_only_on_request(labels, tmp_path, existing):
    (tmp_path / existing).write_text("mine")

    with pytest.raises(LabelsError, match=rf"{existing} exists"):
        save_labels(labels, tmp_path / "set")
    assert [file.name for file in tmp_path.iterdir()] == [existing]

    save_labels(labels, tmp_path / "set", overwrite=True)
    assert load_labels(tmp_path / "set").names == tuple(NAMES)


def test_embeddings_of_another_set_are_refused(saved, labels):
    np.save(saved[1], labels.text_embeds[::-1])

    with pytest.raises(LabelsError, match="is not the file that"):
        load_labels(saved[0])


def test_half_a_set_is_refused(saved):
    saved[1].unlink()

    with pytest.raises(LabelsError, match=r"cannot read .*set\.npy: No such file or directory; it belongs to"):
        load_labels(saved[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a label set"),
        ("[]", "not a label set"),
        ('{"names": ["a"], "texts": ["a"]}', "not a label set"),
        ('{"format": "xclip-onnx-labels", "schema_version": 1}', "does not read"),
    ],
    ids=["no JSON", "a list", "a bundle's labels.json", "fields missing"],
)
def test_other_json_is_refused(saved, content, message):
    saved[0].write_text(content)

    with pytest.raises(LabelsError, match=message):
        load_labels(saved[0])


@pytest.mark.parametrize("changes", [{"schema_version": 2}, {"names": [1, 2, 3]}, {"names": "abc"}, {"names": ["a"]}])
def test_a_description_that_does_not_fit_is_refused(saved, changes):
    saved[0].write_text(json.dumps({**json.loads(saved[0].read_bytes()), **changes}))

    with pytest.raises(LabelsError, match="encode the labels again"):
        load_labels(saved[0])


@given(json_bytes=st.binary(max_size=60), npy_bytes=st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_whatever_the_files_hold_the_error_is_ours(tmp_path_factory, json_bytes, npy_bytes):
    import hashlib

    folder = tmp_path_factory.mktemp("set")
    document = {
        "format": "xclip-onnx-labels",
        "schema_version": 1,
        "text_tower_sha256": "",
        "text_embeds_sha256": hashlib.sha256(npy_bytes).hexdigest(),
        "names": ["a"],
        "templates": ["{}"],
    }
    (folder / "a.json").write_bytes(json_bytes)
    (folder / "b.json").write_text(json.dumps(document))
    (folder / "b.npy").write_bytes(npy_bytes)

    for name in ("a.json", "b.json"):
        with pytest.raises(LabelsError):
            load_labels(folder / name)
