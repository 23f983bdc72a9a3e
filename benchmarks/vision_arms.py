"""Vision tower of X-CLIP in every form that benchmarks/cpu.py measures, with its clips, labels and operation counts."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from records import is_current, mark_current

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from processes import Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = 51
# Roofline: a large fp32 product, by the faster of the two.
GEMMS = ("gemm-torch", "gemm-onnxruntime")


def normalised(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalise uint8 (1, T, H, W, 3) to float32 pixel_values (1, T, 3, H, W), as transformers takes them."""
    x = (clip.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3), dtype=np.float32)


def evaluation_clips(frames: int, size: int, count: int, seed: int = 1000) -> list[NDArray[np.uint8]]:
    """Make clips unseen by calibration, uint8 (1, T, H, W, 3): video in other colours and order, noise, textures."""
    from xclip_export.calibration import calibration_clips

    rng, clips = np.random.default_rng(seed), []
    video = calibration_clips(frames, size)[0]
    for index in range(count):
        if index % 2:
            clip = calibration_clips(frames, size, seed + index)[2]
        else:
            clip = np.roll(video, (rng.integers(size), rng.integers(size)), axis=(1, 2))[rng.permutation(frames)]
            clip = 255 * (clip[..., rng.permutation(3)] / 255) ** rng.uniform(0.4, 2.5)
        noise = rng.normal(0, rng.uniform(0, 30), clip.shape)
        clips.append(np.clip(clip + noise, 0, 255).astype(np.uint8)[None])
    return clips


def seeded(options: argparse.Namespace, *, outliers: bool = False) -> Any:
    """Build the seeded model of the run, or its outlier twin."""
    from xclip_export.seeded import outlier_twin, seeded_config, seeded_model

    config = seeded_config(
        num_frames=options.frames, patch_size=options.patch, vision_layers=options.layers, text_layers=1
    )
    model = seeded_model(config)
    return outlier_twin(model, gain=60.0) if outliers else model


def vision_of(model: Any) -> Any:
    """Wrap the vision tower and MIT of transformers in one module: pixel_values to video_embeds, img_features."""
    import torch

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            frames = pixel_values.shape[1]
            output = self.model.vision_model(pixel_values=pixel_values.reshape(-1, *pixel_values.shape[2:]))
            projected = self.model.visual_projection(output[1])
            video_embeds = self.model.mit(projected.view(-1, frames, projected.shape[-1]))[1]
            features = self.model.prompts_visual_layernorm(output[0][:, 1:]) @ self.model.prompts_visual_projection
            return video_embeds, features.view(-1, frames, *features.shape[1:]).mean(dim=1)

    return Vision().eval()


def prepare(options: argparse.Namespace, folder: Path, *, outliers: bool) -> None:
    """Write the missing files of all arms, and rewrite ours if the exporter has changed."""
    import torch

    from xclip_export.calibration import calibration_clips
    from xclip_export.cpu import fused_vision_model
    from xclip_export.int8 import int8_vision_model
    from xclip_export.towers import VisionTower
    from xclip_export.writer import save_graph

    torch.set_num_threads(options.threads)
    folder.mkdir(parents=True, exist_ok=True)
    model = seeded(options, outliers=outliers)
    size = model.config.vision_config.image_size
    plain = folder / "plain.onnx"
    if not plain.exists():
        example = torch.zeros(1, options.frames, 3, size, size)
        names = {"input_names": ["pixel_values"], "output_names": ["video_embeds", "img_features"]}
        with torch.no_grad():
            torch.onnx.export(vision_of(model), (example,), str(plain), dynamo=False, opset_version=18, **names)
    tower = VisionTower(model, MEAN, STD).eval()
    for name, build in (("ours-fp32", fused_vision_model), ("ours-int8", int8_vision_model)):
        if is_current(folder / f"{name}.onnx"):
            continue
        started = time.perf_counter()
        save_graph(build(tower), folder / f"{name}.onnx", {})
        mark_current(folder / f"{name}.onnx")
        print(f"{name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if importlib.util.find_spec("openvino") and not (folder / "openvino-fp32.xml").exists():
        import openvino

        converted = openvino.convert_model(plain, input=[1, options.frames, 3, size, size])
        openvino.save_model(converted, folder / "openvino-fp32.xml", compress_to_fp16=False)
    if has_openvino() and not (folder / "openvino-int8.xml").exists():
        import nncf
        import openvino

        converted = openvino.Core().read_model(folder / "openvino-fp32.xml")
        clips = [normalised(clip[None]) for clip in calibration_clips(options.frames, size)]
        quantised = nncf.quantize(
            converted, nncf.Dataset(clips), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(clips)
        )
        openvino.save_model(quantised, folder / "openvino-int8.xml", compress_to_fp16=False)


def has_openvino() -> bool:
    """Return True if OpenVINO and NNCF are installed."""
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


def load(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    """Load one arm as a function of uint8 frames, so that its time includes its normalisation."""
    if arm in GEMMS:
        multiply = load_gemm(arm, options)

        def repeat(_: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            for _ in range(GEMM_REPEATS):
                multiply()
            return np.empty(0, np.float32), np.empty(0, np.float32)

        return repeat
    if arm == "transformers":
        import torch

        torch.set_num_threads(options.threads)
        vision = vision_of(seeded(options))

        def eager(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with torch.no_grad():
                video_embeds, img_features = vision(torch.from_numpy(normalised(clip)))
            return video_embeds.numpy(), img_features.numpy()

        return eager
    if arm.startswith("openvino"):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": options.threads}
        request = openvino.Core().compile_model(folder / f"{arm}.xml", "CPU", settings).create_infer_request()

        def infer(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            outputs = request.infer({0: normalised(clip)})
            return outputs[0], outputs[1]

        return infer
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / f"{arm}.onnx", settings, providers=["CPUExecutionProvider"])
    prepared = np.asarray if arm.startswith("ours") else normalised

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        video_embeds, img_features = session.run(None, {"pixel_values": prepared(clip)})
        return video_embeds, img_features

    return run


def load_gemm(arm: str, options: argparse.Namespace) -> Callable[[], object]:
    """Build the product of all rows of a clip with the first weight of an MLP."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((options.frames * 197, 768), (768, 3072)))
    if arm == "gemm-torch":
        import torch

        torch.set_num_threads(options.threads)
        return lambda: torch.mm(torch.from_numpy(a), torch.from_numpy(b))
    import onnxruntime

    from xclip_export.graph import GraphBuilder

    graph = GraphBuilder("gemm")
    graph.node("MatMul", [graph.input("a", np.float32, list(a.shape)), graph.constant("b", b)], "product")
    graph.output("product", np.float32, [len(a), b.shape[1]])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    model = graph.model().SerializeToString()
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


GEMM_REPEATS = 20


def gemm_flops(options: argparse.Namespace) -> float:
    """Count the floating-point operations of one turn of the matrix product."""
    return 2.0 * options.frames * 197 * 768 * 3072 * GEMM_REPEATS


def clip_flops(options: argparse.Namespace) -> float:
    """Count the floating-point operations of vision tower and MIT for one clip: two per multiply-add."""
    grid = 224 // options.patch
    patches, dim, width = grid**2, 768, 512
    tokens, frames = 1 + patches, options.frames
    attention = (2 * tokens + 2 * (tokens + 1)) * dim**2 + 2 * tokens * (tokens + 1) * dim
    message = 5 * dim**2 + 2 * frames * dim
    layer = attention + 8 * tokens * dim**2 + message
    embed = patches * dim * 3 * options.patch**2 + dim * width
    once = patches * dim * width + frames * 12 * width**2 + 2 * frames**2 * width
    return 2.0 * (frames * (options.layers * layer + embed) + once)


class Labels:
    """Logits for seeded label embeddings, from the checkpoint's prompt tower in torch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from xclip_export.towers import PromptTower

        self.prompt = PromptTower(seeded(options)).eval()
        dim = self.prompt.config.projection_dim
        self.texts = torch.randn(LABELS, dim, generator=torch.Generator().manual_seed(2))

    def __call__(self, outputs: tuple[NDArray[np.float32], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Map the vision graph's outputs for one clip to logits (N,)."""
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self.prompt(*map(torch.from_numpy, outputs), self.texts).numpy()
        return logits[0]
