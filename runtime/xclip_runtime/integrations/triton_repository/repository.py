"""A model repository on disk, written whole or not at all.

REPO/
xclip/         config.pbtxt  labels.txt  1/               the ensemble: pixel_values → logits_per_video, video_embeds
xclip_vision/  config.pbtxt  1/model.onnx                 a vision graph of the bundle, as it is
xclip_prompt/  config.pbtxt  labels.txt  1/model.onnx     the prompt graph, with the labels' embeddings in it
config.json                                               the same for OVMS; Triton looks at folders only
xclip-onnx.json                                           what it was written from
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import LabelsError, RepositoryError
from xclip_runtime.inference.graphs import select_vision_graph
from xclip_runtime.inference.session import DEVICES
from xclip_runtime.integrations.triton_repository import configs
from xclip_runtime.integrations.triton_repository.constant import initializer
from xclip_runtime.integrations.triton_repository.pbtxt import to_pbtxt
from xclip_runtime.util.atomic import replaced_folder, write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.session import Compute, Device

__all__ = ["DEVICES", "Repository", "export_repository"]

MARK = "xclip-onnx.json"
FORMAT = "xclip-onnx-model-repository"
CONFIG = "config.pbtxt"
VERSION = "1"
OURS = frozenset({configs.VISION, configs.PROMPT, configs.ENSEMBLE, MARK, "config.json"})


@dataclass(frozen=True)
class Repository:
    """A repository that was written."""

    path: Path
    vision_graph: str
    """The bundle's file that the vision model is."""
    files: Mapping[str, int]
    """Sizes in bytes, by path relative to the repository."""

    def to_dict(self) -> dict[str, Any]:
        """The ``export-triton --json`` document."""
        return {"repository": str(self.path), "vision_graph": self.vision_graph, "files": dict(self.files)}


def export_repository(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    device: Device = "cpu",
    precision: Compute | None = None,
    batch: int | None = None,
    delay_us: int = 2000,
    instances: int = 1,
    overwrite: bool = False,
) -> Repository:
    """Write a model repository from a bundle.

    Args:
        bundle: Folder written by ``xclip-onnx export``.
        target: The repository; it must not exist, be empty, or be an earlier export.
        device: Where the models will run. "cpu" and "cuda" take the graphs that are fused for ONNX Runtime there;
            "tensorrt" and "openvino" take the portable one, which OVMS needs.
        precision: As for :class:`xclip_runtime.XClip`.
        batch: Most clips in one run; None takes 1 on the CPU and 8 on a GPU.
        delay_us: Microseconds that a clip may wait for others.
        instances: Copies of each model on each device.
        overwrite: Whether to replace an earlier export, once the new one is complete.

    Raises:
        BundleError: The bundle is missing, changed, or lacks the precision.
        LabelsError: A label cannot stand on one line.
        RepositoryError: ``target`` exists and may not be replaced.
    """
    target = Path(target)
    _check_target(target, overwrite=overwrite)
    opened = Bundle.open(bundle)
    vision, prompt = select_vision_graph(opened, device, precision), opened.graph("prompt", "fp32")
    if batch is None:
        batch = 8 if device in ("cuda", "tensorrt") else 1
    names = opened.labels.names
    labels = _label_lines(names)
    vision_io, prompt_io = configs.tensors(opened, vision), configs.tensors(opened, prompt)
    facts = {
        "vision_graph": vision.file,
        "profile": opened.preprocessor["profile"],
        "bundle_sha256": opened.digest,
    }
    computed = precision or vision.precision
    vision_config = configs.vision_config(
        vision_io, device, computed, batch=batch, delay_us=delay_us, instances=instances
    )
    prompt_config = configs.prompt_config(prompt_io, len(names), device, batch=batch, instances=instances)
    ensemble_config = configs.ensemble_config(vision_io, prompt_io, len(names), batch, facts)

    with replaced_folder(target) as folder:
        _add_model(folder / configs.VISION, vision_config)
        _copy_graph(opened, vision, folder / configs.VISION / VERSION)
        _add_model(folder / configs.PROMPT, prompt_config, labels)
        _copy_graph(opened, prompt, folder / configs.PROMPT / VERSION)
        with (folder / configs.PROMPT / VERSION / "model.onnx").open("ab") as graph:
            graph.write(initializer(configs.TEXT_EMBEDS, opened.text_embeds))
        _add_model(folder / configs.ENSEMBLE, ensemble_config, labels)
        # An ensemble has no file of its own, yet needs the folder; object stores and git forget empty ones.
        (folder / configs.ENSEMBLE / VERSION / ".keep").touch()
        write_json(folder / "config.json", configs.ovms_config())
        write_json(folder / MARK, {"format": FORMAT, "device": device, **facts})
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    return Repository(target, vision.file, files)


def _label_lines(names: tuple[str, ...]) -> str:
    broken = next((name for name in names if len(name.splitlines()) != 1), None)
    if broken is not None:
        message = f"label {broken!r} is not one line, as Triton's label file needs: export the bundle with another name"
        raise LabelsError(message)
    return "".join(f"{name}\n" for name in names)


def _add_model(folder: Path, config: Mapping[str, Any], labels: str | None = None) -> None:
    (folder / VERSION).mkdir(parents=True)
    (folder / CONFIG).write_text(to_pbtxt(config), encoding="utf-8")
    if labels is not None:
        (folder / configs.LABELS_FILE).write_text(labels, encoding="utf-8")


def _copy_graph(bundle: Bundle, graph: GraphEntry, folder: Path) -> None:
    source = bundle.checked_graph(graph)
    shutil.copyfile(source, folder / "model.onnx")
    for name in graph.data_files:
        # The graph names its weights relative to itself.
        beside = folder / (bundle.path / name).relative_to(source.parent)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, beside)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    held = {path.name for path in target.iterdir()} if target.is_dir() else None
    if held == set():
        return
    if held is None or MARK not in held or not held <= OURS:
        message = f"{target} exists and holds something else: name another folder, and move the models from there"
        raise RepositoryError(message)
    if not overwrite:
        message = f"{target} exists: name another folder, or pass --overwrite to replace it"
        raise RepositoryError(message)
