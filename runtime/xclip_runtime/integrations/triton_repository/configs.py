"""What Triton and OVMS are told about the models: config.pbtxt of each, and OVMS's config.json.

The fields are those of Triton's model_config.proto and of OVMS's "Directed Acyclic Graph scheduler".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import BundleSchemaError, PrecisionUnavailableError
from xclip_runtime.integrations.triton_repository.pbtxt import Symbol, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xclip_runtime.bundle import Bundle, GraphEntry
    from xclip_runtime.inference.session import Compute, Device

VISION, PROMPT, ENSEMBLE = "xclip_vision", "xclip_prompt", "xclip"
LABELS_FILE = "labels.txt"
TEXT_EMBEDS = "text_embeds"
PIXELS, FEATURES, LOGITS = "pixel_values", ("video_embeds", "img_features"), "logits_per_video"

_TYPES = {"float32": Symbol("TYPE_FP32"), "uint8": Symbol("TYPE_UINT8")}
_KINDS: Mapping[Device, Symbol] = {
    "cpu": Symbol("KIND_CPU"),
    "openvino": Symbol("KIND_CPU"),
    "cuda": Symbol("KIND_GPU"),
    "tensorrt": Symbol("KIND_GPU"),
}


def tensors(bundle: Bundle, graph: GraphEntry) -> Mapping[str, Mapping[str, Any]]:
    """Inputs and outputs of a graph by name, as Triton writes them: without the batch axis, -1 for what varies.

    Raises:
        BundleSchemaError: The manifest does not tell.
    """
    entry = bundle.manifest["graphs"][graph.name]
    try:
        return {
            tensor["name"]: {
                "name": tensor["name"],
                "data_type": _TYPES[tensor["dtype"]],
                "dims": [size if isinstance(size, int) else -1 for size in tensor["shape"][1:]],
            }
            for tensor in (*entry["inputs"], *entry["outputs"])
        }
    except KeyError as error:
        message = f"the manifest of {bundle.path} does not describe {graph.name} ({error}): export the bundle again"
        raise BundleSchemaError(message) from error


def vision_config(
    vision: Mapping[str, Any], device: Device, precision: Compute, *, batch: int, delay_us: int, instances: int
) -> Mapping[str, Any]:
    """config.pbtxt of the vision model, which batches requests as they come."""
    warm_sizes = [1, batch] if device in ("cuda", "tensorrt") and batch > 1 else [1]
    pixels = vision[PIXELS]
    zeros = {"data_type": pixels["data_type"], "dims": pixels["dims"], "zero_data": True}
    return {
        **_model(VISION, batch),
        "input": [pixels],
        "output": [vision[name] for name in FEATURES],
        "instance_group": [{"count": instances, "kind": _KINDS[device]}],
        "dynamic_batching": {"max_queue_delay_microseconds": delay_us},
        **_acceleration(device, precision),
        "model_warmup": [
            {"name": f"batch_{size}", "batch_size": size, "inputs": pairs({PIXELS: zeros})} for size in warm_sizes
        ],
    }


def prompt_config(
    prompt: Mapping[str, Any], labels: int, device: Device, *, batch: int, instances: int
) -> Mapping[str, Any]:
    """config.pbtxt of the prompt model, whose labels are in its graph."""
    zeros = {
        name: {"data_type": prompt[name]["data_type"], "dims": prompt[name]["dims"], "random_data": True}
        for name in FEATURES
    }
    return {
        **_model(PROMPT, batch),
        "input": [prompt[name] for name in FEATURES],
        "output": [{**prompt[LOGITS], "dims": [labels], "label_filename": LABELS_FILE}],
        "instance_group": [{"count": instances, "kind": _KINDS[device]}],
        "dynamic_batching": {},
        "model_warmup": [{"name": "batch_1", "batch_size": 1, "inputs": pairs(zeros)}],
    }


def ensemble_config(
    vision: Mapping[str, Any], prompt: Mapping[str, Any], labels: int, batch: int, facts: Mapping[str, str]
) -> Mapping[str, Any]:
    """config.pbtxt of the ensemble: pixels in; logits and the video's embedding out."""
    names = {name: name for name in FEATURES}
    return {
        "name": ENSEMBLE,
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": [vision[PIXELS]],
        "output": [{**prompt[LOGITS], "dims": [labels], "label_filename": LABELS_FILE}, vision["video_embeds"]],
        "parameters": pairs({key: {"string_value": value} for key, value in facts.items()}),
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": VISION,
                    "model_version": -1,
                    "input_map": pairs({PIXELS: PIXELS}),
                    "output_map": pairs(names),
                },
                {
                    "model_name": PROMPT,
                    "model_version": -1,
                    "input_map": pairs(names),
                    "output_map": pairs({LOGITS: LOGITS}),
                },
            ]
        },
    }


def ovms_config() -> Mapping[str, Any]:
    """OVMS's config.json: the two models, and the same ensemble as a pipeline."""
    # Where the CPU has bf16, OpenVINO would compute in it unasked: |Δlogit| 0.1 on motion-demo instead of 4e-6.
    plugin = {"INFERENCE_PRECISION_HINT": "f32"}
    return {
        "model_config_list": [
            {"config": {"name": name, "base_path": name, "plugin_config": plugin}} for name in (VISION, PROMPT)
        ],
        "pipeline_config_list": [
            {
                "name": ENSEMBLE,
                "inputs": [PIXELS],
                "nodes": [
                    _node("vision", VISION, {PIXELS: "request"}, FEATURES),
                    _node("prompt", PROMPT, dict.fromkeys(FEATURES, "vision"), [LOGITS]),
                ],
                "outputs": [
                    {LOGITS: {"node_name": "prompt", "data_item": LOGITS}},
                    {"video_embeds": {"node_name": "vision", "data_item": "video_embeds"}},
                ],
            }
        ],
    }


def _model(name: str, batch: int) -> Mapping[str, Any]:
    return {"name": name, "backend": "onnxruntime", "max_batch_size": batch}


def _acceleration(device: Device, precision: Compute) -> Mapping[str, Any]:
    """The execution provider inside Triton's ONNX Runtime, where it is not the kind's own."""
    if device == "openvino":
        if precision not in ("fp32", "int8"):
            message = f"Triton's OpenVINO accelerator has no option for {precision}: choose fp32"
            raise PrecisionUnavailableError(message)
        return {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}}
    if device != "tensorrt":
        return {}
    if precision not in ("fp32", "fp16"):
        message = f"Triton's TensorRT accelerator computes in fp32 or fp16, not in {precision}: choose one of those"
        raise PrecisionUnavailableError(message)
    accelerator = {"name": "tensorrt", "parameters": pairs({"precision_mode": precision.upper()})}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}}


def _node(name: str, model: str, inputs: Mapping[str, str], outputs: Sequence[str]) -> Mapping[str, Any]:
    return {
        "name": name,
        "model_name": model,
        "type": "DL model",
        "inputs": [{item: {"node_name": source, "data_item": item}} for item, source in inputs.items()],
        "outputs": [{"data_item": item, "alias": item} for item in outputs],
    }
