"""X-CLIP ViT-B/16 with 32 frames on a CPU: every way to run it that a user has, in one interleaved run.

    python benchmarks/peers.py --cache runs/peers --json benchmarks/results/peers.json   # on a quiet machine
    python benchmarks/peers.py --quick                                                   # 8 frames, 2 layers

First the vision tower and MIT alone, which is 99 % of the work: torch eager and compiled, a plain export in ONNX
Runtime, the same through ONNX Runtime's own tools, OpenVINO, and the graphs of this project. Then from an encoded file
to labels, against transformers with PyAV and its processor, the way its documentation shows.

How it is measured, is told in ``cpu.py``, whose processes, turns and clips these are: each arm lives in a process of
its own, all run clips in turns, and what counts is the median over rounds of the ratio to ours in the same round. The
roof of each precision is a large matrix product of that precision in the same rounds. A peer that cannot run has a row
that says why. Weights are seeded, so no download is needed; speed does not depend on them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cpu
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
TORCH = ("torch", "transformers")
ORT = ("onnxruntime",)
OPENVINO = ("openvino",)


@dataclass(frozen=True)
class Peer:
    """A way to run the model."""

    what: str
    precision: str
    packages: tuple[str, ...]
    """What has to be installed where it runs."""
    made_with: tuple[str, ...] = ()
    """What has to be installed where its files are made, besides torch and transformers."""


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
GEMMS = {"fp32": cpu.GEMMS, "bf16": ("gemm-bf16",), "int8": ("gemm-int8-ort", "gemm-int8-torch")}

RUNTIME = ("click", "numpy", "opencv-python-headless", "rich", "onnxruntime")
END_TO_END = {
    "e2e-transformers": Peer("transformers, its processor, PyAV", "fp32", (*TORCH, "av", "pillow")),
    "e2e-ours-fp32": Peer("xclip-onnx fp32", "fp32", RUNTIME),
    "e2e-ours-int8": Peer("xclip-onnx int8", "int8", RUNTIME),
}
MATRIX = (768, 3072)


def missing(peer: Peer) -> str | None:
    """Which packages of a peer are not installed here."""
    names = [name for name in (*peer.packages, *peer.made_with) if not _installed(name)]
    return f"not installed: {', '.join(names)}" if names else None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def installed_mb(packages: tuple[str, ...], *, ours: bool = False) -> float:
    """Size on disk of packages with all that they require, in MB of 10**6 bytes; ``ours`` adds this runtime."""
    files = {path for path in (ROOT / "runtime").rglob("*") if path.is_file()} if ours else set[Path]()
    for name in _closure(packages):
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            if path.is_file():
                files.add(path.resolve())
    return sum(file.stat().st_size for file in files) / 1e6


def _closure(packages: tuple[str, ...]) -> set[str]:
    """The packages and everything installed that they require, extras left out."""
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
    """Write the files of all arms that are not there yet."""
    cpu.prepare(options, folder, outliers=False)
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
    """One MatMulInteger of bytes with signed weights, the product that CPUs with VNNI are made for."""
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
    """Write a whole checkpoint with CLIP's tokenizer and its bundle, unless they are there and of today's exporter."""
    if cpu.is_current(folder / "bundle"):
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from checkpoints import write_seeded_checkpoint
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
    cpu.mark_current(folder / "bundle")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def load(arm: str, folder: Path, options: argparse.Namespace) -> cpu.Run:
    """Load one arm; what it returns takes uint8 frames or a path, so that each pays for its own preparation."""
    if arm in cpu.GEMMS:
        return cpu.load(arm, folder, options)
    if arm.startswith("gemm"):
        return _load_product(arm, folder, options)
    if arm.startswith("e2e"):
        return _load_end_to_end(arm, folder, options)
    if arm.startswith(("torch", "compile")):
        return _load_torch(arm, options)
    if arm == "openvino-bf16":
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": options.threads}
        request = openvino.Core().compile_model(folder / "openvino-fp32.xml", "CPU", settings).create_infer_request()

        def infer(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            outputs = request.infer({0: cpu.normalised(clip)})
            return outputs[0], outputs[1]

        return infer
    return cpu.load(arm, folder, options)


def _load_torch(arm: str, options: argparse.Namespace) -> cpu.Run:
    import torch

    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if arm.endswith("bf16") else torch.float32
    vision = cpu.vision_of(cpu.seeded(options)).to(dtype)
    if arm.startswith("compile"):
        vision = torch.compile(vision)

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            video_embeds, img_features = vision(torch.from_numpy(cpu.normalised(clip)).to(dtype))
        return video_embeds.float().numpy(), img_features.float().numpy()

    return run


def _load_product(arm: str, folder: Path, options: argparse.Namespace) -> cpu.Run:
    rows = options.frames * 197
    rng = np.random.default_rng(0)
    empty = np.empty(0, np.float32), np.empty(0, np.float32)
    if arm == "gemm-int8-ort":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(folder / "gemm-int8.onnx", settings, providers=["CPUExecutionProvider"])
        pixels = rng.integers(0, 256, (rows, MATRIX[0]), np.uint8)

        def run(_: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            for _ in range(cpu.GEMM_REPEATS):
                session.run(None, {"a": pixels})
            return empty

        return run
    import torch

    torch.set_num_threads(options.threads)
    if arm == "gemm-int8-torch":
        a, b = (torch.from_numpy(rng.integers(-127, 128, shape, np.int8)) for shape in ((rows, MATRIX[0]), MATRIX))
        multiply = torch._int_mm  # noqa: SLF001 - torch's only name for it
    else:
        a, b = torch.randn(rows, MATRIX[0]).bfloat16(), torch.randn(MATRIX).bfloat16()
        multiply = torch.mm

    def run_torch(_: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        for _ in range(cpu.GEMM_REPEATS):
            multiply(a, b)
        return empty

    return run_torch


def _load_end_to_end(arm: str, folder: Path, options: argparse.Namespace) -> Any:
    """A video's path → probabilities (N,), as its user would write it."""
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
        # The documentation says videos=, which transformers 4.57 passes over without a word.
        inputs = processor(text=texts, images=clip, return_tensors="pt", padding=True)
        with torch.no_grad():
            probs = model_(**inputs).logits_per_video.softmax(dim=1)
        return probs[0].numpy(), np.empty(0, np.float32)

    return answer


def start(names: dict[str, Peer], folder: Path, options: argparse.Namespace, clip: Path) -> tuple[Any, dict[str, str]]:
    """Load the arms that can run, each with its first answer; the others with the reason why they cannot."""
    arms, failed = {}, {}
    for name, peer in names.items():
        reason = missing(peer)
        if reason is None:
            try:
                arms[name] = cpu.Arm(name, folder, options, __file__)
                arms[name].turn(clip)
            except RuntimeError as error:
                reason = str(error)
                arms.pop(name, None)
        if reason is not None:
            failed[name] = reason
        _say(f"{name}: {reason or f'loaded in {arms[name].load_s:.1f} s, first answer {arms[name].first_s:.1f} s'}")
    return arms, failed


def row(arm: cpu.Arm, peer: Peer, rounds: list[int], ours: dict[str, cpu.Arm]) -> dict[str, Any]:
    """What is told of an arm, whatever it runs."""
    seconds = [arm.seconds[i] for i in rounds]
    return {
        "what": peer.what,
        "precision": peer.precision,
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds": seconds,
        "ratio_to": {
            name: statistics.median(arm.seconds[i] / other.seconds[i] for i in rounds) for name, other in ours.items()
        },
        "load_s": arm.load_s,
        "start_to_first_answer_s": arm.start_to_loaded_s + (arm.first_s or 0.0),
        "peak_mb": arm.peak_mb,
        "installed_mb": installed_mb(peer.packages, ours="ours" in arm.name),
    }


def measure_vision(options: argparse.Namespace, folder: Path, names: dict[str, Peer]) -> dict[str, Any]:
    """Time the vision tower under all arms in turns."""
    clip = folder / "clip.npy"
    np.save(clip, cpu.evaluation_clips(options.frames, 224, 1)[0])
    products = {
        name: Peer("matrix product", precision, TORCH if "ort" not in name else ORT)
        for precision, of_precision in GEMMS.items()
        for name in of_precision
    }
    arms, failed = start({**names, **products}, folder, options, clip)
    rounds, quiet = cpu.take_turns(arms.values(), clip, options.rounds)
    rates: dict[str, list[float]] = {}
    for precision, of_precision in GEMMS.items():
        present = [arms[name] for name in of_precision if name in arms]
        if present:
            rates[precision] = [max(cpu.gemm_flops(options) / arm.seconds[i] for arm in present) / 1e9 for i in rounds]
    ours = {name: arms[name] for name in OURS if name in arms}
    gflop, found = cpu.clip_flops(options) / 1e9, {}
    for name, peer in names.items():
        if name in failed:
            found[name] = {"what": peer.what, "precision": peer.precision, "missing": failed[name]}
            continue
        found[name] = row(arms[name], peer, rounds, ours)
        roof = rates.get(peer.precision)
        found[name]["of_gemm_rate"] = statistics.median(
            gflop / arms[name].seconds[i] / rate for i, rate in zip(rounds, roof, strict=True)
        ) if roof else None  # fmt: skip
    return {
        "clip_gflop": gflop,
        "gemm_gflops": {precision: statistics.median(values) for precision, values in rates.items()},
        "gemms": {
            name: {"failed": failed[name]} if name in failed else {"seconds": arms[name].seconds} for name in products
        },
        "rounds": options.rounds,
        "rounds_counted": len(rounds),
        "quiet": quiet,
        "arms": found,
    }


def measure_accuracy(options: argparse.Namespace, folder: Path, names: dict[str, Peer]) -> dict[str, Any]:
    """Logit errors and top-1 agreement against transformers in fp32, on clips that no calibration has seen."""
    clips, labels, path = (
        cpu.evaluation_clips(options.frames, 224, options.clips),
        cpu.Labels(options),
        folder / "c.npy",
    )

    def logits(name: str) -> NDArray[np.float32]:
        arm, given = cpu.Arm(name, folder, options, __file__), []
        for clip in clips:
            np.save(path, clip)
            given.append(labels(arm.turn(path)))
        arm.close()
        return np.array(given)

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


def measure_end_to_end(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time the way from an encoded file to labels."""
    from xclip_runtime.demo import DEMO_VIDEO

    video = Path(options.video or DEMO_VIDEO).resolve()
    arms, failed = start(END_TO_END, folder, options, video)
    rounds, quiet = cpu.take_turns(arms.values(), video, options.rounds)
    ours = {name: arms[name] for name in arms if "ours" in name}
    return {
        "video": video.name,
        "labels": len(json.loads((folder / "bundle/labels.json").read_text("utf-8"))["names"]),
        "rounds": options.rounds,
        "rounds_counted": len(rounds),
        "quiet": quiet,
        "arms": {
            name: row(arms[name], peer, rounds, ours)
            if name in arms
            else {"what": peer.what, "precision": peer.precision, "missing": failed[name]}
            for name, peer in END_TO_END.items()
        },
    }


VISION_COLUMNS = (
    *("arm", "s/clip", "/ ours fp32", "/ ours int8", "of GEMM rate", "peak MB", "load s", "start to first s"),
    *("installed MB", "logit error p50 / max", "same top-1"),
)


def vision_table(result: dict[str, Any]) -> str:
    """The vision tower's rows as Markdown."""
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
    """The rows from file to labels as Markdown."""
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
    """Where and when, and what the roofs are."""
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


def save(result: dict[str, Any], path: Path | None) -> None:
    """Write what is measured so far: each part takes minutes."""
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    made.add_argument("--frames", type=int, default=32)
    made.add_argument("--patch", type=int, default=16)
    made.add_argument("--layers", type=int, default=12)
    made.add_argument("--threads", type=int, default=len(cpu.os.sched_getaffinity(0)))
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--clips", type=int, default=32, help="of the accuracy part, which uses 8 frames; 0: none")
    made.add_argument("--arm", action="append", choices=PEERS, help="only this one and ours; may be repeated")
    made.add_argument("--video", help="of the end-to-end part; default: the demo's")
    made.add_argument("--no-end-to-end", action="store_true")
    made.add_argument("--quick", action="store_true", help="8 frames, 2 layers, 3 rounds, 4 clips: to see it run")
    made.add_argument("--cache", type=Path, help="keep the arms' files here")
    made.add_argument("--prepare-only", action="store_true", help="fill the cache and measure nothing")
    made.add_argument("--json", type=Path, help="write the result here")
    made.add_argument("--worker", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    made.add_argument("--prepare", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Parse the command line and run."""
    options = parser().parse_args()
    if options.worker:
        cpu.work(options.worker[0], Path(options.worker[1]), options, load)
        return
    if options.prepare:
        made = prepare if options.prepare[0] == "vision" else prepare_end_to_end
        made(options, Path(options.prepare[1]))
        return
    if options.quick:
        options.frames, options.layers, options.rounds, options.clips = 8, 2, 3, 4
    names = {name: peer for name, peer in PEERS.items() if not options.arm or name in (*options.arm, *OURS)}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.cache or Path(temporary)
        short = argparse.Namespace(**{**vars(options), "frames": 8})

        def folder(shape: argparse.Namespace, kind: str) -> Path:
            made = (root / f"b{shape.patch}-{shape.frames}-{shape.layers}-{kind}").resolve()
            made.mkdir(parents=True, exist_ok=True)
            # In a child, which gives its memory back before anything is measured.
            command = [sys.executable, __file__, "--prepare", kind, str(made), *cpu.forwarded(shape)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return made

        if options.prepare_only:
            for shape, kind in ((options, "vision"), (short, "vision"), (options, "end-to-end")):
                folder(shape, kind)
            return
        result: dict[str, Any] = {
            "command": "python benchmarks/peers.py " + " ".join(sys.argv[1:]),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": cpu.machine(),
            "options": {
                name: value for name, value in vars(options).items() if name in ("frames", "patch", "layers", "threads")
            },
            "vision": measure_vision(options, folder(options, "vision"), names),
        }
        save(result, options.json)
        if options.clips:
            result["accuracy"] = measure_accuracy(short, folder(short, "vision"), names)
            save(result, options.json)
        if not options.no_end_to_end:
            result["end_to_end"] = measure_end_to_end(options, folder(options, "end-to-end"))
            save(result, options.json)
    print(heading(result), vision_table(result), sep="\n\n")
    if "end_to_end" in result:
        print("", end_to_end_table(result), sep="\n")


if __name__ == "__main__":
    main()
