"""Compare OpenVINO's execution provider in fp32, bf16 and int8 with the CPU provider, interleaved in one run.

    pip install 'xclip-onnx[openvino]' nncf onnx       # on an Intel processor
    python benchmarks/openvino_provider.py BUNDLE --json benchmarks/results/openvino.json

BUNDLE was exported with ``--precision fp32 int8``. The int8 graph of a bundle uses ONNX Runtime's own operators, so
NNCF quantises the portable graph for OpenVINO: static, with its transformer preset, QuantizeLinear and DequantizeLinear
around every product. It is kept beside the bundle. Calibration and measurement use different clips. Errors are of
logits against the CPU provider in fp32.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import processes
from records import record

from xclip_runtime import XClip
from xclip_runtime.bundle import sha256_of
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.inference.installation import onnxruntime_version
from xclip_runtime.selftest import golden_clip
from xclip_runtime.video import FrameTransform, read_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARMS = {
    "cpu-fp32": ("CPU provider fp32", "cpu", "fp32"),
    "cpu-int8": ("CPU provider int8", "cpu", "int8"),
    "openvino-fp32": ("OpenVINO provider fp32", "openvino", "fp32"),
    "openvino-bf16": ("OpenVINO provider bf16", "openvino", "bf16"),
    "openvino-int8": ("OpenVINO provider int8 (NNCF)", "openvino", "fp32"),
}
REFERENCE, RATIO_TO = "cpu-fp32", "cpu-int8"
WARM_UP = 2


def quantised(bundle: Path, clips: list[NDArray[np.uint8]]) -> Path:
    """Copy a bundle and quantise its portable graph for OpenVINO, unless the copy exists."""
    made = bundle.with_name(f"{bundle.name}-nncf")
    if made.exists():
        return made
    import nncf
    import onnx

    temporary = made.with_suffix(".part")
    shutil.copytree(bundle, temporary, dirs_exist_ok=True)
    graph, data = temporary / "onnx/vision_model.onnx", temporary / "onnx/vision_model.onnx_data"
    dataset = nncf.Dataset([{"pixel_values": clip[None]} for clip in clips])
    model = nncf.quantize(onnx.load(graph), dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(clips))
    data.unlink(missing_ok=True)
    onnx.save(model, graph, save_as_external_data=True, location=data.name)
    manifest = json.loads((temporary / "manifest.json").read_text("utf-8"))
    manifest["graphs"]["vision_model"]["data_files"] = [f"onnx/{data.name}"]
    for file in (graph, data):
        manifest["files"][f"onnx/{file.name}"] = {"size": file.stat().st_size, "sha256": sha256_of(file)}
    (temporary / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    temporary.rename(made)
    return made


def measure(bundle: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure every arm; one row an arm."""
    size, frames = (XClip(bundle, "cpu").info[name] for name in ("image_size", "num_frames"))
    video = read_clip(DEMO_VIDEO, num_frames=frames, transform=FrameTransform("videox", size)).frames
    noise = golden_clip(frames, size)
    bundles = {"openvino-int8": quantised(bundle, [video, 255 - video, noise])}
    arms, load_s = {}, {}
    for name, (_, device, precision) in ARMS.items():
        started = time.perf_counter()
        arms[name] = XClip(bundles.get(name, bundle), device, precision)
        load_s[name] = time.perf_counter() - started
    mixed = np.clip(video.astype(np.int16) // 2 + noise // 3, 0, 255).astype(np.uint8)
    clips = [np.roll(mixed[..., ::-1], (31 * i, 17 * i), axis=(1, 2)) for i in range(4)]
    logits = {name: np.concatenate([model.logits_batch(clip[None]) for clip in clips]) for name, model in arms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, model in arms.items():
            time.sleep(processes.PAUSE)
            started = time.perf_counter()
            model.logits_batch(clips[0][None])
            seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, (what, _, _) in ARMS.items():
        error = np.abs(logits[name] - logits[REFERENCE])
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[RATIO_TO], strict=True))
        rows.append(
            {
                "what": what,
                "provider": arms[name].provider,
                "load_s": load_s[name],
                "seconds_median": statistics.median(seconds[name]),
                "ratio_to_cpu_int8": ratio,
                "logit_p50": float(np.median(error)),
                "logit_max": float(error.max()),
            }
        )
        print(rows[-1])
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {**record(), "rounds": options.rounds, "arms": measure(options.bundle, options.rounds)}
    result["machine"]["versions"]["onnxruntime"] = onnxruntime_version()  # the package has another name
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
