"""A packed bundle does what the whole one does on its device, and takes less space."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest

from helpers.bundles import copy_bundle, flip_byte
from xclip_runtime import Bundle, PrecisionUnavailableError, XClip, pack_bundle
from xclip_runtime.bundle.manifest import MANIFEST
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import BundleCorruptError, BundleError, DeviceError, OutputLockedError
from xclip_runtime.inference import graphs
from xclip_runtime.inference.graphs import Loaded, load, select_vision_graph
from xclip_runtime.inference.packing import PRECISIONS, supported
from xclip_runtime.inference.providers import DEVICES, SessionOptions
from xclip_runtime.selftest import golden_clip, self_test
from xclip_runtime.util.locks import locked

RUNS = [(device, precision) for device in DEVICES for precision in PRECISIONS[device]]
GRAPHS = [
    ("vision_model", "fp32", "any"),
    ("vision_model_cpu", "fp32", "cpu"),
    ("vision_model_fp16", "fp16", "cuda"),
    ("vision_model_int8", "int8", "cpu"),
    ("vision_model_qdq", "int8", "any"),
]


def bundle_of(*names):
    """The manifest of a bundle that has these vision graphs."""
    entries = {
        name: {"file": f"onnx/{name}.onnx", "tower": "vision", "precision": precision, "target": target, "parity": {}}
        for name, precision, target in GRAPHS
        if name in names
    }
    return Bundle(DEMO_BUNDLE, {"graphs": entries, "source": {"checkpoint": "owner/name", "revision": "a1"}})


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return pack_bundle("motion-demo", tmp_path_factory.mktemp("packed") / "int8", precision="int8").bundle


@pytest.mark.parametrize(("device", "precision"), RUNS)
def test_every_device_keeps_the_graph_that_it_runs(device, precision, tmp_path):
    if (device, precision) == ("cuda", "fp16"):
        with pytest.raises(PrecisionUnavailableError, match=f"--precision {precision}"):
            pack_bundle("motion-demo", tmp_path / "small", devices=[device], precision=precision)
        return
    packed = pack_bundle("motion-demo", tmp_path / "small", devices=[device], precision=precision, stream=False)
    small, whole = Bundle.open(packed.bundle), Bundle.open(DEMO_BUNDLE)

    chosen = select_vision_graph(whole, device, precision)
    assert small.graphs_of("vision") == (chosen,)
    assert select_vision_graph(small, device, precision) == chosen
    assert [problem for _, problem in small.problems() if problem] == []
    assert packed.size < packed.source_size
    assert sum(f.stat().st_size for f in packed.bundle.rglob("*") if f.is_file() and f.name != MANIFEST) == packed.size


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_results_are_the_same_bits(precision, tmp_path):
    clip = golden_clip(32, 224)
    whole = XClip("motion-demo", "cpu", precision)
    small = XClip(pack_bundle("motion-demo", tmp_path / "small", precision=precision).bundle, "cpu")

    assert small.precision == precision
    np.testing.assert_array_equal(small.logits(clip), whole.logits(clip))
    np.testing.assert_array_equal(small.text_embeds(["a cat"]), whole.text_embeds(["a cat"]))
    assert self_test(small).passed
    assert small.window_encoder()


def test_the_manifest_is_that_of_the_source_with_fewer_graphs_and_files(int8):
    small, whole = (json.loads((folder / MANIFEST).read_text()) for folder in (int8, DEMO_BUNDLE))

    assert small["packed_from"] == Bundle.open(DEMO_BUNDLE).digest
    assert small["graphs"].items() < whole["graphs"].items()
    assert small["files"].items() <= whole["files"].items()
    for name in set(whole) - {"graphs", "files"}:
        assert small[name] == whole[name]


def test_a_packed_bundle_can_be_packed_again(int8, tmp_path):
    again = pack_bundle(int8, tmp_path / "again", text=False, stream=False)

    assert set(again.graphs) == {"vision_model_int8", "prompt_model"}
    assert Bundle.open(again.bundle).manifest["packed_from"] == Bundle.open(DEMO_BUNDLE).digest
    with pytest.raises(PrecisionUnavailableError, match=r"it holds: int8\): choose one of those, or export again"):
        pack_bundle(int8, tmp_path / "fp32", precision="fp32")


def test_several_devices_share_a_bundle(tmp_path):
    packed = pack_bundle("motion-demo", tmp_path / "small", devices=["cpu", "openvino"], stream=False)

    assert set(packed.graphs) == {"vision_model", "prompt_model", "text_model"}


@pytest.mark.parametrize("devices", [(), ("gpu",), ("auto",)])
def test_what_is_no_device_is_refused(devices, tmp_path):
    with pytest.raises(DeviceError, match="choose one of cpu"):
        pack_bundle("motion-demo", tmp_path / "small", devices=devices)


def test_without_a_text_tower_the_own_labels_and_encoded_sets_remain(tmp_path):
    from xclip_runtime.text.encoder import TextEncoder
    from xclip_runtime.text.label_embeddings import encode_labels

    packed = pack_bundle("motion-demo", tmp_path / "small", text=False)
    model, labels = XClip(packed.bundle, "cpu"), ["a cat", "a dog"]
    encoded = encode_labels(TextEncoder(Bundle.open(DEMO_BUNDLE)), labels)

    assert not {"tokenizer.json", "onnx/text_model.onnx"} & set(packed.files)
    assert self_test(model).passed
    assert model.with_labels(encoded).labels == tuple(labels)
    for use in (model.with_labels, model.text_embeds, model.check_texts):
        with pytest.raises(BundleError, match=r"has no text tower.*packed without --no-text, or .*labels encode") as no:
            use(labels)
        assert "\n" not in str(no.value)


def test_a_source_that_was_changed_leaves_nothing(tmp_path):
    source = copy_bundle(tmp_path / "source")
    flip_byte(source / "onnx/prompt_model.onnx")

    with pytest.raises(BundleCorruptError, match="prompt_model"):
        pack_bundle(source, tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_not_packed_need_not_be_there(tmp_path):
    source = copy_bundle(tmp_path / "source")
    (source / "onnx/vision_model_int8.onnx").unlink()

    assert pack_bundle(source, tmp_path / "small", stream=False).graphs


def test_a_full_disk_leaves_nothing_and_names_the_bundle(tmp_path, monkeypatch):
    def fill(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", fill)

    with pytest.raises(OSError, match="No space left") as full:
        pack_bundle("motion-demo", tmp_path / "small")
    assert full.value.filename.startswith(str(tmp_path / "small"))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_on_request_alone_and_even_by_its_own_pack(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")

    with pytest.raises(BundleError, match="--overwrite"):
        pack_bundle(bundle, bundle)
    pack_bundle(bundle, bundle, precision="int8", stream=False, overwrite=True)
    assert not (bundle / "onnx/vision_model.onnx").exists()
    assert [problem for _, problem in Bundle.open(bundle).problems() if problem] == []


def test_two_cannot_write_one_bundle(tmp_path):
    with locked(tmp_path / "small"), pytest.raises(OutputLockedError):
        pack_bundle("motion-demo", tmp_path / "small")


def test_only_what_is_packed_is_downloaded(hub, tmp_path):
    hub.add("owner/demo", DEMO_BUNDLE)
    packed = pack_bundle("owner/demo", tmp_path / "small", precision="int8", text=False, stream=False)

    assert sorted(hub.downloads()) == sorted([MANIFEST, *packed.files])


def test_a_bundle_of_all_graphs_supports_every_device_in_every_precision():
    whole = supported(bundle_of(*(name for name, _, _ in GRAPHS)))

    assert [(each.device, each.precision) for each in whole] == RUNS
    assert all(each.graph and each.fix is None for each in whole)


def test_what_is_missing_is_named_with_the_command_that_writes_it():
    held = {(each.device, each.precision): each for each in supported(bundle_of("vision_model_cpu"))}

    assert held["cpu", "fp32"].graph == "onnx/vision_model_cpu.onnx"
    assert held["cpu", "int8"].fix == "xclip-onnx export owner/name -o FOLDER --for cpu --precision int8"
    assert held["cuda", "fp16"].fix.endswith("--for cuda --precision fp16")
    assert held["openvino", "bf16"].fix.endswith("--for openvino --precision fp32")


@pytest.mark.parametrize(("held", "device", "other"), [("qdq", "cpu", "openvino"), ("int8", "openvino", "cpu")])
def test_a_bundle_packed_for_another_device_names_that_device(held, device, other):
    with pytest.raises(PrecisionUnavailableError, match=f"choose device {other}"):
        select_vision_graph(bundle_of(f"vision_model_{held}"), device, "int8")


@pytest.mark.parametrize(
    ("held", "here", "taken"), [("qdq", True, "openvino"), ("qdq", False, "cpu"), ("int8", True, "cpu")]
)
def test_auto_comes_to_the_device_that_a_bundle_was_packed_for_where_it_is_here(monkeypatch, held, here, taken):
    def find(device):
        if not here:
            raise DeviceError(device)

    monkeypatch.setattr(graphs, "ep_devices", find)
    monkeypatch.setattr(graphs, "candidate_devices", lambda _: ("cpu",))
    monkeypatch.setattr(graphs, "picks", lambda *_: ())
    monkeypatch.setattr(graphs, "_load_on", lambda bundle, options, precision: Loaded(None, None, options, precision))
    loaded = load(bundle_of(f"vision_model_{held}"), "auto", None, lambda device: SessionOptions(device=device))

    assert (loaded.prompt.device, loaded.reason) == (taken, "the default")


def test_a_bundle_is_not_packed_into_itself(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")

    with pytest.raises(BundleError, match="lies in the bundle"):
        pack_bundle(bundle, bundle / "small")
    assert not (bundle / "small").exists()
