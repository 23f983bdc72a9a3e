"""Compare ways to run X-CLIP ViT-B/16 with 32 frames on a CPU, interleaved in one run.

    python benchmarks/peers.py --cache runs/peers --json benchmarks/results/peers.json   # on a quiet machine
    python benchmarks/peers.py --cache runs/peers --json benchmarks/results/peers.json --resume
    python benchmarks/peers.py --quick                                                   # 8 frames, 2 layers

The first part times the vision tower and MIT alone, 99 % of the work: torch eager and compiled, a plain export in ONNX
Runtime, the same after ONNX Runtime's own tools, OpenVINO, and the graphs of this project. The second goes from an
encoded file to labels, against transformers with PyAV and its processor, as its documentation shows.

In every round each arm runs in a process of its own, with no other arm alive: it loads, runs once, and then twice more,
of which the faster counts. Figures are medians over rounds, of an arm's times and of their ratios to ours in the same
round. One warm-up round, which fills the caches of files and compilers, is not counted; nor are rounds in which other
processes took more than a tenth of a clip's time, while three others remain. The roofline of each precision is the
fastest large matrix product of that precision in the same round. A peer that cannot run has a row with the reason.
Weights are seeded, so no download is needed; speed does not depend on them.

Finished rounds are saved in ``--cache``; ``--resume`` continues after the last, and exits with an error if versions,
machine, options or exporter have changed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import processes
import records
import vision_arms

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TORCH = ("torch", "transformers")
ORT = ("onnxruntime",)
OPENVINO = ("openvino",)


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

RUNTIME = ("click", "numpy", "opencv-python-headless", "rich", "onnxruntime")
END_TO_END = {
    "e2e-transformers": Peer("transformers, its processor, PyAV", "fp32", (*TORCH, "av", "pillow")),
    "e2e-ours-fp32": Peer("xclip-onnx fp32", "fp32", RUNTIME),
    "e2e-ours-int8": Peer("xclip-onnx int8", "int8", RUNTIME),
}
MATRIX = (768, 3072)
STEADY = 2
"""Runs after the first, in every process."""


def missing(peer: Peer) -> str | None:
    """Name the packages of a peer that are not installed, or return None."""
    names = [name for name in (*peer.packages, *peer.made_with) if not _installed(name)]
    return f"not installed: {', '.join(names)}" if names else None


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
        labels="hmdb51",
        precisions=("fp32", "int8"),
        overwrite=True,
        progress=_say,
    )
    records.mark_current(folder / "bundle")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def load(arm: str, folder: Path, options: argparse.Namespace) -> processes.Run:
    """Load one arm as a function of uint8 frames or a path, so that its time includes its preprocessing."""
    if arm.startswith("gemm"):
        return _load_product(arm, folder, options)
    if arm.startswith("e2e"):
        return _load_end_to_end(arm, folder, options)
    if arm.startswith(("torch", "compile")):
        return _load_torch(arm, folder, options)
    if arm == "openvino-bf16":
        request = _openvino_request(folder / "openvino-fp32.xml", "bf16", options)

        def infer(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            outputs = request.infer({0: vision_arms.normalised(clip)})
            return outputs[0], outputs[1]

        return infer
    return vision_arms.load(arm, folder, options)


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


def _load_torch(arm: str, folder: Path, options: argparse.Namespace) -> processes.Run:
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


def _load_product(arm: str, folder: Path, options: argparse.Namespace) -> processes.Run:
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

        model = XClip(folder / "bundle", "cpu", arm.rpartition("-")[2], intra_op_threads=options.threads)  # type: ignore[arg-type]
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


def take_turns(
    names: dict[str, Peer], folder: Path, options: argparse.Namespace, clip: Path, kept: Path
) -> list[dict[str, Any]]:
    """Run every arm in every round and return all but the warm-up; rounds in ``kept`` are not run again."""
    kept.touch()
    rounds: list[dict[str, Any]] = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    while len(rounds) <= options.rounds:
        rounds.append({name: take_turn(name, peer, folder, options, clip) for name, peer in names.items()})
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounds[-1]) + "\n")
        others = max(turn.get("others", 0.0) for turn in rounds[-1].values())
        _say(f"{kept.stem}: round {len(rounds) - 1} of {options.rounds}; others took up to {others:.0%} of a clip")
    return rounds[1:]


def take_turn(name: str, peer: Peer, folder: Path, options: argparse.Namespace, clip: Path) -> dict[str, Any]:
    """Start, load and run one arm, and return its figures or, as ``missing``, the reason why it cannot run."""
    reason = missing(peer)
    if reason:
        return {"missing": reason}
    try:
        arm = processes.Arm(name, folder, options, __file__)
        for _ in range(1 + STEADY):
            arm.turn(clip)
        arm.close()
    except RuntimeError as error:
        return {"missing": str(error)}
    turn = {
        "seconds": min(arm.seconds),
        "others": arm.others[arm.seconds.index(min(arm.seconds))],
        "load_s": arm.load_s,
        "start_to_first_answer_s": arm.start_to_loaded_s + (arm.first_s or 0.0),
        "peak_mb": arm.peak_mb,
    }
    _say(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in turn.items()))
    return turn


def table_of(names: dict[str, Peer], rounds: list[dict[str, Any]], ours: tuple[str, ...]) -> dict[str, Any]:
    """Summarise every arm over the rounds that count."""
    counted, quiet = processes.quiet_rounds(
        [max(turn.get("others", 0.0) for turn in turns.values()) for turns in rounds]
    )
    rounds = [rounds[i] for i in counted]
    return {
        "rounds_counted": len(counted),
        "quiet": quiet,
        "arms": {name: row(name, peer, rounds, ours) for name, peer in names.items()},
    }


def row(name: str, peer: Peer, rounds: list[dict[str, Any]], ours: tuple[str, ...]) -> dict[str, Any]:
    """Summarise one arm; an arm that failed once has no figures."""
    reason = next((turns[name]["missing"] for turns in rounds if "missing" in turns[name]), None)
    if reason:
        return {"what": peer.what, "precision": peer.precision, "missing": reason}
    seconds = [turns[name]["seconds"] for turns in rounds]
    return {
        "what": peer.what,
        "precision": peer.precision,
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds": seconds,
        "ratio_to": {
            other: statistics.median(turns[name]["seconds"] / turns[other]["seconds"] for turns in rounds)
            for other in ours
            if all("seconds" in turns[other] for turns in rounds)
        },
        **{
            key: statistics.median(turns[name][key] for turns in rounds)
            for key in ("load_s", "start_to_first_answer_s", "peak_mb")
        },
        "installed_mb": installed_mb(peer.packages, ours="ours" in name),
    }


def measure_vision(options: argparse.Namespace, folder: Path, names: dict[str, Peer], kept: Path) -> dict[str, Any]:
    """Time the vision tower of all arms, interleaved."""
    clip = folder / "clip.npy"
    np.save(clip, vision_arms.evaluation_clips(options.frames, 224, 1)[0])
    found = table_of(
        {**names, **PRODUCTS}, take_turns({**names, **PRODUCTS}, folder, options, clip, kept / "vision.jsonl"), OURS
    )
    products = {name: found["arms"].pop(name) for name in PRODUCTS}
    product_gflop, gflop = vision_arms.gemm_flops(options) / 1e9, vision_arms.clip_flops(options) / 1e9
    rates: dict[str, list[float]] = {}
    for product in products.values():
        if "seconds" in product:
            reached = [product_gflop / seconds for seconds in product["seconds"]]
            fastest = rates.setdefault(product["precision"], reached)
            rates[product["precision"]] = [max(pair) for pair in zip(fastest, reached, strict=True)]
    for arm in found["arms"].values():
        if "seconds" in arm:
            roof = rates.get(arm["precision"], [])
            shares = [gflop / seconds / rate for seconds, rate in zip(arm["seconds"], roof, strict=False)]
            arm["of_gemm_rate"] = statistics.median(shares) if shares else None
    return {
        "clip_gflop": gflop,
        "gemm_gflops": {precision: statistics.median(values) for precision, values in rates.items()},
        "gemms": {
            name: {key: product[key] for key in ("what", "precision", "seconds", "missing") if key in product}
            for name, product in products.items()
        },
        "rounds": options.rounds,
        **found,
    }


def measure_accuracy(options: argparse.Namespace, folder: Path, names: dict[str, Peer], kept: Path) -> dict[str, Any]:
    """Measure logit errors and top-1 agreement against transformers in fp32, on clips unseen by calibration."""
    clips, labels = vision_arms.evaluation_clips(options.frames, 224, options.clips), vision_arms.Labels(options)
    path = folder / "clip.npy"

    def logits(name: str) -> NDArray[np.float32]:
        file = kept / f"logits-{name}.npy"
        if not file.exists():
            arm, given = processes.Arm(name, folder, options, __file__), []
            for clip in clips:
                np.save(path, clip)
                given.append(labels(arm.turn(path)))
            arm.close()
            np.save(file, np.array(given))
        made: NDArray[np.float32] = np.load(file)
        return made

    expected, found = logits("torch-fp32"), {}
    for name, peer in names.items():
        if missing(peer) or name == "torch-fp32":
            continue
        try:
            actual = logits(name)
        except RuntimeError as error:
            found[name] = {"missing": str(error)}
            continue
        errors = np.abs(actual - expected)
        found[name] = {
            "p50": float(np.median(errors)),
            "p99": float(np.quantile(errors, 0.99)),
            "max": float(errors.max()),
            "top1_agreement": float((actual.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        }
        _say(f"{name}: {found[name]}")
    return {"frames": options.frames, "clips": len(clips), "logit_std": float(expected.std()), "arms": found}


def measure_end_to_end(options: argparse.Namespace, folder: Path, kept: Path) -> dict[str, Any]:
    """Time all arms from an encoded file to labels."""
    from xclip_runtime.demo import DEMO_VIDEO

    video = Path(options.video or DEMO_VIDEO).resolve()
    rounds = take_turns(END_TO_END, folder, options, video, kept / "end-to-end.jsonl")
    return {
        "video": video.name,
        "labels": len(json.loads((folder / "bundle/labels.json").read_text("utf-8"))["names"]),
        "rounds": options.rounds,
        **table_of(END_TO_END, rounds, tuple(name for name in END_TO_END if "ours" in name)),
    }


VISION_COLUMNS = (
    *("arm", "s/clip", "/ ours fp32", "/ ours int8", "of GEMM rate", "peak MB", "load s", "start to first s"),
    *("installed MB", "logit error p50 / max", "same top-1"),
)


def vision_table(result: dict[str, Any]) -> str:
    """Format the vision tower's rows as Markdown."""
    accuracy = result.get("accuracy", {}).get("arms", {})
    lines = [
        f"| {' | '.join(VISION_COLUMNS)} |",
        "|---" * len(VISION_COLUMNS) + "|",
    ]
    for name, arm in result["vision"]["arms"].items():
        if "missing" in arm:
            lines.append(f"| {arm['what']} | {arm['missing']} |" + " |" * 9)
            continue
        ratios = [f"{arm['ratio_to'][o]:.2f}" if o in arm["ratio_to"] else "" for o in OURS]
        roof = "" if arm["of_gemm_rate"] is None else f"{arm['of_gemm_rate']:.0%}"
        error = accuracy.get(name, {})
        told = (
            [f"{error['p50']:.4f} / {error['max']:.3f}", f"{error['top1_agreement']:.0%}"]
            if "p50" in error
            else ["", ""]
        )
        if name == "torch-fp32":
            told = ["reference", ""]
        cells = [
            arm["what"],
            f"{arm['seconds_median']:.2f}",
            *ratios,
            roof,
            f"{arm['peak_mb']:.0f}",
            f"{arm['load_s']:.1f}",
            f"{arm['start_to_first_answer_s']:.1f}",
            f"{arm['installed_mb']:.0f}",
            *told,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def end_to_end_table(result: dict[str, Any]) -> str:
    """Format the end-to-end rows as Markdown."""
    lines = [
        "| from a file to labels | s/video | / ours fp32 | peak MB | start to first answer s | installed MB |",
        "|---|---|---|---|---|---|",
    ]
    for arm in result["end_to_end"]["arms"].values():
        if "missing" in arm:
            lines.append(f"| {arm['what']} | {arm['missing']} |" + " |" * 4)
            continue
        ratio = arm["ratio_to"].get("e2e-ours-fp32")
        cells = [
            arm["what"],
            f"{arm['seconds_median']:.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{arm['peak_mb']:.0f}",
            f"{arm['start_to_first_answer_s']:.1f}",
            f"{arm['installed_mb']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def heading(result: dict[str, Any]) -> str:
    """Format date, machine and rooflines."""
    machine, vision = result["machine"], result["vision"]
    rates = ", ".join(f"{precision} {rate:.0f}" for precision, rate in vision["gemm_gflops"].items())
    rounds = f"{vision['rounds_counted']} of {vision['rounds']} rounds counted"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{result['date']}, {machine['cpu']}, {machine['cores']} cores, {result['options']['threads']} threads; "
        f"{versions}. "
        f"One clip is {vision['clip_gflop']:.0f} GFLOP; large matrix products reach {rates} GFLOP/s. {rounds}"
        f"{'' if vision['quiet'] else '; the machine was not quiet'}."
    )


def rounds_folder(root: Path, settings: dict[str, Any], *, resume: bool) -> Path:
    """Return the folder of finished rounds, emptied unless a run with the same settings is resumed.

    Raises:
        SystemExit: The run to resume had other settings.
    """
    kept, settings = root / "rounds", {**settings, "machine": records.machine(), "exporter": records.exporter_digest()}
    written = kept / "settings.json"
    if resume and written.exists():
        if json.loads(written.read_text("utf-8")) != settings:
            sys.exit(f"{kept} was begun with other versions, options or another exporter: leave out --resume")
        return kept
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    written.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return kept


def save(result: dict[str, Any], path: Path | None) -> None:
    """Write the result so far; each part takes minutes."""
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    made.add_argument("--frames", type=int, default=32)
    made.add_argument("--patch", type=int, default=16)
    made.add_argument("--layers", type=int, default=12)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument(
        "--clips", type=int, default=32, help="clips of the accuracy part, which uses 8 frames; 0 skips it"
    )
    made.add_argument("--arm", action="append", choices=PEERS, help="run only this arm and ours; may be repeated")
    made.add_argument("--video", help="video of the end-to-end part; default: the demo's")
    made.add_argument("--no-end-to-end", action="store_true")
    made.add_argument("--quick", action="store_true", help="8 frames, 2 layers, 3 rounds, 4 clips: a smoke test")
    made.add_argument("--cache", type=Path, help="folder to keep the arms' files and the rounds")
    made.add_argument("--resume", action="store_true", help="continue after the rounds in --cache")
    made.add_argument("--prepare-only", action="store_true", help="fill the cache and measure nothing")
    made.add_argument("--json", type=Path, help="write the result to this file")
    made.add_argument("--worker", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    made.add_argument("--prepare", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Parse the command line and run."""
    arguments = parser()
    options = arguments.parse_args()
    if options.worker:
        processes.work(options.worker[0], Path(options.worker[1]), options, load)
        return
    if options.prepare:
        made = prepare if options.prepare[0] == "vision" else prepare_end_to_end
        made(options, Path(options.prepare[1]))
        return
    if options.quick:
        options.frames, options.layers, options.rounds, options.clips = 8, 2, 3, 4
    if options.resume and not options.cache:
        arguments.error("--resume needs --cache")
    names = {name: peer for name, peer in PEERS.items() if not options.arm or name in (*options.arm, *OURS)}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.cache or Path(temporary)).resolve()
        short = argparse.Namespace(**{**vars(options), "frames": 8})

        def folder(shape: argparse.Namespace, kind: str) -> Path:
            made = root / f"b{shape.patch}-{shape.frames}-{shape.layers}-{kind}"
            made.mkdir(parents=True, exist_ok=True)
            # In a child process, whose memory is released before measuring.
            command = [sys.executable, __file__, "--prepare", kind, str(made), *processes.forwarded(shape)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return made

        if options.prepare_only:
            for shape, kind in ((options, "vision"), (short, "vision"), (options, "end-to-end")):
                folder(shape, kind)
            return
        shape = {name: getattr(options, name) for name in ("frames", "patch", "layers", "threads")}
        kept = rounds_folder(root, {"options": shape, "arms": list(names)}, resume=options.resume)
        result: dict[str, Any] = {
            **records.record(),
            "options": shape,
            "vision": measure_vision(options, folder(options, "vision"), names, kept),
        }
        save(result, options.json)
        if options.clips:
            result["accuracy"] = measure_accuracy(short, folder(short, "vision"), names, kept)
            save(result, options.json)
        if not options.no_end_to_end:
            result["end_to_end"] = measure_end_to_end(options, folder(options, "end-to-end"), kept)
            save(result, options.json)
    print(heading(result), vision_table(result), sep="\n\n")
    if "end_to_end" in result:
        print("", end_to_end_table(result), sep="\n")


if __name__ == "__main__":
    main()
