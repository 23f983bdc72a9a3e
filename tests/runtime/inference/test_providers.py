"""Provider chains and options by device and goal, and the user's own options and providers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xclip_runtime.errors import DeviceError
from xclip_runtime.inference import providers
from xclip_runtime.inference.installation import Gpu
from xclip_runtime.inference.providers import (
    KNOWN_OPTIONS,
    PROVIDER_OF,
    GraphFile,
    SessionOptions,
    check_choice,
    default_cache_dir,
    device_of,
    engine_folder,
    parse_provider_options,
    parse_providers,
    provider_chain,
    unknown_options,
)

VISION = GraphFile("ab" * 32, {"pixel_values": ((1, 8, 8), 32, 224, 224, 3)})


@pytest.fixture(autouse=True)
def h100(monkeypatch):
    monkeypatch.setattr(providers, "gpus", lambda: (Gpu("NVIDIA H100 PCIe", "580.65", "81559 MiB"),))


@pytest.fixture(autouse=True)
def openvino(monkeypatch, tmp_path):
    """OpenVINO on a processor with bf16."""
    monkeypatch.setattr(providers, "capabilities", lambda device: frozenset({"FP32", "BF16", "FP16"}))
    monkeypatch.setenv("XCLIP_ONNX_CACHE", str(tmp_path))


def options_of(device, **fields):
    (provider, options), *_ = provider_chain(SessionOptions(device, **fields), VISION)
    assert provider == PROVIDER_OF[device]
    return options


@pytest.mark.parametrize(
    ("device", "chain"),
    [
        ("cpu", ["CPUExecutionProvider"]),
        ("cuda", ["CUDAExecutionProvider"]),
        ("tensorrt", ["TensorrtExecutionProvider", "CUDAExecutionProvider"]),
        ("openvino", ["OpenVINOExecutionProvider"]),
    ],
)
def test_no_chain_but_the_cpus_own_ends_at_the_cpu(device, chain):
    assert [provider for provider, _ in provider_chain(SessionOptions(device), VISION)] == chain


@pytest.mark.parametrize("device", PROVIDER_OF)
@pytest.mark.parametrize("goal", ["latency", "throughput"])
def test_every_default_is_an_option_that_the_provider_knows(device, goal):
    for provider, options in provider_chain(SessionOptions(device, optimize_for=goal), VISION):
        assert set(options) <= KNOWN_OPTIONS.get(provider, set())
        assert all(isinstance(value, str) for value in options.values())


def test_cuda_computes_fp32_in_fp32_and_norms_add_up_in_fp32():
    options = options_of("cuda")

    assert options["use_tf32"] == "0"
    assert options["enable_skip_layer_norm_strict_mode"] == "1"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_cuda_keeps_convolutions_channels_last_adds_their_bias_and_chooses_its_own_attention_kernel():
    options = options_of("cuda")

    assert (options["prefer_nhwc"], options["fuse_conv_bias"]) == ("1", "1")
    assert "sdpa_kernel" not in options


@pytest.mark.parametrize(("goal", "strategy"), [("latency", "kSameAsRequested"), ("throughput", "kNextPowerOfTwo")])
def test_the_goal_decides_how_the_arena_grows(goal, strategy):
    assert options_of("cuda", optimize_for=goal)["arena_extend_strategy"] == strategy


@pytest.mark.parametrize(("given", "captured"), [({}, True), ({"enable_cuda_graph": "0"}, False)])
def test_cuda_graphs_are_on_unless_turned_off(given, captured):
    options = SessionOptions("cuda", provider_options=given)

    assert options.cuda_graph is captured
    assert options_of("cuda", provider_options=given)["enable_cuda_graph"] == str(int(captured))


def test_the_cpu_has_no_cuda_graphs():
    assert not SessionOptions("cpu").cuda_graph


def test_what_the_user_passes_wins_over_the_default():
    options = options_of("cuda", provider_options={"gpu_mem_limit": "1073741824", "use_tf32": "1"})

    assert options["gpu_mem_limit"] == "1073741824"
    assert options["use_tf32"] == "1"


def test_tensorrt_gets_its_options_and_cuda_behind_it_gets_cudas():
    given = {"trt_builder_optimization_level": "5", "gpu_mem_limit": "1"}
    (_, tensorrt), (_, cuda) = provider_chain(SessionOptions("tensorrt", provider_options=given), VISION)

    assert tensorrt["trt_builder_optimization_level"] == "5"
    assert "gpu_mem_limit" not in tensorrt
    assert cuda["gpu_mem_limit"] == "1"


def test_tensorrt_is_told_the_shapes_and_keeps_engines_and_timings(tmp_path):
    options = options_of("tensorrt", cache_dir=tmp_path, precision="fp16", max_batch=8)

    assert options["trt_profile_min_shapes"] == "pixel_values:1x32x224x224x3"
    assert options["trt_profile_max_shapes"] == options["trt_profile_opt_shapes"] == "pixel_values:8x32x224x224x3"
    assert options["trt_fp16_enable"] == options["trt_layer_norm_fp32_fallback"] == "1"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
    assert options["trt_engine_cache_path"].startswith(str(tmp_path))


def test_engines_are_kept_apart_by_graph_gpu_driver_and_precision(monkeypatch, tmp_path):
    def folder(**fields):
        return engine_folder(SessionOptions("tensorrt", cache_dir=tmp_path, **fields), VISION)

    first = folder()
    other_graph = engine_folder(SessionOptions("tensorrt", cache_dir=tmp_path), GraphFile("cd" * 32))
    other_precision = folder(precision="fp16")
    monkeypatch.setattr(providers, "gpus", lambda: (Gpu("NVIDIA L4", "580.65", "23034 MiB"),))

    assert len({first, other_graph, other_precision, folder()}) == 4


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XCLIP_ONNX_CACHE": "/big/cache"}, "/big/cache"),
        ({"XDG_CACHE_HOME": "/home/me/.xdg"}, "/home/me/.xdg/xclip-onnx"),
        ({"HOME": "/home/me"}, "/home/me/.cache/xclip-onnx"),
    ],
)
def test_the_cache_is_where_the_user_or_xdg_says(monkeypatch, variables, expected):
    for name in ("XCLIP_ONNX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert str(default_cache_dir()) == expected


def test_without_a_home_the_cache_has_to_be_named(monkeypatch):
    for name in ("XCLIP_ONNX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))

    with pytest.raises(DeviceError, match=r"no home folder .*: set XCLIP_ONNX_CACHE"):
        default_cache_dir()


def homeless(_):
    message = "Could not determine home directory."
    raise RuntimeError(message)


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16"), ("fp16", "f16")])
def test_openvino_is_held_to_the_precision_that_is_asked_for(precision, hint):
    config = json.loads(options_of("openvino", precision=precision, threads=3)["load_config"])

    assert config["CPU"]["INFERENCE_PRECISION_HINT"] == hint
    assert config["CPU"]["INFERENCE_NUM_THREADS"] == 3


def test_openvino_is_refused_a_precision_that_it_would_replace_without_a_word(monkeypatch):
    monkeypatch.setattr(providers, "capabilities", lambda device: frozenset({"FP32", "INT8"}))

    with pytest.raises(DeviceError, match=r"no bf16 here.*choose precision fp32"):
        options_of("openvino", precision="bf16")


@pytest.mark.parametrize(("capabilities", "hint"), [("FP32 INT8", "f32"), ("FP32 BF16 INT8", "bf16")])
def test_openvino_computes_what_int8_leaves_in_bf16_where_the_processor_has_it(monkeypatch, capabilities, hint):
    monkeypatch.setattr(providers, "capabilities", lambda device: frozenset(capabilities.split()))

    assert f'"INFERENCE_PRECISION_HINT": "{hint}"' in options_of("openvino", precision="int8")["load_config"]


def test_openvinos_gpu_gets_no_threads_of_the_cpu():
    config = json.loads(options_of("openvino:gpu")["load_config"])

    assert list(config) == ["GPU"]
    assert "INFERENCE_NUM_THREADS" not in config["GPU"]


def test_openvino_keeps_compiled_models_where_it_can_write(tmp_path):
    (tmp_path / "file").touch()

    kept, lost = (
        json.loads(options_of("openvino", cache_dir=folder)["load_config"])["CPU"].get("CACHE_DIR")
        for folder in (tmp_path, tmp_path / "file")
    )

    assert kept == str(tmp_path / "openvino")
    assert Path(kept).is_dir()
    assert lost is None


@pytest.mark.parametrize("device", providers.DEVICE_CHOICES)
def test_every_device_is_parsed_to_itself(device):
    assert providers.parse_device(device) == device


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("plugin:openvino", "openvino"),
        ("plugin:WebGpuExecutionProvider", "plugin:webgpu"),
        ("plugin:onnxruntime-qnn", "plugin:qnn"),
    ],
)
def test_a_plugin_is_named_by_its_package_or_provider_too(text, device):
    assert providers.parse_device(text) == device


@pytest.mark.parametrize("text", ["openvimo", "plugin:", "plugin:webgpo", "openvino:tpu", "OpenVINOExecutionProvider"])
def test_an_unknown_device_is_refused_with_a_suggestion(text):
    with pytest.raises(DeviceError, match=r"unknown device .* [Cc]hoose one of auto, cpu, cuda"):
        providers.parse_device(text)


def test_an_unknown_option_goes_to_the_provider_unchecked_with_a_suggestion():
    options = SessionOptions("cuda", provider_options={"gpu_memory_limit": "1", "brand_new": "x"})

    assert options_of("cuda", provider_options=options.provider_options)["brand_new"] == "x"
    assert unknown_options(options) == [
        "gpu_memory_limit is passed to CUDAExecutionProvider unchecked, did you mean gpu_mem_limit?",
        "brand_new is passed to CUDAExecutionProvider unchecked",
    ]


@pytest.mark.parametrize(
    ("key", "tensorrt", "cuda"),
    [("trt_brand_new", True, False), ("brand_new", False, True), ("device_id", True, True)],
)
def test_beside_tensorrt_unknown_options_are_routed_by_their_prefix(key, tensorrt, cuda):
    (_, first), (_, second) = provider_chain(SessionOptions("tensorrt", provider_options={key: "7"}), VISION)

    assert (first.get(key) == "7", second.get(key) == "7") == (tensorrt, cuda)


def test_options_that_every_table_lists_need_no_warning():
    given = {"trt_builder_optimization_level": "5", "gpu_mem_limit": "1"}

    assert unknown_options(SessionOptions("tensorrt", provider_options=given)) == []


@pytest.mark.parametrize(
    ("device", "key", "owner"),
    [("cpu", "gpu_mem_limit", "device cuda"), ("cuda", "trt_fp16_enable", "device tensorrt")],
)
def test_an_option_that_belongs_to_another_device_is_refused_with_that_device(device, key, owner):
    with pytest.raises(DeviceError, match=f"{key} is an option of .*: choose {owner}"):
        SessionOptions(device, provider_options={key: "1"})


# A list of providers


def test_a_list_of_providers_is_used_as_it_is_without_defaults():
    providers = parse_providers(["CUDAExecutionProvider", ("CPUExecutionProvider", {"x": 1})])
    options = SessionOptions("cuda", providers=providers)

    assert provider_chain(options, VISION) == [("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {"x": "1"})]
    assert options.chain == ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(("given", "captured"), [({}, False), ({"enable_cuda_graph": 1}, True)])
def test_cuda_graphs_of_a_list_of_providers_are_those_that_its_options_ask_for(given, captured):
    options = SessionOptions("cuda", providers=parse_providers([("CUDAExecutionProvider", given)]))

    assert options.cuda_graph is captured


@pytest.mark.parametrize(
    ("provider", "device"),
    [("CPUExecutionProvider", "cpu"), ("CUDAExecutionProvider", "cuda"), ("QNNExecutionProvider", "other")],
)
def test_the_first_provider_decides_graph_and_memory(provider, device):
    assert device_of(provider) == device


@pytest.mark.parametrize("providers", [[], "CUDAExecutionProvider", 7, [7], [("CUDAExecutionProvider",)]])
def test_what_is_not_a_list_of_providers_is_refused_with_an_example(providers):
    with pytest.raises(DeviceError, match=r"give a list such as \['CUDAExecutionProvider'\]"):
        parse_providers(providers)


@pytest.mark.parametrize(
    ("device", "provider_options", "providers", "message"),
    [
        ("cuda", None, ["CPUExecutionProvider"], "providers takes the place of device"),
        ("auto", {"a": "1"}, ["CPUExecutionProvider"], "providers takes the place of device"),
        ("auto", {"a": "1"}, None, "name the device"),
    ],
)
def test_options_that_leave_the_provider_open_are_refused(device, provider_options, providers, message):
    with pytest.raises(DeviceError, match=message):
        check_choice(device, provider_options, providers)


# Pairs of the command line


def test_pairs_become_options():
    assert parse_provider_options(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("pairs", [["gpu_mem_limit"], ["=1"], ["a=1", "a=2"]])
def test_a_pair_without_key_or_value_or_given_twice_is_refused(pairs):
    with pytest.raises(DeviceError, match=r"key=value|twice"):
        parse_provider_options(pairs)
