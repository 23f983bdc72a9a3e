"""Model configurations: config.pbtxt for Triton and config.json for OpenVINO Model Server (OVMS).

The fields are those of Triton's model_config.proto and of OVMS's "Directed Acyclic Graph scheduler".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import BundleSchemaError, PrecisionUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xclip_runtime.bundle import Bundle, GraphEntry
    from xclip_runtime.inference.providers import Compute, Device

VISION, PROMPT, ENSEMBLE = "xclip_vision", "xclip_prompt", "xclip"
LABELS_FILE = "labels.txt"
TEXT_EMBEDS = "text_embeds"
PIXELS, FEATURES, LOGITS = "pixel_values", ("video_embeds", "img_features"), "logits_per_video"

_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_KINDS: Mapping[Device, str] = {
    "cpu": "KIND_CPU",
    "openvino": "KIND_CPU",
    "cuda": "KIND_GPU",
    "tensorrt": "KIND_GPU",
}


def tensors(bundle: Bundle, graph: GraphEntry) -> Mapping[str, Mapping[str, Any]]:
    """Return inputs and outputs of a graph by name, in Triton's terms: no batch axis, -1 for dynamic axes."""
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
    except (KeyError, TypeError) as error:
        message = f"the manifest of {bundle.path} does not describe {graph.name} ({error}): export the bundle again"
        raise BundleSchemaError(message) from error


def vision_config(
    vision: Mapping[str, Any],
    device: Device,
    precision: Compute,
    *,
    batch_size: int,
    batch_delay: float,
    instances: int,
) -> Mapping[str, Any]:
    """Return the configuration of the vision model, with dynamic batching."""
    warm_sizes = [1, batch_size] if device in ("cuda", "tensorrt") and batch_size > 1 else [1]
    pixels = vision[PIXELS]
    zeros = {"data_type": pixels["data_type"], "dims": pixels["dims"], "zero_data": True}
    return {
        **_model(VISION, batch_size),
        "input": [pixels],
        "output": [vision[name] for name in FEATURES],
        "instance_group": [{"count": instances, "kind": _KINDS[device]}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(1e6 * batch_delay)},
        **_acceleration(device, precision),
        "model_warmup": [
            {"name": f"batch_{size}", "batch_size": size, "inputs": {PIXELS: zeros}} for size in warm_sizes
        ],
    }


def prompt_config(
    prompt: Mapping[str, Any], labels: int, device: Device, *, batch_size: int, instances: int
) -> Mapping[str, Any]:
    """Return the configuration of the prompt model, whose graph contains the label embeddings."""
    zeros = {
        name: {"data_type": prompt[name]["data_type"], "dims": prompt[name]["dims"], "random_data": True}
        for name in FEATURES
    }
    return {
        **_model(PROMPT, batch_size),
        "input": [prompt[name] for name in FEATURES],
        "output": [{**prompt[LOGITS], "dims": [labels], "label_filename": LABELS_FILE}],
        "instance_group": [{"count": instances, "kind": _KINDS[device]}],
        "dynamic_batching": {},
        "model_warmup": [{"name": "batch_1", "batch_size": 1, "inputs": zeros}],
    }


def ensemble_config(
    vision: Mapping[str, Any], prompt: Mapping[str, Any], labels: int, batch_size: int, facts: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return the configuration of the ensemble: pixel_values in, logits_per_video and video_embeds out."""
    names = {name: name for name in FEATURES}
    return {
        "name": ENSEMBLE,
        "platform": "ensemble",
        "max_batch_size": batch_size,
        "input": [vision[PIXELS]],
        "output": [{**prompt[LOGITS], "dims": [labels], "label_filename": LABELS_FILE}, vision["video_embeds"]],
        "parameters": {key: {"string_value": value} for key, value in facts.items()},
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": VISION,
                    "model_version": -1,
                    "input_map": {PIXELS: PIXELS},
                    "output_map": names,
                },
                {
                    "model_name": PROMPT,
                    "model_version": -1,
                    "input_map": names,
                    "output_map": {LOGITS: LOGITS},
                },
            ]
        },
    }


def ovms_config() -> Mapping[str, Any]:
    """Return OVMS's config.json: the two models, and the ensemble as a pipeline."""
    # OpenVINO defaults to bf16 on CPUs that have it: |Δlogit| 0.1 on motion-demo instead of 4e-6.
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


def _model(name: str, batch_size: int) -> Mapping[str, Any]:
    return {"name": name, "backend": "onnxruntime", "max_batch_size": batch_size}


def _acceleration(device: Device, precision: Compute) -> Mapping[str, Any]:
    """Return the accelerator of Triton's ONNX Runtime; none for the CPU and CUDA providers."""
    if device == "openvino":
        if precision not in ("fp32", "int8"):
            message = f"Triton's OpenVINO accelerator does not support {precision}: choose fp32"
            raise PrecisionUnavailableError(message)
        return {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}}
    if device != "tensorrt":
        return {}
    if precision not in ("fp32", "fp16"):
        message = f"Triton's TensorRT accelerator does not support {precision}: choose fp32 or fp16"
        raise PrecisionUnavailableError(message)
    accelerator = {"name": "tensorrt", "parameters": {"precision_mode": precision.upper()}}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}}


def _node(name: str, model: str, inputs: Mapping[str, str], outputs: Sequence[str]) -> Mapping[str, Any]:
    return {
        "name": name,
        "model_name": model,
        "type": "DL model",
        "inputs": [{item: {"node_name": source, "data_item": item}} for item, source in inputs.items()],
        "outputs": [{"data_item": item, "alias": item} for item in outputs],
    }
