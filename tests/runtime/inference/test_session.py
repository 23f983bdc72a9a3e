"""Threads follow the container, and a requested device runs or raises."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import SimpleNamespace

import pytest

from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import DeviceError, MissingExtraError
from xclip_runtime.inference import graphs, installation, providers, session
from xclip_runtime.inference.providers import SessionOptions, candidate_devices
from xclip_runtime.inference.session import Session
from xclip_runtime.model import XClip

GRAPH = DEMO_BUNDLE / "onnx/prompt_model.onnx"


class FakeInferenceSession:
    """A session that, like ONNX Runtime's, comes up on the CPU without a word when CUDA does not work."""

    def __init__(self, *_args, **_kwargs):
        pass

    def disable_fallback(self):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"]


@pytest.fixture
def gpu_wheel_without_gpu(monkeypatch):
    import onnxruntime

    fake = SimpleNamespace(
        __version__="1.0",
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        OrtValue=onnxruntime.OrtValue,
        RunOptions=onnxruntime.RunOptions,
        InferenceSession=FakeInferenceSession,
        set_default_logger_severity=lambda severity: None,
    )
    monkeypatch.setattr(installation, "onnxruntime", lambda: fake)
    monkeypatch.setattr(providers, "available_providers", fake.get_available_providers)
    monkeypatch.setattr(installation, "loading_error", lambda provider: None)
    monkeypatch.setattr(installation, "preload_libraries", lambda: None)
    return fake


def test_a_session_reports_names_types_and_shapes():
    loaded = Session(GRAPH, SessionOptions("cpu"))

    assert loaded.provider == "CPUExecutionProvider"
    assert [i.name for i in loaded.inputs] == ["video_embeds", "img_features", "text_embeds"]
    assert loaded.outputs[0].shape == ("batch_size", "num_labels")


def test_a_lone_graph_is_identifiable_by_its_metadata():
    metadata = Session(GRAPH, SessionOptions("cpu")).metadata

    assert metadata["tower"] == "prompt"
    assert metadata["precision"] == "fp32"
    assert len(metadata["source_sha256"]) == 64


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_this_wheel_lacks_is_refused_with_the_install_command(device):
    with pytest.raises(DeviceError, match="pip"):
        Session(GRAPH, SessionOptions(device))


def test_cuda_that_falls_back_to_the_cpu_is_an_error(gpu_wheel_without_gpu):
    with pytest.raises(DeviceError, match="fell back to CPUExecutionProvider"):
        Session(GRAPH, SessionOptions("cuda"))


def test_onnx_runtime_is_silent_only_while_it_loads_a_provider(gpu_wheel_without_gpu, monkeypatch):
    severities = []
    monkeypatch.setattr(gpu_wheel_without_gpu, "set_default_logger_severity", severities.append)

    class Loading(FakeInferenceSession):
        def __init__(self, *_args, **_kwargs):
            severities.append("loads")

    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", Loading)
    with suppress(DeviceError):
        Session(GRAPH, SessionOptions("cuda"))

    fatal, warning = 4, 2
    assert severities == [fatal, "loads", warning]


def test_a_provider_that_fails_is_an_error_with_nothing_on_stdout_and_no_second_try(
    gpu_wheel_without_gpu, monkeypatch, capfd
):
    import onnxruntime

    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", onnxruntime.InferenceSession)
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", refuse)

    with pytest.raises(DeviceError, match="no such device"):
        Session(GRAPH, SessionOptions("cuda"))
    assert capfd.readouterr().out == ""


def refuse(*_args, **_kwargs):
    message = "no such device"
    raise ValueError(message)


def test_auto_falls_back_and_says_so_at_warning(gpu_wheel_without_gpu, monkeypatch, caplog):
    import onnxruntime

    def open_session(*args, providers, **kwargs):
        if providers == [("CPUExecutionProvider", {})]:
            return onnxruntime.InferenceSession(*args, providers=providers, **kwargs)
        return FakeInferenceSession()

    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", open_session)
    with caplog.at_level(logging.WARNING):
        model = XClip(DEMO_BUNDLE, device="auto")

    assert model.provider == "CPUExecutionProvider"
    assert [r.message for r in caplog.records if "does not use cuda" in r.message]


def test_auto_without_a_gpu_wheel_is_the_cpu_and_says_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        assert candidate_devices("auto") == ("cpu",)
    assert not caplog.records


def test_an_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        candidate_devices("gpu")


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")

    with pytest.raises(DeviceError, match="cannot load"):
        Session(tmp_path / "broken.onnx", SessionOptions("cpu"))


def test_without_onnxruntime_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[cpu\]"):
        Session(GRAPH, SessionOptions("cpu"))


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads):
    with pytest.raises(ValueError, match=r"^threads is .*at least 1"):
        SessionOptions("cpu", threads=threads)


def test_threads_that_the_user_gives_are_used():
    assert Session(GRAPH, SessionOptions("cpu", threads=1)).threads == 1


@pytest.mark.parametrize(("goal", "spinning"), [("throughput", "0"), ("latency", "1")])
def test_idle_threads_spin_for_latency_alone(goal, spinning):
    import onnxruntime

    options = session._ort_options(onnxruntime, SessionOptions("cpu", optimize_for=goal))

    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning


def test_an_unknown_goal_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="latency, throughput"):
        SessionOptions("cpu", optimize_for="speed")


def test_no_operator_may_fall_to_the_cpu_on_another_device():
    import onnxruntime

    options = session._ort_options(onnxruntime, SessionOptions("cuda"))

    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


# The user's own providers and session options

AZURE = "AzureExecutionProvider"
"""Built into every wheel, and runs none of our operators."""


def own(*providers_, **fields):
    parsed = providers.parse_providers(list(providers_))
    return SessionOptions(providers.device_of(parsed[0][0]), providers=parsed, **fields)


def test_a_list_of_providers_runs_as_it_is():
    assert Session(GRAPH, own("CPUExecutionProvider")).provider == "CPUExecutionProvider"


def test_a_provider_that_this_wheel_lacks_is_refused_in_a_list_too():
    with pytest.raises(
        DeviceError, match=r"the list of providers needs NoSuchProvider, which this onnxruntime .* was built without"
    ):
        Session(GRAPH, own("NoSuchProvider", "CPUExecutionProvider"))


def test_nodes_may_run_on_the_cpu_only_if_the_list_names_it():
    with pytest.raises(DeviceError, match=f"cannot load .* on {AZURE}"):
        Session(GRAPH, own(AZURE))


@pytest.mark.skipif(
    not hasattr(__import__("onnxruntime").InferenceSession, "get_provider_graph_assignment_info"),
    reason="this ONNX Runtime does not report the provider of each node",
)
def test_a_first_provider_that_runs_nothing_is_a_fallback_too():
    with pytest.raises(DeviceError, match=f"{AZURE} takes no node"):
        Session(GRAPH, own(AZURE, "CPUExecutionProvider"))


def test_a_list_that_begins_with_cuda_never_ends_on_the_cpu_unnoticed(gpu_wheel_without_gpu):
    with pytest.raises(DeviceError, match="CUDAExecutionProvider could not be started, ONNX Runtime fell back to CPU"):
        XClip(DEMO_BUNDLE, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("provider", "device"),
    [("CPUExecutionProvider", "cpu"), ("CUDAExecutionProvider", "cuda"), ("QNNExecutionProvider", "other")],
)
def test_the_first_provider_of_a_list_decides_which_graph_is_loaded(monkeypatch, provider, device):
    select, asked = graphs.select_vision_graph, []

    def note(bundle, device, precision):
        asked.append(device)
        return select(bundle, device, precision)

    monkeypatch.setattr(graphs, "select_vision_graph", note)
    with suppress(DeviceError):
        XClip(DEMO_BUNDLE, providers=[provider, "CPUExecutionProvider"])

    assert asked == [device]


def test_config_entries_win_over_the_defaults_and_never_over_the_ban_on_fallback():
    import onnxruntime

    entries = {"session.intra_op.allow_spinning": 1, "session.disable_cpu_ep_fallback": "0", "mine": "x"}
    options = session._ort_options(onnxruntime, SessionOptions("cuda", session_options=entries))

    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert options.get_session_config_entry("mine") == "x"


def test_session_options_of_onnxruntime_take_the_place_of_the_defaults():
    import onnxruntime

    mine = onnxruntime.SessionOptions()
    mine.intra_op_num_threads = 1
    mine.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = Session(GRAPH, SessionOptions("cpu", session_options=mine))

    assert loaded.threads == 1
    assert loaded._session.get_session_options().graph_optimization_level == mine.graph_optimization_level


def test_threads_that_are_named_beside_session_options_are_set_in_them():
    import onnxruntime

    mine = onnxruntime.SessionOptions()

    assert Session(GRAPH, SessionOptions("cpu", threads=2, session_options=mine)).threads == 2


def test_the_ban_on_fallback_is_set_in_the_users_session_options_too():
    import onnxruntime

    mine = onnxruntime.SessionOptions()
    session._ort_options(onnxruntime, SessionOptions("cuda", session_options=mine))

    assert mine.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


def test_session_options_that_served_a_gpu_serve_the_cpu_afterwards():
    """As they have to, when device auto falls back."""
    import onnxruntime

    mine = onnxruntime.SessionOptions()
    session._ort_options(onnxruntime, SessionOptions("cuda", session_options=mine))

    assert Session(GRAPH, SessionOptions("cpu", session_options=mine)).provider == "CPUExecutionProvider"


def test_other_session_options_are_refused_with_the_two_kinds():
    with pytest.raises(DeviceError, match=r"^session_options is .*give an onnxruntime\.SessionOptions, or a mapping"):
        Session(GRAPH, SessionOptions("cpu", session_options=["a"]))


def test_a_provider_option_that_onnxruntime_refuses_is_suggested_in_its_right_spelling(
    gpu_wheel_without_gpu, monkeypatch
):
    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", refuse)
    monkeypatch.setattr(installation, "gpus", lambda: (installation.Gpu("L4", "1", "1"),))

    with pytest.raises(DeviceError, match=r"no such device.*did you mean gpu_mem_limit"):
        Session(GRAPH, SessionOptions("cuda", provider_options={"gpu_memory_limit": "1"}))


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_load_is_refused_before_onnxruntime_falls_back(
    gpu_wheel_without_gpu, monkeypatch, device
):
    error = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    gpu_wheel_without_gpu.get_available_providers = lambda: [*providers.CHAIN_OF["tensorrt"], "CPUExecutionProvider"]
    monkeypatch.setattr(installation, "loading_error", lambda provider: error)

    with pytest.raises(DeviceError, match=r"libcublasLt\.so\.13: cannot open.*\): pip install"):
        Session(GRAPH, SessionOptions(device))


def test_nodes_on_another_provider_are_named(gpu_wheel_without_gpu, monkeypatch):
    stray = SimpleNamespace(
        ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type="Shape", name="shape_1")]
    )

    class Partly(FakeInferenceSession):
        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self):
            return [SimpleNamespace(ep_name="CUDAExecutionProvider"), stray]

    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", Partly)
    with pytest.raises(DeviceError, match="CPUExecutionProvider instead of CUDAExecutionProvider runs Shape shape_1"):
        Session(GRAPH, SessionOptions("cuda"))


def test_a_driver_without_a_gpu_is_said_to_be_one(gpu_wheel_without_gpu, monkeypatch):
    def refuse(*args, **kwargs):
        message = "This session contains graph nodes that are assigned to the default CPU EP"
        raise RuntimeError(message)

    monkeypatch.setattr(gpu_wheel_without_gpu, "InferenceSession", refuse)
    monkeypatch.setattr(installation, "gpus", lambda: None)
    with pytest.raises(DeviceError, match="nvidia-smi shows no GPU: check the driver"):
        Session(GRAPH, SessionOptions("cuda"))


def test_a_first_tensorrt_build_is_announced_and_a_second_is_not(tmp_path, caplog):
    options, graph = SessionOptions("tensorrt", cache_dir=tmp_path), providers.GraphFile("ab" * 32)
    with session._notice_of_a_build(options, graph):
        pass
    assert "takes minutes" in caplog.text
    assert str(tmp_path) in caplog.text

    caplog.clear()
    (providers.engine_folder(options, graph) / "x.engine").touch()
    with session._notice_of_a_build(options, graph):
        pass
    assert caplog.text == ""


def test_a_long_build_says_again_that_it_goes_on(monkeypatch):
    import threading

    said, twice = [], threading.Event()

    def note(*args):
        said.append(args)
        if len(said) == 2:
            twice.set()

    monkeypatch.setattr(session.logger, "warning", note)
    with session.still_going("still building", every=0.001):
        assert twice.wait(60)
    assert said[0][1] == "still building"
