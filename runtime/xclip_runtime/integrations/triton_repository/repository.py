"""Write a model repository.

REPO/
xclip/         config.pbtxt  labels.txt  1/               the ensemble: pixel_values → logits_per_video, video_embeds
xclip_vision/  config.pbtxt  1/model.onnx                 a vision graph of the bundle, unchanged
xclip_prompt/  config.pbtxt  labels.txt  1/model.onnx     the prompt graph with the label embeddings
config.json                                               the same for OVMS; Triton ignores files at this level
xclip-onnx.json                                           the bundle and the options it was written from
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import LabelsError, RepositoryError
from xclip_runtime.inference.graphs import select_vision_graph
from xclip_runtime.integrations.triton_repository import configs
from xclip_runtime.integrations.triton_repository.messages import initializer, to_pbtxt
from xclip_runtime.util.atomic import replaced_folder, write_json
from xclip_runtime.util.plain_text import lines
from xclip_runtime.util.renamed import renamed

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.providers import Compute, Device

MARK = "xclip-onnx.json"
FORMAT = "xclip-onnx-model-repository"
CONFIG = "config.pbtxt"
VERSION = "1"
OURS = frozenset({configs.VISION, configs.PROMPT, configs.ENSEMBLE, MARK, "config.json"})


@dataclass(frozen=True)
class ModelRepository:
    """A written model repository."""

    path: Path
    vision_graph: str
    """The bundle's vision graph."""
    files: Mapping[str, int]
    """Size in bytes by path relative to the repository."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``export-triton --json`` document."""
        return {"repository": str(self.path), "vision_graph": self.vision_graph, "files": dict(self.files)}


@renamed(batch="batch_size", target="output")
def export_repository(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    device: Device = "cpu",
    precision: Compute | None = None,
    batch_size: int | None = None,
    batch_delay: float = 0.002,
    instances: int = 1,
    overwrite: bool = False,
) -> ModelRepository:
    """Write a model repository from a bundle.

    Args:
        bundle: Folder written by ``xclip-onnx export``.
        output: Folder of the repository; must not exist, be empty, or be an earlier export.
        device: Device of the models. "cpu" and "cuda" take the graphs fused for ONNX Runtime; "tensorrt" and
            "openvino" take the portable one, which OVMS needs.
        precision: See `xclip_runtime.XClip`.
        batch_size: Maximum batch size; None takes 1 on the CPU and 8 on a GPU.
        batch_delay: Time that a clip may wait for its batch to fill, seconds.
        instances: Instances of each model on each device.
        overwrite: Replace an earlier export once the new one is complete.

    Raises:
        BundleError: The bundle is missing, changed, or lacks the precision.
        LabelsError: A label has more than one line.
        RepositoryError: ``output`` exists and may not be replaced.
    """
    target = Path(output)
    _check_target(target, overwrite=overwrite)
    opened = Bundle.open(bundle)
    vision, prompt = select_vision_graph(opened, device, precision), opened.graph("prompt", "fp32")
    if batch_size is None:
        batch_size = 8 if device in ("cuda", "tensorrt") else 1
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
        vision_io, device, computed, batch_size=batch_size, batch_delay=batch_delay, instances=instances
    )
    prompt_config = configs.prompt_config(prompt_io, len(names), device, batch_size=batch_size, instances=instances)
    ensemble_config = configs.ensemble_config(vision_io, prompt_io, len(names), batch_size, facts)

    with replaced_folder(target) as folder:
        _add_model(folder / configs.VISION, vision_config)
        _copy_graph(opened, vision, folder / configs.VISION / VERSION)
        _add_model(folder / configs.PROMPT, prompt_config, labels)
        _copy_graph(opened, prompt, folder / configs.PROMPT / VERSION)
        with (folder / configs.PROMPT / VERSION / "model.onnx").open("ab") as graph:
            graph.write(initializer(configs.TEXT_EMBEDS, opened.text_embeds))
        _add_model(folder / configs.ENSEMBLE, ensemble_config, labels)
        # Triton requires the version folder of an ensemble; object stores and git do not keep empty folders.
        (folder / configs.ENSEMBLE / VERSION / ".keep").touch()
        write_json(folder / "config.json", configs.ovms_config())
        write_json(folder / MARK, {"format": FORMAT, "device": device, **facts})
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    return ModelRepository(target, vision.file, files)


def _label_lines(names: tuple[str, ...]) -> str:
    broken = next((name for name in names if len(lines(name)) != 1), None)
    if broken is not None:
        message = (
            f"label {broken!r} is not one line, as Triton's label file requires: rename it and export the bundle again"
        )
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
        # The graph references its weights by paths relative to itself.
        target = folder / (bundle.path / name).relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, target)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    contents = {path.name for path in target.iterdir()} if target.is_dir() else None
    if contents == set():
        return
    if contents is None or MARK not in contents or not contents <= OURS:
        message = f"{target} contains other files: choose another folder"
        raise RepositoryError(message)
    if not overwrite:
        message = f"{target} exists: choose another folder, or pass --overwrite"
        raise RepositoryError(message)
