"""A bundle is whole, or it is refused with the name of what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import copy_bundle, edit_manifest, flip_byte, reseal
from xclip_runtime.bundle import Bundle
from xclip_runtime.bundle.manifest import MANIFEST
from xclip_runtime.bundle.model_card import model_card
from xclip_runtime.cli import cli
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    PrecisionUnavailableError,
)
from xclip_runtime.integrations.triton_repository.configs import tensors
from xclip_runtime.text.encoder import TextEncoder

FILES = [entry.path for entry in Bundle.open(DEMO_BUNDLE).files]


@pytest.fixture
def bundle(tmp_path):
    return copy_bundle(tmp_path / "bundle")


def test_the_manifest_names_every_other_file():
    on_disk = {p.relative_to(DEMO_BUNDLE).as_posix() for p in DEMO_BUNDLE.rglob("*") if p.is_file()}

    assert set(FILES) == on_disk - {MANIFEST}


def test_an_untouched_bundle_has_no_problems():
    assert [problem for _, problem in Bundle.open(DEMO_BUNDLE).problems()] == [None] * len(FILES)


def test_text_embeds_are_float32_rows_in_label_order():
    opened = Bundle.open(DEMO_BUNDLE)

    assert opened.text_embeds.shape == (len(opened.labels.names), opened.projection_dim)
    assert opened.text_embeds.dtype == np.float32


def test_the_digest_is_the_manifests_and_follows_its_changes(bundle):
    digest = Bundle.open(bundle).digest
    assert digest == hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()

    edit_manifest(bundle, opset=99)
    assert Bundle.open(bundle).digest != digest


# The name of the embedded bundle


@pytest.mark.parametrize("name", ["motion-demo", Path("motion-demo")])
def test_motion_demo_is_the_embedded_bundle_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    assert Bundle.open(name).path == DEMO_BUNDLE


def test_a_bundle_of_that_name_in_the_working_directory_wins(tmp_path, monkeypatch):
    mine = copy_bundle(tmp_path / "motion-demo")
    edit_manifest(mine, opset=99)
    monkeypatch.chdir(tmp_path)

    assert Bundle.open("motion-demo").manifest["opset"] == 99


def test_another_folder_of_that_name_does_not(tmp_path, monkeypatch):
    (tmp_path / "motion-demo").mkdir()
    monkeypatch.chdir(tmp_path)

    assert Bundle.open("motion-demo").path == DEMO_BUNDLE
    with pytest.raises(BundleSchemaError, match="is not a bundle"):
        Bundle.open(tmp_path / "motion-demo")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_and_its_file_named(bundle, name):
    flip_byte(bundle / name)

    problems = {entry.path: problem for entry, problem in Bundle.open(bundle).problems() if problem}

    assert list(problems) == [name]
    assert name in problems[name]


def test_a_truncated_file_is_refused_on_opening(bundle):
    graph = bundle / "onnx/vision_model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])

    with pytest.raises(BundleCorruptError, match=r"vision_model\.onnx has \d+ bytes"):
        Bundle.open(bundle)


def test_a_missing_file_is_refused_on_opening(bundle):
    (bundle / "labels.json").unlink()

    with pytest.raises(BundleCorruptError, match=r"labels\.json is missing"):
        Bundle.open(bundle)


def test_a_path_without_a_folder_is_not_found(tmp_path):
    with pytest.raises(BundleNotFoundError, match="no bundle at"):
        Bundle.open(tmp_path / "nothing")


def test_not_found_is_also_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Bundle.open(tmp_path / "nothing")


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path):
    with pytest.raises(BundleSchemaError, match="is not a bundle"):
        Bundle.open(tmp_path)


def test_a_foreign_manifest_is_not_a_bundle(bundle):
    edit_manifest(bundle, format="something-else")

    with pytest.raises(BundleSchemaError, match="does not describe an xclip-onnx bundle"):
        Bundle.open(bundle)


def test_another_schema_is_refused_with_both_versions(bundle):
    edit_manifest(bundle, schema_version=99)

    with pytest.raises(BundleSchemaError, match="schema 99, this version reads 1"):
        Bundle.open(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]"])
def test_a_broken_manifest_is_refused(bundle, content):
    (bundle / MANIFEST).write_bytes(content)

    with pytest.raises((BundleCorruptError, BundleSchemaError)):
        Bundle.open(bundle)


@pytest.mark.parametrize("field", ["files", "graphs", "model"])
@pytest.mark.parametrize("value", [None, [], {"x": {}}])
def test_a_manifest_without_its_fields_is_refused(bundle, field, value):
    edit_manifest(bundle, **{field: value})

    with pytest.raises(BundleCorruptError):
        Bundle.open(bundle)


@pytest.mark.parametrize("outside", ["../secret", "/etc/passwd", "onnx/../../x"])
def test_a_manifest_cannot_point_outside_its_bundle(bundle, outside):
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    edit_manifest(bundle, files={**files, outside: {"size": 1, "sha256": "0"}})

    with pytest.raises(BundleCorruptError, match="outside the bundle"):
        Bundle.open(bundle)


def test_embeddings_that_do_not_fit_the_labels_are_refused(bundle):
    np.save(bundle / "text_embeds.npy", np.zeros((3, 5), np.float32))
    reseal(bundle)

    with pytest.raises(BundleCorruptError, match="its labels need float32"):
        _ = Bundle.open(bundle).text_embeds


def test_pickled_embeddings_are_never_loaded(bundle):
    np.save(bundle / "text_embeds.npy", np.array([object()]), allow_pickle=True)
    reseal(bundle)

    with pytest.raises(ValueError, match="pickle"):
        _ = Bundle.open(bundle).text_embeds


def test_a_precision_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(PrecisionUnavailableError, match="it holds: fp32"):
        Bundle.open(DEMO_BUNDLE).graph("prompt", "int8")


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("microsoft/xclip-base-patch32", "microsoft/xclip-base-patch32"),
        ("sports-xclip", "sports-xclip"),
        ("runs/2026/sports-xclip", "sports-xclip"),
        ("runs/sports-xclip/checkpoint-500", "sports-xclip"),
        ("./sports-xclip", "sports-xclip"),
        ("checkpoint-500", "checkpoint-500"),
    ],
)
def test_a_model_has_the_name_of_its_checkpoint_whatever_folder_the_bundle_is_in(bundle, checkpoint, name):
    edit_manifest(bundle, source={"checkpoint": checkpoint})

    assert Bundle.open(bundle).checkpoint_name == name


def test_the_embedded_model_is_named_motion_demo():
    assert Bundle.open(DEMO_BUNDLE).checkpoint_name == "motion-demo"


# A manifest may agree with a file that was damaged before


USES = {
    "preprocessor_config.json": lambda opened: opened.preprocessor,
    "labels.json": lambda opened: opened.labels,
    "text_embeds.npy": lambda opened: opened.text_embeds,
    "config.json": lambda opened: TextEncoder(opened).context_length,
    "tokenizer.json": lambda opened: TextEncoder(opened).token_ids(["a cat"]),
}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"names": 3, "text_config": "a", "profile": 1}'])
@pytest.mark.parametrize("name", USES)
def test_a_damaged_description_is_called_damaged_with_its_file(bundle, name, content):
    (bundle / name).write_bytes(content)
    reseal(bundle)

    with pytest.raises(BundleCorruptError, match=r"is damaged \(.*\): copy or export the bundle again") as caught:
        USES[name](Bundle.open(bundle))
    assert str(bundle / name) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_manifest_is_called_damaged(bundle, content):
    (bundle / MANIFEST).write_bytes(content)

    with pytest.raises(BundleCorruptError, match=r"manifest.json is damaged"):
        Bundle.open(bundle)


WRONG = (None, True, "", -1, math.nan, 10**30, [], {"a": None}, ["x"])


def wrong_values(value):
    """Copies of a document, each with one field missing or of another type or size; of lists, in the first item."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: kept for name, kept in value.items() if name != key}
            yield from ({**value, key: wrong} for wrong in (*WRONG, *wrong_values(inner)))
    elif isinstance(value, list) and value:
        yield from ([wrong, *value[1:]] for wrong in (*WRONG, *wrong_values(value[0])))


def test_whatever_field_of_a_manifest_is_wrong_every_use_of_it_works_or_refuses_the_bundle(bundle):
    """No foreign error: it would be a traceback of the command, and a failure of the server."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"] = {name: manifest["files"][name] for name in ("labels.json", "onnx/vision_model.onnx")}
    manifest["graphs"] = {
        "vision_model": {**manifest["graphs"]["vision_model"], "data_files": ["onnx/vision_model.onnx"]}
    }
    useful = refused = 0
    for changed in wrong_values(manifest):
        (bundle / MANIFEST).write_text(json.dumps(changed))
        try:
            use_all_fields(bundle)
            useful += 1
        except BundleError:
            refused += 1
    assert useful
    assert refused > useful


def use_all_fields(bundle):
    opened = Bundle.open(bundle)
    assert opened.logit_scale is not None
    for graph in opened.graphs:
        tensors(opened, graph)
    assert model_card(opened, "owner/name")
    cli(["info", "--bundle", str(bundle)], standalone_mode=False)


@pytest.mark.parametrize("name", ["", ".", "a\0b", "a//b", "a/", "\ud800", "a\nb", "onnx/no_such.onnx"])
def test_a_graph_without_a_file_of_the_bundle_is_refused(bundle, name):
    graphs = json.loads((bundle / MANIFEST).read_text())["graphs"]
    edit_manifest(bundle, graphs={**graphs, "vision_model": {**graphs["vision_model"], "file": name}})

    with pytest.raises(BundleCorruptError, match=r"is damaged \(it does not list the file"):
        Bundle.open(bundle)


def test_a_manifest_that_git_lfs_left_out_is_named(bundle):
    (bundle / MANIFEST).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")

    with pytest.raises(BundleCorruptError, match="is a Git LFS pointer"):
        Bundle.open(bundle)


def npy_header(shape):
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x05\x06" + bytes(18),
        npy_header((70, 1 << 40)),
        npy_header((70, 128)) + b"x",
    ],
    ids=["archive", "huge", "short"],
)
def test_embeddings_that_are_no_whole_array_are_called_damaged(bundle, content):
    (bundle / "text_embeds.npy").write_bytes(content)
    reseal(bundle)

    with pytest.raises(BundleCorruptError, match=r"is damaged \(not an array"):
        _ = Bundle.open(bundle).text_embeds
