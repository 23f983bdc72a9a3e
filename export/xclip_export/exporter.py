"""Export a checkpoint as a bundle: towers, graphs, parity, files."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnxscript.optimizer

from xclip_export.calibration import calibration_clips, observe
from xclip_export.checkpoint import describe_checkpoint, load_weights
from xclip_export.cpu import fused_vision_model
from xclip_export.description import graph_facts, manifest, write_descriptions
from xclip_export.fp16 import fp16_vision_model
from xclip_export.graph import copy_reshaped_dimensions, halve_weights
from xclip_export.graph_specs import (
    HEAD_GRAPH,
    INT8_GRAPH,
    PROMPT_GRAPH,
    QDQ_GRAPH,
    TEXT_GRAPH,
    GraphSpec,
    WrittenGraph,
    vision_graphs,
)
from xclip_export.int8 import Int8VisionGraph
from xclip_export.optimum_config import export_tower
from xclip_export.parity import Gate, parity_clips
from xclip_export.qdq import QdqVisionGraph
from xclip_export.stream import head_model, stream_model
from xclip_export.stream_parity import StreamGate
from xclip_export.towers import VisionTower
from xclip_export.writer import WrittenWeights, save_graph, share_weights
from xclip_runtime.bundle import Bundle
from xclip_runtime.bundle.writer import bundle_folder, write_manifest
from xclip_runtime.errors import LabelsError, VideoNotFoundError
from xclip_runtime.text.labels import label_set, read_label_names
from xclip_runtime.util.atomic import write_bytes
from xclip_runtime.util.paths import videos_in
from xclip_runtime.util.renamed import renamed
from xclip_runtime.video import FrameTransform, read_clip

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from xclip_export.calibration import Observation
    from xclip_export.checkpoint import Checkpoint, Description
    from xclip_export.parity import Parity
    from xclip_runtime.bundle import LabelSet, Precision, Tower
    from xclip_runtime.inference.providers import Device
    from xclip_runtime.video import Profile

    Progress = Callable[[str], None]
    TextPrecision = Literal["fp32", "fp16"]
    SavedGraph = tuple[Path, tuple[Path, ...]]

SHARED_WEIGHTS = "vision_model_fp32.onnx_data"
MAX_CALIBRATION_CLIPS = 32
GOLDEN_LOGITS = 64
"""Number of logits that the manifest keeps for the self-test."""


@dataclass(frozen=True)
class ExportReport:
    """Files and parity of an export."""

    bundle: Path
    files: Mapping[str, int]
    """Size of every file in bytes, by its path in the bundle."""

    parity: Mapping[str, Parity]
    """By graph name; "chain" is uint8 frames and token ids to logits through all three."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``export --json`` document."""
        return {
            "bundle": str(self.bundle),
            "files": dict(self.files),
            "parity": {name: parity.to_dict() for name, parity in self.parity.items()},
        }


@renamed(labels="labels_file")
def export_bundle(
    source: str,
    output: str | os.PathLike[str],
    *,
    labels_file: str | None = None,
    template: str = "{}",
    revision: str | None = None,
    profile: Profile = "videox",
    precisions: Sequence[Precision] = ("fp32",),
    devices: Sequence[Device] = (),
    fused: bool = True,
    text_precision: TextPrecision = "fp32",
    stream: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda stage: None,  # noqa: ARG005
) -> ExportReport:
    """Export a checkpoint, compare every graph with it, and write a bundle.

    Args:
        source: Folder or hub id of a Hugging Face X-CLIP checkpoint.
        output: Folder of the bundle.
        labels_file: A file or "hmdb51" (see `xclip_runtime.text.labels.read_label_names`), or None for config.json's.
        template: Text with a ``{}`` for each label; the published checkpoints were trained on the bare name.
        revision: Branch, tag or commit of a hub repository.
        profile: Default preprocessing profile of the bundle.
        precisions: Vision graphs to write, beside the portable one unless ``devices`` are given.
        devices: Devices that will run the bundle: "cpu", "cuda", "tensorrt" or "openvino"; of the vision graphs in
            ``precisions``, only those that one of them runs are written. Empty for any device.
        fused: Write the fp32 graph that is fused for ONNX Runtime's CPU provider.
        text_precision: "fp16" stores the text tower's weights in half the space; it computes in fp32 either way.
        stream: Write a stream graph beside each vision graph, whose weights it shares, and the head graph.
        calibration: Folder of videos that set the activation scales of int8; None takes synthetic and embedded clips.
        overwrite: Replace an existing bundle.
        progress: Called with the name of each stage as it begins.

    Raises:
        BundleError: ``output`` exists, or no device runs one of the precisions.
        OutputLockedError: Another process is writing ``output``.
        CheckpointError: The checkpoint cannot be used.
        HubError: It cannot be downloaded.
        LabelsError: The labels cannot be used.
        VideoError: A calibration video cannot be read, or there is none.
        ParityError: A graph is out of tolerance; nothing is written.
    """
    target, wanted = Path(output), vision_graphs(precisions, devices, fused=fused)
    names = read_label_names(labels_file) if labels_file is not None else None
    # Before the checkpoint, which takes long: the target may be locked, or no place to write.
    with bundle_folder(target, source=Path(source), overwrite=overwrite) as folder:
        progress("loading the checkpoint")
        description = describe_checkpoint(source, revision)
        label_texts = label_set(names or _config_labels(description), template)
        description.tokenize(label_texts.texts)  # what is too long is refused before the weights are downloaded
        checkpoint = load_weights(description, progress)
        clips = None
        if calibration is not None:
            progress("reading the calibration videos")
            clips = _calibration_clips(Path(calibration), checkpoint, profile)
        bench = _Workbench(checkpoint, label_texts, folder, progress, calibration=clips, text_precision=text_precision)
        graphs, chain, golden = bench.write_graphs(wanted, stream=stream)
        progress("writing the bundle")
        write_descriptions(checkpoint, label_texts, profile, folder)
        write_manifest(folder, {**manifest(checkpoint, folder, graphs, chain), "golden_logits": golden})
    files = {entry.path: entry.size for entry in Bundle.open(target).files}
    return ExportReport(target, files, {**{g.spec.name: g.parity for g in graphs}, "chain": chain})


def _config_labels(checkpoint: Description) -> list[str]:
    if not checkpoint.label_names:
        message = (
            f"{checkpoint.name} has no labels in its config.json: pass --labels-file FILE, or --labels-file hmdb51"
        )
        raise LabelsError(message)
    return checkpoint.label_names


def _calibration_clips(folder: Path, checkpoint: Checkpoint, profile: Profile) -> list[NDArray[np.uint8]]:
    """Read the first videos of a folder, by name, as uint8 RGB (T, H, W, 3)."""
    videos = sorted(map(Path, videos_in(str(folder))))[:MAX_CALIBRATION_CLIPS]
    if not videos:
        message = f"no videos in {folder}: give a folder with a few typical ones"
        raise VideoNotFoundError(message)
    transform = FrameTransform(profile, checkpoint.image_size)
    return [read_clip(video, num_frames=checkpoint.num_frames, transform=transform).frames for video in videos]


class _Workbench:
    """Builder of the graphs of one export, which it saves and checks."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        labels: LabelSet,
        folder: Path,
        progress: Progress,
        *,
        calibration: Sequence[NDArray[np.uint8]] | None,
        text_precision: TextPrecision,
    ) -> None:
        self.checkpoint, self.labels, self.folder, self.progress = checkpoint, labels, folder, progress
        self.calibration, self.text_precision = calibration, text_precision

    @cached_property
    def tower(self) -> VisionTower:
        """The vision tower."""
        checkpoint = self.checkpoint
        return VisionTower(checkpoint.model, checkpoint.mean, checkpoint.std).eval()

    @cached_property
    def observations(self) -> Mapping[str, Observation]:
        """Ranges of the tower's activations on the calibration clips."""
        clips = self.calibration
        if clips is None:
            clips = calibration_clips(self.checkpoint.num_frames, self.checkpoint.image_size)
        return observe(self.tower, clips)

    def write_graphs(
        self, vision_specs: Sequence[GraphSpec], *, stream: bool
    ) -> tuple[list[WrittenGraph], Parity, list[float]]:
        """Write every graph and the label embeddings that the text graph gives.

        Returns:
            The graphs, the parity of the whole chain, and torch's logits for the runtime's self-test.
        """
        text_file, prompt_file = self._save(TEXT_GRAPH), self._save(PROMPT_GRAPH)
        self.progress("running the checkpoint in torch, for comparison")
        clips = parity_clips(self.checkpoint.num_frames, self.checkpoint.image_size)
        gate = Gate(self.checkpoint, self.labels.texts, clips)
        text, text_embeds = gate.check_text(text_file[0])
        _save_array(self.folder / "text_embeds.npy", text_embeds)
        graphs = [
            WrittenGraph(PROMPT_GRAPH, *prompt_file, gate.check_prompt(prompt_file[0])),
            self._halve_text(gate, text_file)
            if self.text_precision == "fp16"
            else WrittenGraph(TEXT_GRAPH, *text_file, text),
        ]
        files = self._save_vision_graphs(vision_specs)
        answers = []
        for spec, file in zip(vision_specs, files, strict=True):
            self.progress(f"comparing {spec.name} with the checkpoint")
            parity, outputs = gate.check_vision(file[0], spec.precision)
            graphs.append(WrittenGraph(spec, *file, parity))
            answers.append(outputs)
        if stream:
            graphs += self._write_stream_graphs(gate, vision_specs)
        golden = gate.reference.logits_per_video[0, :GOLDEN_LOGITS].tolist()
        chain = gate.check_chain(prompt_file[0], answers[0], text_embeds, vision_specs[0].precision)
        return graphs, chain, golden

    def _save_vision_graphs(self, specs: Sequence[GraphSpec]) -> list[SavedGraph]:
        """Save vision graphs, those in fp32 with one file for the weights that they have in common."""
        files = {spec: self._save(spec) for spec in specs}
        alike = [spec for spec in specs if spec.precision == "fp32"]
        shared = share_weights([files[spec][0] for spec in alike], self.folder / "onnx" / SHARED_WEIGHTS)
        return [(path, (*shared, *data) if spec in alike else data) for spec, (path, data) in files.items()]

    def _halve_text(self, gate: Gate, file: SavedGraph) -> WrittenGraph:
        """Replace the text graph by one that stores its weights in fp16."""
        spec, (path, data) = replace(TEXT_GRAPH, precision="fp16"), file
        model = halve_weights(onnx.load(path))
        for old in data:
            old.unlink()
        saved = save_graph(model, path, graph_facts(self.checkpoint, spec))
        return WrittenGraph(spec, path, saved, gate.check_text(path, spec.precision)[0])

    def _write_stream_graphs(self, gate: Gate, vision_specs: Sequence[GraphSpec]) -> list[WrittenGraph]:
        # On its own, since it runs behind the stream graph of any precision.
        head = self._save(HEAD_GRAPH)
        stream_gate = StreamGate(gate, self.tower, head[0])
        graphs = []
        for exact in vision_specs:
            spec = GraphSpec(exact.name.replace("vision", "stream"), "stream", exact.precision, exact.target)
            file = self._save(spec, WrittenWeights(self._path(exact)))
            self.progress(f"comparing {spec.name} with caching in torch")
            parity = stream_gate.check(file[0], self._path(exact), spec.precision)
            graphs.append(WrittenGraph(spec, *file, parity))
        # Of the most exact graph that it ran behind.
        return [*graphs, WrittenGraph(HEAD_GRAPH, *head, graphs[0].parity)]

    def _path(self, spec: GraphSpec) -> Path:
        return self.folder / "onnx" / f"{spec.name}.onnx"

    def _save(self, spec: GraphSpec, written: WrittenWeights | None = None) -> SavedGraph:
        self.progress(f"building {spec.name}")
        if spec == QDQ_GRAPH and self._path(INT8_GRAPH).exists():
            written = WrittenWeights(self._path(INT8_GRAPH))  # whose codes it shares
        return self._path(spec), save_graph(
            self._build(spec), self._path(spec), graph_facts(self.checkpoint, spec), written
        )

    def _build(self, spec: GraphSpec) -> onnx.ModelProto:
        if spec.tower == "head":
            return head_model(self.tower)
        if spec.tower == "stream":
            observations = self.observations if spec.precision == "int8" else {}
            return stream_model(self.tower, spec.precision, spec.target, observations)
        if spec.target == "any" and spec != QDQ_GRAPH:
            return self._trace(spec.tower)
        return self._author(spec)

    def _trace(self, tower: Tower) -> onnx.ModelProto:
        checkpoint = self.checkpoint
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / "traced.onnx"
            export_tower(checkpoint.model, tower, path, mean=checkpoint.mean, std=checkpoint.std)
            model: onnx.ModelProto = onnxscript.optimizer.optimize(onnx.load(path))
            copy_reshaped_dimensions(model)
            return model

    def _author(self, spec: GraphSpec) -> onnx.ModelProto:
        if spec.precision == "fp16":
            return fp16_vision_model(self.tower)
        if spec.precision == "int8":
            graph = QdqVisionGraph if spec == QDQ_GRAPH else Int8VisionGraph
            return graph(self.tower, self.observations).build()
        return fused_vision_model(self.tower)


def _save_array(path: Path, array: NDArray[np.float32]) -> None:
    """Write a .npy file; numpy itself would not tell why the system refuses."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())
