"""Parity gate: compare every graph with the checkpoint in torch fp32 before anything is written.

The reference is transformers' ``XCLIPModel.forward`` on ``pixel_values`` from transformers' image processor, made from
the same uint8 frames, and on token ids padded to the full context. So the gate checks the uint8 contract, the folded
normalisation and the truncated labels together with the graphs.

All tolerances are on logits, cosine times exp(logit_scale) ≈ 100, which show errors that a cosine hides.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from transformers import VideoMAEImageProcessor

from xclip_export.graph import element_types
from xclip_runtime.errors import ParityError
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session
from xclip_runtime.selftest import golden_clip
from xclip_runtime.video import FrameTransform, read_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_export.checkpoint import Checkpoint

    Floats = NDArray[np.float32]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.05}
"""Largest |Δlogit| of a graph, by precision. int8 is opt-in and reports its error instead."""

LAYER_TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}
"""Relative error above which a layer's output counts as wrong; rounding alone gives a hundredth of it."""

HALF_RANGE = 65504.0 / 2
"""Largest magnitude allowed in an fp16 tensor on the parity clips: half of fp16's range, as headroom for others."""

MAGNITUDE = ".magnitude"

REAL_FRAMES = "bigbuckbunny-excerpt.mp4"


@dataclass(frozen=True)
class Parity:
    """Errors of one graph relative to the checkpoint."""

    max_abs_logit: float
    """Largest |Δlogit| over clips and labels."""

    p50_abs_logit: float
    """Median |Δlogit| over clips and labels."""

    p99_abs_logit: float
    """99th percentile of |Δlogit| over clips and labels."""

    cosine: float
    """Smallest cosine between an output row of the graph and the checkpoint's."""

    top1_agreement: float
    """Share of clips whose best label is the checkpoint's."""

    tolerance: float | None
    """Largest |Δlogit| allowed; None if the error is only reported."""

    passed: bool

    max_abs_activation: float | None = None
    """Largest magnitude in any fp16 tensor inside the graph; None if it has none."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to numbers for the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Outputs:
    """Outputs of the towers for C clips and N labels, from torch or from ONNX.

    Attributes:
        video_embeds: (C, D), not normalised.
        img_features: (C, P, D).
        text_embeds: (N, D), not normalised.
        logits_per_video: (C, N).
    """

    video_embeds: Floats
    img_features: Floats
    text_embeds: Floats
    logits_per_video: Floats


def parity_clips(num_frames: int, image_size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Make the clips of the gate: noise, decoded video, and the video with one frame off by at most two grey levels.

    The noise is the clip of the runtime's self-test.

    Returns:
        uint8 RGB (3, T, H, W, 3).
    """
    noise = golden_clip(num_frames, image_size)
    with resources.as_file(resources.files("xclip_export") / "data" / REAL_FRAMES) as path:
        real = read_clip(path, num_frames=num_frames, transform=FrameTransform("videox", image_size)).frames
    near = real.copy()
    middle = num_frames // 2
    near[middle] = np.clip(real[middle] + np.random.default_rng(seed).integers(-2, 3, real[middle].shape), 0, 255)
    return np.stack([noise, real, near])


class TorchReference:
    """Forward pass of transformers on uint8 frames.

    Args:
        checkpoint: The model in fp32.
        texts: N texts, one a label.
    """

    def __init__(self, checkpoint: Checkpoint, texts: Sequence[str]) -> None:
        self.model = checkpoint.model
        self.input_ids = checkpoint.tokenize(texts, pad_to_context=True)
        self._processor = VideoMAEImageProcessor(
            do_resize=False, do_center_crop=False, image_mean=list(checkpoint.mean), image_std=list(checkpoint.std)
        )

    @torch.no_grad()
    def __call__(self, clip: NDArray[np.uint8]) -> Outputs:
        """Run one clip, uint8 RGB (T, H, W, 3), and record the outputs of each tower."""
        caught: dict[str, torch.Tensor] = {}

        def catch_prompt_inputs(_: object, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
            caught["text_embeds"], caught["img_features"] = inputs[0][0], inputs[1]

        def catch_video_embeds(_: object, __: object, output: Mapping[int, torch.Tensor]) -> None:
            caught["video_embeds"] = output[1]

        with ExitStack() as hooks:
            hooks.callback(self.model.prompts_generator.register_forward_pre_hook(catch_prompt_inputs).remove)
            hooks.callback(self.model.mit.register_forward_hook(catch_video_embeds).remove)
            logits = self._forward(clip)
        return Outputs(logits_per_video=logits, **{name: tensor.numpy() for name, tensor in caught.items()})

    @torch.no_grad()
    def layers(self, clip: NDArray[np.uint8]) -> list[Floats]:
        """Run one clip, and record the output of every vision layer, each (T, 1 + P, d)."""
        outputs: list[Floats] = []
        with ExitStack() as hooks:
            for layer in self.model.vision_model.encoder.layers:
                hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output[0].numpy()))
                hooks.callback(hook.remove)
            self._forward(clip)
        return outputs

    @torch.no_grad()
    def logits(self, outputs: Outputs) -> Floats:
        """Compute logits (C, N) from embeddings with the checkpoint's own prompt generator."""
        video, features = torch.from_numpy(outputs.video_embeds), torch.from_numpy(outputs.img_features)
        text = torch.from_numpy(outputs.text_embeds).expand(len(video), -1, -1)
        text = text + self.model.prompts_generator(text, features)
        cosine = torch.cosine_similarity(video[:, None], text, dim=-1)
        logits: Floats = (self.model.logit_scale.exp() * cosine).numpy()
        return logits

    def _forward(self, clip: NDArray[np.uint8]) -> Floats:
        pixel_values = self._processor(list(clip), return_tensors="pt")["pixel_values"]
        output = self.model(input_ids=self.input_ids, pixel_values=pixel_values, return_dict=True)
        logits: Floats = output.logits_per_video.numpy()
        return logits


class Gate:
    """Comparison of graphs with the checkpoint; every ``check_`` raises ParityError outside tolerance.

    Args:
        checkpoint: The model in fp32.
        texts: N texts, one a label.
        clips: uint8 RGB (C, T, H, W, 3), C ≥ 3; see `parity_clips`.
    """

    def __init__(self, checkpoint: Checkpoint, texts: Sequence[str], clips: NDArray[np.uint8]) -> None:
        self._torch = TorchReference(checkpoint, texts)
        self.clips = clips
        self._input_ids = checkpoint.tokenize(texts).numpy()
        self.reference = _stack([self._torch(clip) for clip in clips])

    def check_vision(self, graph: Path, precision: str) -> tuple[Parity, Outputs]:
        """Check a vision graph by the logits that torch computes from its outputs.

        The first two clips run as one batch and the others alone, so that a graph whose outputs depend on the rest of
        the batch cannot pass.
        """
        run = Session(graph, SessionOptions("cpu")).run
        batches = [self.clips[:2], *(clip[None] for clip in self.clips[2:])]
        rows = [run({"pixel_values": batch}) for batch in batches]
        found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        outputs = self.complete(**found)
        parity = compare(outputs, self.reference, ("video_embeds", "img_features"), precision)
        self._require_sight(graph, outputs)
        if precision == "fp16":
            parity = replace(parity, max_abs_activation=largest_activation(graph, self.clips[:2]))
        if not parity.passed:
            raise out_of_tolerance(graph, parity, self._moved_layer(graph, precision))
        return parity, outputs

    def check_prompt(self, graph: Path) -> Parity:
        """Check the prompt graph on the checkpoint's own embeddings, all clips in one batch."""
        parity = self._compare_logits(self._run_prompt(graph, self.reference))
        if not parity.passed:
            raise out_of_tolerance(graph, parity, "the prompt generator")
        return parity

    def check_text(self, graph: Path, precision: str = "fp32") -> tuple[Parity, Floats]:
        """Check the text graph, on ids padded to the longest label, by the logits that torch computes from them."""
        embeds = Session(graph, SessionOptions("cpu")).run({"input_ids": self._input_ids})["text_embeds"]
        parity = compare(self.complete(text_embeds=embeds), self.reference, ("text_embeds",), precision)
        if not parity.passed:
            raise out_of_tolerance(graph, parity, "the text encoder")
        return parity, embeds

    def check_chain(self, prompt: Path, vision: Outputs, text_embeds: Floats, precision: str = "fp32") -> Parity:
        """Check the three graphs together, from frames and token ids to logits, given the outputs of the first two.

        ``precision`` is that of the vision graph.
        """
        outputs = Outputs(vision.video_embeds, vision.img_features, text_embeds, vision.logits_per_video)
        parity = self._compare_logits(self._run_prompt(prompt, outputs), precision)
        if not parity.passed:
            raise out_of_tolerance(prompt, parity, "the chain of graphs, each of which passed alone")
        return parity

    def _run_prompt(self, graph: Path, inputs: Outputs) -> Floats:
        feeds = {name: getattr(inputs, name) for name in ("video_embeds", "img_features", "text_embeds")}
        return Session(graph, SessionOptions("cpu")).run(feeds)["logits_per_video"]

    def _compare_logits(self, logits: Floats, precision: str = "fp32") -> Parity:
        return compare(self.complete(logits_per_video=logits), self.reference, ("logits_per_video",), precision)

    def complete(self, **found: Floats) -> Outputs:
        """Fill the outputs that a graph lacks with the reference's, and compute the logits in torch."""
        outputs = Outputs(**{**vars(self.reference), **found})
        if "logits_per_video" in found:
            return outputs
        return Outputs(**{**vars(outputs), "logits_per_video": self._torch.logits(outputs)})

    def _require_sight(self, graph: Path, outputs: Outputs) -> None:
        for other in (0, 2):
            if np.array_equal(outputs.logits_per_video[1], outputs.logits_per_video[other]):
                message = f"{graph.name} gives different clips equal logits, it ignores its input: nothing was written"
                raise ParityError(message)

    def _moved_layer(self, graph: Path, precision: str) -> str:
        """Name the first vision layer whose output differs from the checkpoint's, on the first clip."""
        probes = _layer_outputs(onnx.load(graph))
        found = _run_with_outputs(graph, probes, self.clips[:1])
        for index, (name, wanted) in enumerate(zip(probes, self._torch.layers(self.clips[0]), strict=True)):
            got = found[name].reshape(wanted.shape)
            off = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
            if not off <= LAYER_TOLERANCE[precision]:
                return f"the output of layers.{index} (by {off:.2g} of its norm)"
        return "something after the last encoder layer"


def compare(outputs: Outputs, reference: Outputs, compared: Sequence[str], precision: str) -> Parity:
    """Measure the errors of outputs relative to a reference; cosines are those of the ``compared`` fields."""
    delta = np.abs(outputs.logits_per_video - reference.logits_per_video)
    best, wanted = outputs.logits_per_video.argmax(-1), reference.logits_per_video.argmax(-1)
    tolerance = TOLERANCE.get(precision)
    worst = float(delta.max())
    return Parity(
        max_abs_logit=worst,
        p50_abs_logit=float(np.percentile(delta, 50)),
        p99_abs_logit=float(np.percentile(delta, 99)),
        cosine=min(_smallest_cosine(getattr(outputs, name), getattr(reference, name)) for name in compared),
        top1_agreement=float((best == wanted).mean()),
        tolerance=tolerance,
        # A NaN compares as False, and fails.
        passed=bool(np.isfinite(worst)) if tolerance is None else worst <= tolerance,
    )


def _smallest_cosine(found: Floats, wanted: Floats) -> float:
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (found, wanted))
    return float(((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).min())


def _stack(rows: Sequence[Outputs]) -> Outputs:
    return Outputs(
        video_embeds=np.concatenate([row.video_embeds for row in rows]),
        img_features=np.concatenate([row.img_features for row in rows]),
        text_embeds=rows[0].text_embeds,
        logits_per_video=np.concatenate([row.logits_per_video for row in rows]),
    )


def out_of_tolerance(graph: Path, parity: Parity, culprit: str) -> ParityError:
    """Make the error of a graph that is out of its tolerance."""
    return ParityError(
        f"{graph.name} is off by {parity.max_abs_logit:.3g} in a logit, {parity.tolerance} is allowed; "
        f"the first to differ is {culprit}: nothing was written"
    )


def _layer_outputs(model: onnx.ModelProto) -> list[str]:
    """Find the output tensor of each vision layer, by its name or as the last output of the layer's scope."""
    named: dict[int, str] = {}
    scoped: dict[int, str] = {}
    for node in model.graph.node:
        for name in node.output:
            if match := re.fullmatch(r"layers\.(\d+)\.(?:group\.)?output", name):
                named[int(match[1])] = name
        if match := re.match(r"/layers\.(\d+)/", node.name):
            scoped[int(match[1])] = node.output[0]
    found = named or scoped
    return [found[index] for index in sorted(found)]


def largest_activation(graph: Path, clips: NDArray[np.uint8]) -> float:
    """Find the largest magnitude of an fp16 tensor of a vision graph on clips, uint8 (N, T, H, W, 3).

    Raises:
        ParityError: A tensor is not finite or over `HALF_RANGE`; the first one in the graph's order is named.
    """
    worst = 0.0
    for clip in clips:
        for name, largest in _run_probe(graph, _add_magnitudes, clip[None]).items():
            if not largest <= HALF_RANGE:
                message = (
                    f"{graph.name} reaches {float(largest):.3g} in {name.removesuffix(MAGNITUDE)}, too close to the "
                    "limit of fp16 (65504): export this checkpoint without --precision fp16"
                )
                raise ParityError(message)
            worst = max(worst, float(largest))
    return worst


def _add_magnitudes(model: onnx.ModelProto) -> None:
    """Replace the outputs by the largest magnitude of every fp16 tensor, in order; NaN counts as infinite."""
    types, graph = element_types(model), model.graph
    halves = [name for node in graph.node for name in node.output if types.get(name) == onnx.TensorProto.FLOAT16]
    del graph.output[:]
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.inf), "infinity"))
    for name in halves:
        largest = f"{name}{MAGNITUDE}"
        wide, nan, magnitude, counted = (f"{largest}.{step}" for step in ("float", "nan", "abs", "counted"))
        graph.node.append(onnx.helper.make_node("Cast", [name], [wide], to=onnx.TensorProto.FLOAT))
        graph.node.append(onnx.helper.make_node("Abs", [wide], [magnitude]))
        # ReduceMax alone drops a NaN that is not the first value.
        graph.node.append(onnx.helper.make_node("IsNaN", [wide], [nan]))
        graph.node.append(onnx.helper.make_node("Where", [nan, "infinity", magnitude], [counted]))
        graph.node.append(onnx.helper.make_node("ReduceMax", [counted], [largest], keepdims=0))
        graph.output.append(onnx.helper.make_empty_tensor_value_info(largest))


def _run_with_outputs(graph: Path, names: Sequence[str], pixel_values: NDArray[np.uint8]) -> Mapping[str, Floats]:
    def show(model: onnx.ModelProto) -> None:
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)

    return _run_probe(graph, show, pixel_values)


def _run_probe(
    graph: Path, change: Callable[[onnx.ModelProto], None], pixel_values: NDArray[np.uint8]
) -> Mapping[str, Floats]:
    """Run a changed copy of a graph."""
    model = onnx.load(graph)
    change(model)
    probe = graph.with_name(f"{graph.stem}.probe.onnx")
    onnx.save(model, probe, save_as_external_data=True, location=f"{probe.name}_data")
    try:
        return Session(probe, SessionOptions("cpu")).run({"pixel_values": pixel_values})
    finally:
        probe.unlink()
        probe.with_name(f"{probe.name}_data").unlink(missing_ok=True)
