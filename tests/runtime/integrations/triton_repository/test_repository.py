"""The model repository: what Triton would parse, what its graphs compute, and what is never overwritten."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from helpers.bundles import copy_bundle, reseal
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import LabelsError, PrecisionUnavailableError, RepositoryError
from xclip_runtime.integrations.triton_repository import export_repository
from xclip_runtime.integrations.triton_repository.messages import initializer
from xclip_runtime.video import read_clip

MODELS = ("xclip", "xclip_prompt", "xclip_vision")


def parse(repository, name):
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return export_repository(DEMO_BUNDLE, tmp_path_factory.mktemp("triton") / "models", batch_size=4).path


def shapes(tensors):
    return {t.name: list(t.dims) for t in tensors}


def session(repository, name):
    return ort.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", MODELS)
def test_triton_can_parse_every_configuration(repository, name):
    config = parse(repository, name)

    assert config.name == name
    assert config.max_batch_size == 4


@pytest.mark.parametrize("name", ["xclip_vision", "xclip_prompt"])
def test_types_and_shapes_are_those_that_onnx_runtime_reports(repository, name):
    types = {"tensor(float)": model_config_pb2.TYPE_FP32, "tensor(uint8)": model_config_pb2.TYPE_UINT8}
    config, graph = parse(repository, name), session(repository, name)

    for declared, real in ((config.input, graph.get_inputs()), (config.output, graph.get_outputs())):
        assert {t.name: t.data_type for t in declared} == {t.name: types[t.type] for t in real}
        for tensor in real:
            batch, *rest = tensor.shape
            assert isinstance(batch, str)
            dims = shapes(declared)[tensor.name]
            assert len(dims) == len(rest)
            assert all(real == said or isinstance(real, str) for said, real in zip(dims, rest, strict=True))


def test_the_ensemble_leads_every_tensor_to_a_model_that_has_it(repository):
    ensemble = parse(repository, "xclip")
    known = shapes(ensemble.input)

    for step in ensemble.ensemble_scheduling.step:
        model = parse(repository, step.model_name)
        assert set(step.input_map) == set(shapes(model.input))
        for inner, outer in step.input_map.items():
            assert known[outer] == shapes(model.input)[inner]
        known |= {outer: shapes(model.output)[inner] for inner, outer in step.output_map.items()}
    assert all(known[name] == dims for name, dims in shapes(ensemble.output).items())
    assert all((repository / name / "1").is_dir() for name in MODELS)


def test_the_two_graphs_give_the_logits_of_the_model_for_a_batch(repository):
    model = XClip(DEMO_BUNDLE, device="cpu")
    clip = read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform).frames
    vision, prompt = session(repository, "xclip_vision"), session(repository, "xclip_prompt")

    names = ["video_embeds", "img_features"]
    features = vision.run(names, {"pixel_values": np.stack([clip, 255 - clip])})
    (logits,) = prompt.run(["logits_per_video"], dict(zip(names, features, strict=True)))

    np.testing.assert_allclose(logits, [model.logits(clip), model.logits(255 - clip)], atol=1e-3)


def test_the_label_file_names_every_logit(repository):
    model = XClip(DEMO_BUNDLE, device="cpu")

    for name in ("xclip", "xclip_prompt"):
        output = parse(repository, name).output[0]
        labels = (repository / name / output.label_filename).read_text().splitlines()
        assert tuple(labels) == model.labels
        assert list(output.dims) == [len(labels)]


def test_the_prompt_graph_with_its_labels_is_sound_onnx(repository):
    onnx.checker.check_model(onnx.load(repository / "xclip_prompt" / "1" / "model.onnx"), full_check=True)


def test_an_initializer_is_what_the_onnx_package_would_write():
    values = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)

    model = onnx.ModelProto.FromString(initializer("näme", values))

    (tensor,) = model.graph.initializer
    assert tensor.name == "näme"
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), values)


def test_what_it_was_written_from_stands_in_the_ensemble(repository):
    parameters = {key: value.string_value for key, value in parse(repository, "xclip").parameters.items()}

    assert parameters["profile"] == "videox"
    assert parameters["vision_graph"] == "onnx/vision_model.onnx"


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", ("KIND_CPU", 1)), ("openvino", ("KIND_CPU", 1)), ("tensorrt", ("KIND_GPU", 8))]
)
def test_the_device_decides_instances_and_batch(tmp_path, device, expected):
    kind, batch = expected
    repository = export_repository(DEMO_BUNDLE, tmp_path / "models", device=device, instances=2).path

    for name in ("xclip_vision", "xclip_prompt"):
        config = parse(repository, name)
        assert config.HasField("dynamic_batching")
        assert [(g.count, g.kind) for g in config.instance_group] == [
            (2, getattr(model_config_pb2.ModelInstanceGroup, kind))
        ]
        assert config.max_batch_size == batch
        assert {w.batch_size for w in config.model_warmup} <= {1, batch}


def test_tensorrt_computes_in_the_precision_that_is_asked_for(tmp_path):
    repository = export_repository(DEMO_BUNDLE, tmp_path / "models", device="tensorrt", precision="fp16").path

    (accelerator,) = parse(repository, "xclip_vision").optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("tensorrt", {"precision_mode": "FP16"})


def test_a_precision_that_the_bundle_lacks_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(PrecisionUnavailableError, match="fp16"):
        export_repository(DEMO_BUNDLE, tmp_path / "models", precision="fp16")

    assert list(tmp_path.iterdir()) == []


def test_openvinos_pipeline_names_the_tensors_of_the_graphs(repository):
    config = json.loads((repository / "config.json").read_text())
    bases = {m["config"]["name"]: m["config"]["base_path"] for m in config["model_config_list"]}
    (pipeline,) = config["pipeline_config_list"]

    given = {("request", name) for name in pipeline["inputs"]}
    for node in pipeline["nodes"]:
        graph = session(repository, bases[node["model_name"]])
        wired = {name: source for one in node["inputs"] for name, source in one.items()}
        assert set(wired) == {i.name for i in graph.get_inputs()}
        assert {(s["node_name"], s["data_item"]) for s in wired.values()} <= given
        assert {o["data_item"] for o in node["outputs"]} <= {o.name for o in graph.get_outputs()}
        given |= {(node["name"], o["alias"]) for o in node["outputs"]}
    assert {(s["node_name"], s["data_item"]) for one in pipeline["outputs"] for s in one.values()} <= given


def test_weights_in_files_of_their_own_go_along(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    path = bundle / "onnx" / "vision_model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="vision_model.onnx_data")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["graphs"]["vision_model"]["data_files"] = ["onnx/vision_model.onnx_data"]
    manifest["files"]["onnx/vision_model.onnx_data"] = {}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    reseal(bundle)

    repository = export_repository(bundle, tmp_path / "models").path

    assert (repository / "xclip_vision" / "1" / "vision_model.onnx_data").is_file()
    assert session(repository, "xclip_vision").get_inputs()[0].name == "pixel_values"


def test_an_earlier_export_is_replaced_only_on_request(tmp_path):
    target = export_repository(DEMO_BUNDLE, tmp_path / "models").path
    before = (target / "xclip_vision" / "config.pbtxt").read_text()

    with pytest.raises(RepositoryError, match="--overwrite"):
        export_repository(DEMO_BUNDLE, target, batch_size=2)
    assert (target / "xclip_vision" / "config.pbtxt").read_text() == before

    export_repository(DEMO_BUNDLE, target, batch_size=2, overwrite=True)
    assert (target / "xclip_vision" / "config.pbtxt").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_folder_with_other_models_is_never_replaced(tmp_path):
    target = export_repository(DEMO_BUNDLE, tmp_path / "models").path
    (target / "resnet").mkdir()

    with pytest.raises(RepositoryError, match="other files"):
        export_repository(DEMO_BUNDLE, target, overwrite=True)

    assert (target / "resnet").is_dir()


def test_an_error_halfway_leaves_the_earlier_export_and_no_rest(tmp_path, monkeypatch):
    target = export_repository(DEMO_BUNDLE, tmp_path / "models").path

    def full(*_):
        message = "no space left on device"
        raise OSError(message)

    monkeypatch.setattr("xclip_runtime.integrations.triton_repository.repository.initializer", full)
    with pytest.raises(OSError, match="no space"):
        export_repository(DEMO_BUNDLE, target, batch_size=2, overwrite=True)

    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert (target / "xclip_prompt" / "1" / "model.onnx").is_file()


def test_a_label_of_two_lines_is_refused(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    labels = json.loads((bundle / "labels.json").read_text())
    labels["names"][0] = "two\nlines"
    (bundle / "labels.json").write_text(json.dumps(labels))
    reseal(bundle)

    with pytest.raises(LabelsError, match="one line"):
        export_repository(bundle, tmp_path / "models")
