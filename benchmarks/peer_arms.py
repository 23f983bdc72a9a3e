"""Ways to run the model that benchmarks/peers.py compares: their packages, files and loading."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import records
import vision_arms

from xclip_runtime.util.cpus import instruction_sets, int8_is_fast

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray
    from processes import Run

TORCH = ("torch", "transformers")
ORT = ("onnxruntime",)
OPENVINO = ("openvino",)
PLUGIN = ("onnxruntime", "onnxruntime-ep-openvino")


@dataclass(frozen=True)
class Peer:
    """One way to run the model."""

    what: str
    precision: str
    packages: tuple[str, ...]
    """Packages needed to run it."""
    made_with: tuple[str, ...] = ()
    """Packages needed to make its files, besides torch and transformers."""


PEERS = {
    "torch-fp32": Peer("transformers, torch eager fp32", "fp32", TORCH),
    "torch-bf16": Peer("transformers, torch eager bf16", "bf16", TORCH),
    "compile-fp32": Peer("torch.compile fp32", "fp32", TORCH),
    "compile-bf16": Peer("torch.compile bf16", "bf16", TORCH),
    "plain": Peer("plain torch.onnx export, ONNX Runtime", "fp32", ORT),
    "optimizer": Peer("the same after onnxruntime.transformers' optimizer", "fp32", ORT, ("onnx",)),
    "dynamic": Peer("the same after quantize_dynamic, per channel", "int8", ORT, ("onnx",)),
    "openvino-fp32": Peer("OpenVINO fp32", "fp32", OPENVINO),
    "openvino-bf16": Peer("OpenVINO bf16", "bf16", OPENVINO),
    "openvino-int8": Peer("OpenVINO int8 (NNCF, transformer preset)", "int8", OPENVINO, ("nncf",)),
    "openvino-int8-bf16": Peer("the same, what is not int8 in bf16", "int8", OPENVINO, ("nncf",)),
    "portable-fp32": Peer("portable graph of xclip-onnx in OpenVINO, fp32", "fp32", OPENVINO),
    "portable-bf16": Peer("the same, bf16", "bf16", OPENVINO),
    "portable-int8": Peer("portable int8 graph of xclip-onnx in OpenVINO", "int8", OPENVINO),
    "ours-openvino-bf16": Peer("xclip-onnx bf16, device openvino", "bf16", PLUGIN),
    "ours-openvino-int8": Peer("xclip-onnx int8, device openvino", "int8", PLUGIN),
    "ours-fp32": Peer("xclip-onnx fp32", "fp32", ORT),
    "ours-int8": Peer("xclip-onnx int8", "int8", ORT),
}
OURS = ("ours-fp32", "ours-int8")
PRODUCTS = {
    "gemm-torch": Peer("matrix product, torch", "fp32", TORCH),
    "gemm-onnxruntime": Peer("matrix product, ONNX Runtime", "fp32", ORT),
    "gemm-openvino": Peer("matrix product, OpenVINO", "fp32", OPENVINO),
    "gemm-bf16-torch": Peer("matrix product, torch", "bf16", TORCH),
    "gemm-bf16-openvino": Peer("matrix product, OpenVINO", "bf16", OPENVINO),
    "gemm-int8-onnxruntime": Peer("matrix product, ONNX Runtime", "int8", ORT),
    "gemm-int8-torch": Peer("matrix product, torch", "int8", TORCH),
}
RUNTIME = ("av", "click", "numpy", "opencv-python-headless", "rich", "onnxruntime")
END_TO_END = {
    "e2e-transformers": Peer("transformers, its processor, PyAV", "fp32", (*TORCH, "av", "pillow")),
    "e2e-ours-fp32": Peer("xclip-onnx fp32", "fp32", RUNTIME),
    "e2e-ours-int8": Peer("xclip-onnx int8", "int8", RUNTIME),
}
MATRIX = (768, 3072)
PORTABLE, QDQ = "ours-portable.onnx", "ours-qdq.onnx"
OPENVINO_ARMS = {
    "openvino-bf16": ("openvino-fp32.xml", "bf16"),
    "openvino-int8-bf16": ("openvino-int8.xml", "bf16"),
    "portable-fp32": (PORTABLE, "f32"),
    "portable-bf16": (PORTABLE, "bf16"),
    "portable-int8": (QDQ, ""),
}
"""File and precision hint of arms that use OpenVINO itself; no hint takes bf16 where the CPU has it."""


def missing(peer: Peer) -> str | None:
    """Name the packages of a peer that are not installed, or the instructions that the CPU lacks, or return None."""
    names = [name for name in (*peer.packages, *peer.made_with) if not _installed(name)]
    if names:
        return f"not installed: {', '.join(names)}"
    # torch would be many times slower than in fp32, OpenVINO would compute in fp32.
    if peer.precision == "bf16" and {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(instruction_sets()):
        return "this CPU has no bf16 instructions"
    slow = peer.precision == "int8" and "torch" in peer.packages and int8_is_fast() is False
    return "this CPU has no int8 dot products" if slow else None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def installed_mb(packages: tuple[str, ...], *, ours: bool = False) -> float:
    """Size on disk of packages and their dependencies, MB of 10**6 bytes; ``ours`` adds this runtime."""
    files = {path for path in (records.ROOT / "runtime").rglob("*") if path.is_file()} if ours else set[Path]()
    for name in _closure(packages):
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            if path.is_file():
                files.add(path.resolve())
    return sum(file.stat().st_size for file in files) / 1e6


def _closure(packages: tuple[str, ...]) -> set[str]:
    """Collect the packages and their installed dependencies, without extras."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name in found or not _installed(name):
            continue
        found.add(name)
        required = [r for r in importlib.metadata.requires(name) or () if "extra ==" not in r]
        waiting += [re.split(r"[^\w.-]", r, maxsplit=1)[0].lower() for r in required]
    return found


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Write the missing files of all arms."""
    vision_arms.prepare(options, folder, outliers=False)
    if not (folder / "checkpoint").exists():
        vision_arms.seeded(options).save_pretrained(folder / "checkpoint")
    _write_portable_graphs(options, folder)
    plain = folder / "plain.onnx"
    if _installed("onnx") and not (folder / "optimizer.onnx").exists():
        from onnxruntime.transformers import optimizer

        heads = {"num_heads": 12, "hidden_size": 768}
        optimizer.optimize_model(str(plain), model_type="clip", opt_level=1, **heads).save_model_to_file(
            str(folder / "optimizer.onnx"), use_external_data_format=False
        )
    if _installed("onnx") and not (folder / "dynamic.onnx").exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(plain, folder / "dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
    if not (folder / "gemm-int8.onnx").exists():
        _write_int8_product(folder / "gemm-int8.onnx")


def _write_portable_graphs(options: argparse.Namespace, folder: Path) -> None:
    """Write our graphs for OpenVINO as `xclip_export` writes them to a bundle, unless it has not changed since."""
    import onnx
    import onnxscript.optimizer

    from xclip_export.calibration import calibration_clips, observe
    from xclip_export.graph import copy_reshaped_dimensions
    from xclip_export.optimum_config import export_tower
    from xclip_export.qdq import QdqVisionGraph
    from xclip_export.towers import VisionTower

    portable, qdq = folder / PORTABLE, folder / QDQ
    if records.is_current(qdq):  # the last one
        return
    mean, std = vision_arms.MEAN, vision_arms.STD
    model = vision_arms.seeded(options)
    export_tower(model, "vision", portable, mean=mean, std=std)
    traced = onnxscript.optimizer.optimize(onnx.load(portable))
    copy_reshaped_dimensions(traced)
    onnx.save(traced, portable)
    tower = VisionTower(model, mean, std).eval()
    clips = calibration_clips(options.frames, model.config.vision_config.image_size)
    onnx.save(QdqVisionGraph(tower, observe(tower, clips)).build(), qdq)
    records.mark_current(qdq)


def _write_int8_product(path: Path) -> None:
    """Write a MatMulInteger of uint8 by int8, the product that VNNI accelerates."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).integers(-127, 128, MATRIX, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["M", MATRIX[0]])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, ["M", MATRIX[1]])],
        [numpy_helper.from_array(weights, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def prepare_end_to_end(options: argparse.Namespace, folder: Path) -> None:
    """Write a checkpoint with CLIP's tokenizer and its bundle, unless the current exporter has made them."""
    if records.is_current(folder / "bundle"):
        return
    sys.path.insert(0, str(records.ROOT / "tests"))
    from helpers.checkpoints import write_seeded_checkpoint
    from xclip_export import export_bundle

    shape = {"num_frames": options.frames, "patch_size": options.patch, "vision_layers": options.layers}
    if not (folder / "checkpoint").exists():
        write_seeded_checkpoint(folder / "checkpoint", **shape)
    export_bundle(
        str(folder / "checkpoint"),
        folder / "bundle",
        labels_file="hmdb51",
        precisions=("fp32", "int8"),
        overwrite=True,
        progress=say,
    )
    records.mark_current(folder / "bundle")


def say(message: str) -> None:
    """Print progress on standard error."""
    print(message, file=sys.stderr)


def load(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    """Load one arm as a function of uint8 frames or a path, so that its time includes its preprocessing."""
    if arm.startswith("gemm"):
        return _load_product(arm, folder, options)
    if arm.startswith("e2e"):
        return _load_end_to_end(arm, folder, options)
    if arm.startswith(("torch", "compile")):
        return _load_torch(arm, folder, options)
    if arm in OPENVINO_ARMS:
        return _load_openvino(arm, folder, options)
    if arm.startswith("ours-openvino"):
        return _load_plugin(arm, folder, options)
    return vision_arms.load(arm, folder, options)


def _load_openvino(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    import openvino

    core, (file, precision) = openvino.Core(), OPENVINO_ARMS[arm]
    model, prepared = core.read_model(folder / file), vision_arms.normalised
    if file in (PORTABLE, QDQ):
        _, *shape = model.input(0).partial_shape
        model.reshape([1, *shape])
        prepared = np.asarray
    if not precision:
        precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    request = _openvino_request(model, precision, options)

    def infer(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        outputs = request.infer({0: prepared(clip)})
        return outputs[0], outputs[1]

    return infer


def _load_plugin(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    from xclip_runtime.inference.providers import SessionOptions
    from xclip_runtime.inference.session import Session

    precision = arm.rpartition("-")[2]
    session = Session(
        folder / (QDQ if precision == "int8" else PORTABLE),
        SessionOptions("openvino", options.threads, precision=precision, cache_dir=folder),
    )

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        outputs = session.run({"pixel_values": clip})
        return outputs["video_embeds"], outputs["img_features"]

    return run


def _openvino_request(model: Any, precision: str, options: argparse.Namespace) -> Any:
    """Create an inference request of this precision.

    Raises:
        RuntimeError: OpenVINO uses another precision on this CPU.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": options.threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken != precision:
        message = f"OpenVINO computes in {taken} on this CPU"
        raise RuntimeError(message)
    return compiled.create_infer_request()


def _load_torch(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    import torch
    from transformers import XCLIPModel

    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if arm.endswith("bf16") else torch.float32
    vision = vision_arms.vision_of(XCLIPModel.from_pretrained(folder / "checkpoint", dtype=dtype))
    if arm.startswith("compile"):
        vision = torch.compile(vision)

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            video_embeds, img_features = vision(torch.from_numpy(vision_arms.normalised(clip)).to(dtype))
        return video_embeds.float().numpy(), img_features.float().numpy()

    return run


def _load_product(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    multiply = _product(arm, folder, options)

    def run(_: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        for _ in range(vision_arms.GEMM_REPEATS):
            multiply()
        return np.empty(0, np.float32), np.empty(0, np.float32)

    return run


def _product(arm: str, folder: Path, options: argparse.Namespace) -> Callable[[], object]:
    """Build the product of all rows of a clip with the first weight of an MLP."""
    if arm in vision_arms.GEMMS:
        return vision_arms.load_gemm(arm, options)
    shape = options.frames * 197, MATRIX[0]
    rng = np.random.default_rng(0)
    if arm == "gemm-int8-onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(folder / "gemm-int8.onnx", settings, providers=["CPUExecutionProvider"])
        pixels = rng.integers(0, 256, shape, np.uint8)
        return lambda: session.run(None, {"a": pixels})
    if arm.endswith("openvino"):
        import openvino
        from openvino import opset13

        a = opset13.parameter(shape, np.float32)
        product = opset13.matmul(a, opset13.constant(rng.standard_normal(MATRIX, np.float32)), False, False)
        request = _openvino_request(openvino.Model([product], [a]), "bf16" if "bf16" in arm else "f32", options)
        request.set_input_tensor(openvino.Tensor(rng.standard_normal(shape, np.float32)))
        return request.infer  # type: ignore[no-any-return]
    import torch

    torch.set_num_threads(options.threads)
    if arm == "gemm-int8-torch":
        codes = [torch.from_numpy(rng.integers(-127, 128, each, np.int8)) for each in (shape, MATRIX)]
        return lambda: torch._int_mm(*codes)  # noqa: SLF001 - torch's only name for it
    halves = [torch.from_numpy(rng.standard_normal(each, np.float32)).bfloat16() for each in (shape, MATRIX)]
    return lambda: torch.mm(*halves)


def _load_end_to_end(arm: str, folder: Path, options: argparse.Namespace) -> Any:
    """Load a function from a video's path to probabilities (N,), written as a user would."""
    if arm.startswith("e2e-ours"):
        from xclip_runtime import XClip

        model = XClip(folder / "bundle", "cpu", arm.rpartition("-")[2], threads=options.threads)  # type: ignore[arg-type]
        place = {label: index for index, label in enumerate(model.labels)}

        def classify(video: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            ranked = sorted(model.classify(video, top_k=None).labels, key=lambda score: place[score.label])
            return np.array([score.prob for score in ranked], np.float32), np.empty(0, np.float32)

        return classify
    import av
    import torch
    from transformers import XCLIPModel, XCLIPProcessor

    torch.set_num_threads(options.threads)
    model_, processor = (c.from_pretrained(folder / "checkpoint") for c in (XCLIPModel, XCLIPProcessor))
    texts = json.loads((folder / "bundle/labels.json").read_text("utf-8"))["texts"]

    def read_video_pyav(container: Any, indices: list[int]) -> list[NDArray[np.uint8]]:
        frames = {}
        for i, frame in enumerate(container.decode(video=0)):
            if i > indices[-1]:
                break
            if i in indices:
                frames[i] = frame.to_ndarray(format="rgb24")
        return [frames[i] for i in indices]

    def answer(video: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with av.open(video) as container:
            total = container.streams.video[0].frames
            indices = [(2 * i + 1) * total // (2 * options.frames) for i in range(options.frames)]
            clip = read_video_pyav(container, indices)
        # The documentation says videos=, which transformers 4.57 silently ignores.
        inputs = processor(text=texts, images=clip, return_tensors="pt", padding=True)
        with torch.no_grad():
            probs = model_(**inputs).logits_per_video.softmax(dim=1)
        return probs[0].numpy(), np.empty(0, np.float32)

    return answer
