"""Tables of what ran on a GPU, for docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from formatting import read, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def gpu_checks(results: Path) -> Iterator[str]:
    """Largest differences of logits on a GPU."""
    result = read(results / "gpu.json")
    checks = result["checks"]
    kinds = {
        "self-test": "from the checkpoint's logits",
        "a clip alone": "between a clip alone and in a batch",
        "CUDA graphs on and off": "between CUDA graphs and plain runs",
    }

    def largest(kind: str, precision: str) -> float:
        found = (each for each in checks if kind in each["check"] and each["check"].startswith(precision))
        return max(each["max_abs_logit"] for each in found)

    rows = [[title, *(f"{largest(kind, name):.2g}" for name in ("fp32", "fp16"))] for kind, title in kinds.items()]
    yield table(("largest difference of a logit", "fp32", "fp16"), rows)
    allowed = " and ".join(dict.fromkeys(str(each["tolerance"]) for each in checks if "tolerance" in each))
    passed = f"{sum(each['ok'] for each in checks)} of {len(checks)} checks passed"
    yield f"Allowed from the checkpoint's logits: {allowed}. {passed}. {_gpu(result)}"


def gpu_sweep(results: Path) -> Iterator[str]:
    """Speed of a bundle on a GPU, with CUDA graphs and without."""
    result = read(results / "gpu.json")
    rows = [
        [row["precision"], "yes" if row["cuda_graph"] else "no", row["batch"]]
        + [f"{row['model'][key]:.1f}" for key in ("ms_p50", "ms_p90")]
        + [f"{row[part]['clips_per_second']:.0f}" for part in ("model", "files")]
        for row in result["sweep"]
    ]
    yield table(("precision", "CUDA graphs", "batch", "ms p50", "ms p90", "clips/s", "clips/s from files"), rows)
    yield _gpu(result)


def gpu_peers_table(results: Path) -> Iterator[str]:
    """Other ways to run the model on a GPU."""
    result = read(results / "gpu-peers.json")
    batches = sorted({row["batch"] for row in result["arms"]})
    arms: dict[str, list[str]] = {}
    for row in sorted(result["arms"], key=lambda row: batches.index(row["batch"])):
        arms.setdefault(row["what"], []).extend(_gpu_peer(row))
    header = [f"batch {batch}: {of}" for batch in batches for of in ("ms", "/ ours fp16", "logit error p50 / max")]
    yield table(("", *header), [[what, *cells] for what, cells in arms.items()])
    used = result["environment"]["peers"]
    yield f"{_gpu(result)} torch {used['torch']}, transformers {used['transformers']}."


def gpu_serve_table(results: Path) -> Iterator[str]:
    """A server on a GPU beside `classify`, once it has been measured."""
    if not (results / "gpu-serve.json").is_file():
        yield "Not measured yet."
        return
    result = read(results / "gpu-serve.json")
    rate = min(result["classify_per_second"])
    rows = [
        [row["clients"], f"{row['per_second']:.0f}", f"{100 * row['per_second'] / rate:.0f} %"]
        + [f"{row[key]:.0f}" for key in ("p50_ms", "p95_ms", "failed")]
        for row in result["load"]
    ]
    yield table(("clients", "files/s", "of classify", "ms p50", "ms p95", "failed"), rows)
    yield f"`classify` takes {rate:.0f} files/s. {_gpu(result)}"


def _gpu_peer(row: dict[str, Any]) -> list[str]:
    if "missing" in row:
        return [row["missing"], "", ""]
    error = f"{row['logit_p50']:.4f} / {row['logit_max']:.4f}" if row["arm"] != "eager-fp32" else "reference"
    return [f"{row['ms']:.1f}", f"{row['ratio_to_ours']:.2f}", error]


def _gpu(result: dict[str, Any]) -> str:
    environment = result["environment"]
    version = environment.get("versions", environment)["onnxruntime"]
    return f"Measured on {environment['date']}: {gpu_names(result)}, onnxruntime-gpu {version}."


def gpu_names(result: dict[str, Any]) -> str:
    """Names of the GPUs of a record."""
    return ", ".join(gpu["name"] for gpu in result["environment"]["gpus"])
