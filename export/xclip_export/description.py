"""Describe an export: its manifest, the facts in each graph, and the configuration beside them."""

from __future__ import annotations

import importlib.metadata
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import onnx

from xclip_export.optimum_config import OPSET
from xclip_runtime._version import __version__
from xclip_runtime.bundle import sha256_of
from xclip_runtime.inference.installation import onnxruntime_version
from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xclip_export.checkpoint import Checkpoint
    from xclip_export.graph_specs import GraphSpec, WrittenGraph
    from xclip_export.parity import Parity
    from xclip_runtime.bundle import LabelSet
    from xclip_runtime.video import Profile

TOOLS = ("torch", "transformers", "optimum-onnx", "onnx")


def graph_facts(checkpoint: Checkpoint, spec: GraphSpec) -> dict[str, str]:
    """Return the facts that a graph carries, by which a single file can be identified."""
    return {
        "xclip_onnx_version": __version__,
        "tower": spec.tower,
        "precision": spec.precision,
        "target": spec.target,
        "source": checkpoint.public_name,
        "source_revision": checkpoint.revision or "",
        "source_sha256": checkpoint.sha256,
        "num_frames": str(checkpoint.num_frames),
        "image_size": str(checkpoint.image_size),
    }


def write_descriptions(checkpoint: Checkpoint, labels: LabelSet, profile: Profile, folder: Path) -> None:
    """Write configuration, preprocessing, labels and tokenizer of a bundle."""
    (folder / "config.json").write_bytes((checkpoint.folder / "config.json").read_bytes())
    size = checkpoint.image_size
    write_json(
        folder / "preprocessor_config.json",
        {
            **checkpoint.preprocessor,
            "size": {"shortest_edge": size},
            # Without it, transformers crops 336-pixel models to 224.
            "crop_size": {"height": size, "width": size},
            "num_frames": checkpoint.num_frames,
            "profile": profile,
            "sampling": "uniform",
        },
    )
    write_json(folder / "labels.json", {"names": labels.names, "texts": labels.texts})
    checkpoint.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def manifest(checkpoint: Checkpoint, folder: Path, graphs: Sequence[WrittenGraph], chain: Parity) -> dict[str, Any]:
    """Return the manifest of a bundle, but for the digests of its files."""
    model = checkpoint.model
    return {
        "source": {
            "checkpoint": checkpoint.public_name,
            "revision": checkpoint.revision,
            "sha256": checkpoint.sha256,
            "licence": checkpoint.licence,
        },
        "tools": {
            "xclip-onnx": __version__,
            **{name: importlib.metadata.version(name) for name in TOOLS},
            # Asked of the module: its wheel has several names.
            "onnxruntime": onnxruntime_version(),
        },
        "opset": OPSET,
        "model": {
            "num_frames": checkpoint.num_frames,
            "image_size": checkpoint.image_size,
            "patch_size": int(model.config.vision_config.patch_size),
            "projection_dim": int(model.config.projection_dim),
            "logit_scale": float(model.logit_scale.detach().exp()),
        },
        "labels_sha256": sha256_of(folder / "labels.json"),
        "text_tower_sha256": _text_digest(checkpoint, graphs),
        "chain_parity": chain.to_dict(),
        "graphs": {graph.spec.name: _describe_graph(folder, graph) for graph in graphs},
    }


def _text_digest(checkpoint: Checkpoint, graphs: Sequence[WrittenGraph]) -> str:
    digest = checkpoint.text_tower_sha256
    halved = any((graph.spec.tower, graph.spec.precision) == ("text", "fp16") for graph in graphs)
    return sha256(f"{digest} fp16".encode()).hexdigest() if halved else digest


def _describe_graph(folder: Path, graph: WrittenGraph) -> dict[str, Any]:
    body = onnx.load(graph.path, load_external_data=False).graph
    return {
        "file": graph.path.relative_to(folder).as_posix(),
        "data_files": [file.relative_to(folder).as_posix() for file in graph.data_files],
        "tower": graph.spec.tower,
        "precision": graph.spec.precision,
        "target": graph.spec.target,
        "inputs": [_describe_tensor(value) for value in body.input],
        "outputs": [_describe_tensor(value) for value in body.output],
        "parity": graph.parity.to_dict(),
    }


def _describe_tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
    }
