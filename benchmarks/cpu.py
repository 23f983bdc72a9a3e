"""Compare ways to run X-CLIP's vision tower on a CPU: transformers, a plain export, OpenVINO and this project's graphs.

    python benchmarks/cpu.py                     # ViT-B/16, 32 frames; about 20 minutes
    python benchmarks/cpu.py --quick             # 8 frames; a few minutes
    python benchmarks/cpu.py --json results.json

Every arm has a process of its own, loaded once. Arms are interleaved, round by round, so that clock drift affects all
alike; the figure is the median over rounds of an arm's time divided by the reference's time of the same round. A large
fp32 matrix product runs in the same rounds and gives the roofline. CPU time of other processes during a clip is
recorded, and rounds where it exceeds a tenth are left out while three others remain.

Weights are seeded and well scaled (``xclip_export.seeded``), so no download is needed; speed does not depend on them.
OpenVINO's arms appear when ``openvino`` and ``nncf`` are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bench.machine import busy_seconds, cpu_name, peak_rss_mb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
    Load = Callable[[str, Path, argparse.Namespace], Run]

ROOT = Path(__file__).parents[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = 51
ARMS = {
    "transformers": "transformers, torch eager",
    "plain": "plain torch.onnx export, ONNX Runtime",
    "openvino-fp32": "the same, OpenVINO fp32",
    "openvino-int8": "the same, OpenVINO int8 (NNCF, static, transformer model type)",
    "ours-fp32": "vision_model_cpu.onnx, ONNX Runtime",
    "ours-int8": "vision_model_int8.onnx, ONNX Runtime",
}
# Roofline: a large fp32 product, by the faster of the two.
GEMMS = ("gemm-torch", "gemm-onnxruntime")
# Seconds. Thread pools spin for a while after a clip: without a pause an arm would pay for the one before it.
PAUSE = 0.3
REFERENCE = "plain"


def normalised(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalise uint8 (1, T, H, W, 3) to float32 pixel_values (1, T, 3, H, W), as transformers takes them."""
    x = (clip.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3), dtype=np.float32)


def evaluation_clips(frames: int, size: int, count: int, seed: int = 1000) -> list[NDArray[np.uint8]]:
    """Make clips unseen by calibration, uint8 (1, T, H, W, 3): video in other colours and order, noise, textures."""
    from xclip_export.calibration import calibration_clips

    rng, clips = np.random.default_rng(seed), []
    video = calibration_clips(frames, size)[0]
    for index in range(count):
        if index % 2:
            clip = calibration_clips(frames, size, seed + index)[2]
        else:
            clip = np.roll(video, (rng.integers(size), rng.integers(size)), axis=(1, 2))[rng.permutation(frames)]
            clip = 255 * (clip[..., rng.permutation(3)] / 255) ** rng.uniform(0.4, 2.5)
        noise = rng.normal(0, rng.uniform(0, 30), clip.shape)
        clips.append(np.clip(clip + noise, 0, 255).astype(np.uint8)[None])
    return clips


def seeded(options: argparse.Namespace, *, outliers: bool = False) -> Any:
    """Build the seeded model of the run, or its outlier twin."""
    from xclip_export.seeded import outlier_twin, seeded_config, seeded_model

    config = seeded_config(
        num_frames=options.frames, patch_size=options.patch, vision_layers=options.layers, text_layers=1
    )
    model = seeded_model(config)
    return outlier_twin(model, gain=60.0) if outliers else model


def vision_of(model: Any) -> Any:
    """Wrap the vision tower and MIT of transformers in one module: pixel_values to video_embeds, img_features."""
    import torch

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            frames = pixel_values.shape[1]
            output = self.model.vision_model(pixel_values=pixel_values.reshape(-1, *pixel_values.shape[2:]))
            projected = self.model.visual_projection(output[1])
            video_embeds = self.model.mit(projected.view(-1, frames, projected.shape[-1]))[1]
            features = self.model.prompts_visual_layernorm(output[0][:, 1:]) @ self.model.prompts_visual_projection
            return video_embeds, features.view(-1, frames, *features.shape[1:]).mean(dim=1)

    return Vision().eval()


def prepare(options: argparse.Namespace, folder: Path, *, outliers: bool) -> None:
    """Write the missing files of all arms, and rewrite ours if the exporter has changed."""
    import torch

    from xclip_export.calibration import calibration_clips
    from xclip_export.cpu import fused_vision_model
    from xclip_export.int8 import int8_vision_model
    from xclip_export.towers import VisionTower
    from xclip_export.writer import save_graph

    torch.set_num_threads(options.threads)
    folder.mkdir(parents=True, exist_ok=True)
    model = seeded(options, outliers=outliers)
    size = model.config.vision_config.image_size
    plain = folder / "plain.onnx"
    if not plain.exists():
        example = torch.zeros(1, options.frames, 3, size, size)
        names = {"input_names": ["pixel_values"], "output_names": ["video_embeds", "img_features"]}
        with torch.no_grad():
            torch.onnx.export(vision_of(model), (example,), str(plain), dynamo=False, opset_version=18, **names)
    tower = VisionTower(model, MEAN, STD).eval()
    for name, build in (("ours-fp32", fused_vision_model), ("ours-int8", int8_vision_model)):
        if is_current(folder / f"{name}.onnx"):
            continue
        started = time.perf_counter()
        save_graph(build(tower), folder / f"{name}.onnx", {})
        mark_current(folder / f"{name}.onnx")
        print(f"{name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if importlib.util.find_spec("openvino") and not (folder / "openvino-fp32.xml").exists():
        import openvino

        converted = openvino.convert_model(plain, input=[1, options.frames, 3, size, size])
        openvino.save_model(converted, folder / "openvino-fp32.xml", compress_to_fp16=False)
    if has_openvino() and not (folder / "openvino-int8.xml").exists():
        import nncf
        import openvino

        converted = openvino.Core().read_model(folder / "openvino-fp32.xml")
        clips = [normalised(clip[None]) for clip in calibration_clips(options.frames, size)]
        quantised = nncf.quantize(
            converted, nncf.Dataset(clips), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(clips)
        )
        openvino.save_model(quantised, folder / "openvino-int8.xml", compress_to_fp16=False)


def exporter_digest() -> str:
    """Compute the SHA-256 of the exporter's source, the key of cached graphs."""
    import xclip_export

    digest = hashlib.sha256()
    for source in sorted(Path(xclip_export.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def is_current(made: Path) -> bool:
    """Return True if a file or folder was made by the current exporter."""
    key = made.with_name(f"{made.name}.made-by")
    return made.exists() and key.exists() and key.read_text("ascii") == exporter_digest()


def mark_current(made: Path) -> None:
    """Record the exporter's digest beside a file or folder."""
    made.with_name(f"{made.name}.made-by").write_text(exporter_digest(), "ascii")


def has_openvino() -> bool:
    """Return True if OpenVINO and NNCF are installed."""
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


def load(arm: str, folder: Path, options: argparse.Namespace) -> Run:
    """Load one arm as a function of uint8 frames, so that its time includes its normalisation."""
    if arm in GEMMS:
        multiply = load_gemm(arm, options)

        def repeat(_: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            for _ in range(GEMM_REPEATS):
                multiply()
            return np.empty(0, np.float32), np.empty(0, np.float32)

        return repeat
    if arm == "transformers":
        import torch

        torch.set_num_threads(options.threads)
        vision = vision_of(seeded(options))

        def eager(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with torch.no_grad():
                video_embeds, img_features = vision(torch.from_numpy(normalised(clip)))
            return video_embeds.numpy(), img_features.numpy()

        return eager
    if arm.startswith("openvino"):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": options.threads}
        request = openvino.Core().compile_model(folder / f"{arm}.xml", "CPU", settings).create_infer_request()

        def infer(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            outputs = request.infer({0: normalised(clip)})
            return outputs[0], outputs[1]

        return infer
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / f"{arm}.onnx", settings, providers=["CPUExecutionProvider"])
    prepared = np.asarray if arm.startswith("ours") else normalised

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        video_embeds, img_features = session.run(None, {"pixel_values": prepared(clip)})
        return video_embeds, img_features

    return run


def load_gemm(arm: str, options: argparse.Namespace) -> Callable[[], object]:
    """Build the product of all rows of a clip with the first weight of an MLP."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((options.frames * 197, 768), (768, 3072)))
    if arm == "gemm-torch":
        import torch

        torch.set_num_threads(options.threads)
        return lambda: torch.mm(torch.from_numpy(a), torch.from_numpy(b))
    import onnxruntime

    from xclip_export.graph import GraphBuilder

    graph = GraphBuilder("gemm")
    graph.node("MatMul", [graph.input("a", np.float32, list(a.shape)), graph.constant("b", b)], "product")
    graph.output("product", np.float32, [len(a), b.shape[1]])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    model = graph.model().SerializeToString()
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


GEMM_REPEATS = 20


def gemm_flops(options: argparse.Namespace) -> float:
    """Count the floating-point operations of one turn of the matrix product."""
    return 2.0 * options.frames * 197 * 768 * 3072 * GEMM_REPEATS


def clip_flops(options: argparse.Namespace) -> float:
    """Count the floating-point operations of vision tower and MIT for one clip: two per multiply-add."""
    grid = 224 // options.patch
    patches, dim, width = grid**2, 768, 512
    tokens, frames = 1 + patches, options.frames
    attention = (2 * tokens + 2 * (tokens + 1)) * dim**2 + 2 * tokens * (tokens + 1) * dim
    message = 5 * dim**2 + 2 * frames * dim
    layer = attention + 8 * tokens * dim**2 + message
    embed = patches * dim * 3 * options.patch**2 + dim * width
    once = patches * dim * width + frames * 12 * width**2 + 2 * frames**2 * width
    return 2.0 * (frames * (options.layers * layer + embed) + once)


def work(arm: str, folder: Path, options: argparse.Namespace, load: Load = load) -> None:
    """Run an arm's process: load, then print one JSON line for each path read from stdin.

    A .npy file is loaded as a clip; any other path is passed to the arm as it is.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps output of libraries out of the answers
    started = time.perf_counter()
    try:
        run = load(arm, folder, options)
        print(json.dumps({"load_s": time.perf_counter() - started}), file=answers)
        for line in sys.stdin:
            print(json.dumps(answer(run, line.strip(), folder / f"{arm}.npz")), file=answers)
    except Exception as error:  # any error of a peer goes to its row of the table
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]}), file=answers)
        raise


def answer(run: Run, name: str, output: Path) -> dict[str, Any]:
    """Run a clip or a file, save the outputs, and return time and peak memory."""
    clip = np.load(name) if name.endswith(".npy") else name
    others, own, started = busy_seconds(), time.process_time(), time.perf_counter()
    video_embeds, img_features = run(clip)
    seconds = time.perf_counter() - started
    others = busy_seconds() - others - (time.process_time() - own)
    np.savez(output, video_embeds=video_embeds, img_features=img_features)
    return {
        "seconds": seconds,
        "others": max(0.0, others) / seconds,
        "peak_mb": peak_rss_mb(),
        "output": str(output),
    }


class Arm:
    """Process of one arm."""

    def __init__(self, name: str, folder: Path, options: argparse.Namespace, script: str = __file__) -> None:
        started = time.perf_counter()
        self.name, self.seconds, self.others, self.peak_mb = name, list[float](), list[float](), 0.0
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", name, str(folder), *forwarded(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.load_s = self._answer()["load_s"]
        self.start_to_loaded_s = time.perf_counter() - started
        self.first_s: float | None = None

    def turn(self, clip: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run one clip; the first run is recorded apart from the others."""
        assert self.process.stdin is not None
        time.sleep(PAUSE)
        print(clip, file=self.process.stdin, flush=True)
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        if self.first_s is None:
            self.first_s = answer["seconds"]
        else:
            self.seconds.append(answer["seconds"])
            self.others.append(answer["others"])
        with np.load(answer["output"]) as outputs:
            return outputs["video_embeds"], outputs["img_features"]

    def close(self) -> None:
        """Close stdin and wait for the process to exit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            message = f"the process of arm {self.name} ended with status {self.process.wait()}"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def forwarded(options: argparse.Namespace) -> list[str]:
    """Format the options that give a child process the same configuration."""
    return [
        f"--{name}={getattr(options, name)}" for name in ("frames", "patch", "layers", "threads", "rounds", "clips")
    ]


class Labels:
    """Logits for seeded label embeddings, from the checkpoint's prompt tower in torch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from xclip_export.towers import PromptTower

        self.prompt = PromptTower(seeded(options)).eval()
        dim = self.prompt.config.projection_dim
        self.texts = torch.randn(LABELS, dim, generator=torch.Generator().manual_seed(2))

    def __call__(self, outputs: tuple[NDArray[np.float32], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Map the vision graph's outputs for one clip to logits (N,)."""
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self.prompt(*map(torch.from_numpy, outputs), self.texts).numpy()
        return logits[0]


def take_turns(arms: Collection[Arm], clip: Path, rounds: int) -> tuple[list[int], bool]:
    """Run all arms, round by round, then close them.

    Returns:
        Rounds that count; True if other processes took at most a tenth of every clip's time in them.
    """
    for index in range(rounds):
        for arm in arms:
            arm.turn(clip)
        others = max(arm.others[-1] for arm in arms)
        print(f"round {index + 1} of {rounds}; others took up to {others:.0%} of a clip", file=sys.stderr)
    for arm in arms:
        arm.close()
    return quiet_rounds([max(arm.others[i] for arm in arms) for i in range(rounds)])


def quiet_rounds(others: Sequence[float]) -> tuple[list[int], bool]:
    """Select rounds by the share of a clip's time that other processes took; True if all selected are at most 0.1."""
    quiet = [i for i, share in enumerate(others) if share <= 0.1]
    return (quiet, True) if len(quiet) >= min(3, len(others)) else (list(range(len(others))), False)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time all arms, interleaved."""
    names = [arm for arm in ARMS if has_openvino() or not arm.startswith("openvino")]
    clip = folder / "clip.npy"
    np.save(clip, evaluation_clips(options.frames, 224, 1)[0])
    arms = {}
    for name in [*names, *GEMMS]:
        arms[name] = Arm(name, folder, options)
        arms[name].turn(clip)
        print(f"{name}: loaded in {arms[name].load_s:.1f} s", file=sys.stderr)
    rounds, quiet = take_turns(arms.values(), clip, options.rounds)

    def ratio(name: str, to: str) -> float:
        return statistics.median(arms[name].seconds[i] / arms[to].seconds[i] for i in rounds)

    roof = [max(gemm_flops(options) / arms[gemm].seconds[i] for gemm in GEMMS) for i in rounds]
    result = {
        "gemm_gflops": statistics.median(roof) / 1e9,
        "clip_gflop": clip_flops(options) / 1e9,
        "rounds": options.rounds,
        "rounds_counted": len(rounds),
        "quiet": quiet,
        "arms": {},
    }
    for name in names:
        arm = arms[name]
        of_roof = [clip_flops(options) / arm.seconds[i] / rate for i, rate in zip(rounds, roof, strict=True)]
        result["arms"][name] = {
            "what": ARMS[name],
            "seconds_median": statistics.median(arm.seconds[i] for i in rounds),
            "seconds_min": min(arm.seconds[i] for i in rounds),
            "to_plain": ratio(name, REFERENCE),
            "to_openvino": ratio(name, f"openvino-{'int8' if name.endswith('int8') else 'fp32'}")
            if "openvino-fp32" in arms
            else None,
            "of_gemm_rate": statistics.median(of_roof),
            "load_s": arm.load_s,
            "start_to_loaded_s": arm.start_to_loaded_s,
            "first_clip_s": arm.first_s,
            "peak_mb": arm.peak_mb,
            "others_median": statistics.median(arm.others),
        }
    return result


def accuracy(options: argparse.Namespace, folder: Path, twin: Path) -> dict[str, Any]:
    """Measure logit errors against transformers; the twin computes the same function, so both share one reference."""
    clips = evaluation_clips(options.frames, 224, options.clips)
    labels, path = Labels(options), folder / "clip.npy"
    reference = Arm("transformers", folder, options)
    expected = []
    for clip in clips:
        np.save(path, clip)
        expected.append(labels(reference.turn(path)))
    reference.close()
    result = {"clips": len(clips), "logit_std": float(np.std(expected)), "arms": {}}
    names = [arm for arm in ARMS if arm != "transformers" and (has_openvino() or not arm.startswith("openvino"))]
    for source, suffix in ((folder, ""), (twin, " on the outlier twin")):
        for name in names if source == folder else [n for n in names if "int8" in n or n == "ours-fp32"]:
            arm, actual = Arm(name, source, options), []
            for clip in clips:
                np.save(path, clip)
                actual.append(labels(arm.turn(path)))
            arm.close()
            errors = np.abs(np.subtract(actual, expected))
            agreement = np.equal(np.argmax(actual, axis=1), np.argmax(expected, axis=1)).mean()
            result["arms"][name + suffix] = {
                "p50": float(np.median(errors)),
                "p99": float(np.quantile(errors, 0.99)),
                "max": float(errors.max()),
                "top1_agreement": float(agreement),
            }
            print(f"{name}{suffix}: {result['arms'][name + suffix]}", file=sys.stderr)
    return result


def record() -> dict[str, Any]:
    """Command, date and machine: the header of every saved result."""
    script = Path(sys.argv[0]).resolve()
    return {
        "command": shlex.join(["python", script.relative_to(ROOT).as_posix(), *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """CPU, cores and software versions."""
    versions = {}
    for name in ("onnxruntime", "openvino", "nncf", "torch", "transformers", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown."""
    speed = result["speed"]
    lines = [
        f"Large fp32 GEMM: {speed['gemm_gflops']:.0f} GFLOP/s; one clip: {speed['clip_gflop']:.0f} GFLOP. "
        f"{speed['rounds_counted']} of {speed['rounds']} rounds counted"
        + ("." if speed["quiet"] else "; the machine was not quiet."),
        "",
        "| arm | s/clip | / plain | / OpenVINO | of GEMM rate | start to answer s | load s | first clip s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in speed["arms"].values():
        to_openvino = "" if arm["to_openvino"] is None else f"{arm['to_openvino']:.2f}"
        lines.append(
            f"| {arm['what']} | {arm['seconds_median']:.2f} | {arm['to_plain']:.2f} | {to_openvino} "
            f"| {arm['of_gemm_rate']:.0%} | {arm['start_to_loaded_s'] + arm['first_clip_s']:.1f} "
            f"| {arm['load_s']:.1f} | {arm['first_clip_s']:.2f} | {arm['peak_mb']:.0f} |"
        )
    if "accuracy" in result:
        found = result["accuracy"]
        lines += [
            "",
            f"{found['clips']} clips, {LABELS} seeded labels; the logits have a deviation of {found['logit_std']:.1f}.",
            "",
            "| arm | abs. logit error p50 | p99 | max | top-1 agreement |",
            "|---|---|---|---|---|",
        ]
        for name, arm in found["arms"].items():
            lines.append(
                f"| {name} | {arm['p50']:.4f} | {arm['p99']:.4f} | {arm['max']:.4f} | {arm['top1_agreement']:.1%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--clips", type=int, default=64, help="clips of the accuracy part, which uses 8 frames; 0 skips it"
    )
    parser.add_argument("--quick", action="store_true", help="8 frames, 3 rounds, 8 clips")
    parser.add_argument("--cache", type=Path, help="folder to keep the arms' files")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--worker", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]), options)
        return
    if options.prepare:
        prepare(options, Path(options.prepare[1]), outliers=options.prepare[0] == "twin")
        return
    if options.quick:
        options.frames, options.rounds, options.clips = 8, 3, 8
    with tempfile.TemporaryDirectory() as temporary:
        root = options.cache or Path(temporary)
        short = argparse.Namespace(**{**vars(options), "frames": 8})

        def folder(shape: argparse.Namespace, kind: str) -> Path:
            made = root / f"b{shape.patch}-{shape.frames}-{shape.layers}-{kind}"
            # In a child process, whose memory is released before measuring.
            command = [sys.executable, __file__, "--prepare", kind, str(made), *forwarded(shape)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return made

        result: dict[str, Any] = {**record(), "options": vars(options)}
        result["speed"] = measure(options, folder(options, "seeded"))
        if options.clips:
            result["accuracy"] = accuracy(short, folder(short, "seeded"), folder(short, "twin"))
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
