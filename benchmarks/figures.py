"""Write the measured figures of README.md and docs/benchmarks.md from the JSON in benchmarks/results.

    python benchmarks/figures.py            # rewrite the blocks
    python benchmarks/figures.py --check    # exit 1 if a block differs from the records; the tests do this

A block stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import gpu_tables
import stream_tables
import tables
from formatting import read, table
from peer_tables import peer_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/benchmarks.md")
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->)\n.*?(<!-- end of figures -->)", re.DOTALL)
WIDTH = 120
# Row of the summary: label, record on the CPU, record on the GPU.
SUMMARY = (
    ("transformers, PyTorch eager, fp32", "torch-fp32", "eager-fp32"),
    ("transformers, torch.compile, bf16 (CPU) or fp16 (GPU)", "compile-bf16", "compile-fp16"),
    ("plain ONNX export, ONNX Runtime, fp32", "plain", "plain-fp32"),
    ("OpenVINO, fp32", "openvino-fp32", ""),
    ("OpenVINO, bf16", "openvino-bf16", ""),
    ("OpenVINO, int8 (NNCF)", "openvino-int8", ""),
    ("OpenVINO, int8 (NNCF) and bf16", "openvino-int8-bf16", ""),
    ("**xclip-onnx**, fp32", "ours-fp32", "ours-fp32"),
    ("**xclip-onnx**, fp16", "", "ours-fp16"),
    ("**xclip-onnx**, int8", "ours-int8", ""),
    ("**xclip-onnx** on OpenVINO, bf16", "ours-openvino-bf16", ""),
    ("**xclip-onnx** on OpenVINO, int8", "ours-openvino-int8", ""),
)


def summary(results: Path) -> Iterator[str]:
    """Time, memory and exactness beside the nearest peers, in the README's one table."""
    peers, gpu = peer_records(results), read(results / "gpu-peers.json")
    batch = max(row["batch"] for row in gpu["arms"])
    on_gpu = {row["arm"]: row for row in gpu["arms"] if row["batch"] == batch}
    main = max(peers, key=lambda kind: sum("seconds_median" in arm for arm in peers[kind]["vision"]["arms"].values()))
    arms, errors = peers[main]["vision"]["arms"], peers[main]["accuracy"]["arms"]

    def cells(peer: str, gpu_peer: str) -> Iterator[str]:
        for found in (record["vision"]["arms"].get(peer, {}) for record in peers.values()):
            yield f"{found['seconds_median']:.2f}" if "seconds_median" in found else ""
        for key, digits in (("peak_mb", 0), ("start_to_first_answer_s", 1)):
            yield f"{arms[peer][key]:.{digits}f}" if key in arms.get(peer, {}) else ""
        ran = peer in errors and "p50" in errors[peer]
        yield f"{errors[peer]['p50']:.3f} / {errors[peer]['max']:.3f}" if ran else ""
        yield f"{on_gpu[gpu_peer]['ms']:.1f}" if "ms" in on_gpu.get(gpu_peer, {}) else ""

    header = ("", *(f"{kind}: s/clip" for kind in peers), "peak MB", "process start to answer, s")
    rows = [[title, *shown] for title, *names in SUMMARY if any(shown := list(cells(*names)))]
    yield table((*header, "logit error p50 / max", f"GPU: ms for {batch} clips"), rows)
    machines = "; ".join(
        f"{kind}: {each['machine']['cpu']}, {each['machine']['cores']} cores, {each['date']}"
        for kind, each in peers.items()
    )
    yield (
        f"ViT-B/16, 32 frames, seeded weights, without decoding. {machines}. Memory, start and errors, which are "
        f"against transformers in fp32, are those of {main}. GPU: "
        f"{gpu_tables.gpu_names(gpu)}, {gpu['environment']['date']}, with the fp16 graph of that day."
    )
    top1 = [read(results / f"motion-demo-{name}.json")["top1"] for name in tables.PAIRS]
    yield (
        f"The embedded motion-demo, on rendered clips: top-1 {top1[0]:.1%} for pairs of colour and motion that "
        f"training saw, {top1[1]:.1%} for others."
    )


FIGURES: dict[str, Callable[[Path], Iterable[str]]] = {
    "summary": summary,
    "motion-demo": tables.motion_demo,
    "typed-labels": tables.typed_labels,
    "peers": tables.peer_tables,
    "decode": tables.decode_table,
    "pipeline": tables.pipeline,
    "stream": tables.stream_table,
    "stream-cache": stream_tables.stream_cache,
    "stream-cuts": stream_tables.stream_cuts,
    "stream-latency": stream_tables.stream_latency,
    "labels": tables.labels,
    "retrieval": tables.retrieval,
    "serve": tables.serve_tables,
    "machines": tables.machines,
    "parity": tables.parity,
    "outlier-twin": tables.outlier_twin,
    "threads": tables.threads_table,
    "openvino": tables.openvino_table,
    "gpu-checks": gpu_tables.gpu_checks,
    "gpu": gpu_tables.gpu_sweep,
    "gpu-peers": gpu_tables.gpu_peers_table,
    "gpu-serve": gpu_tables.gpu_serve_table,
    "installed": tables.installed,
}


def with_figures(text: str, results: Path = RESULTS) -> str:
    """Return a document with its blocks written anew."""

    def with_paragraphs(block: re.Match[str]) -> str:
        return "\n\n".join([block[1], *map(_wrapped, FIGURES[block[2]](results)), block[3]])

    return BLOCK.sub(with_paragraphs, text)


def _wrapped(paragraph: str) -> str:
    """Wrap a paragraph to the documents' width; leave tables as they are."""
    return paragraph if paragraph.startswith("|") else textwrap.fill(paragraph, WIDTH, break_on_hyphens=False)


def main() -> int:
    """Rewrite or check the documents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a figure differs")
    check = parser.parse_args().check
    differing = {
        path: text for path in DOCUMENTS if (text := with_figures(path.read_text("utf-8"))) != path.read_text("utf-8")
    }
    for path, text in differing.items():
        if not check:
            path.write_text(text, "utf-8")
        print(path.relative_to(ROOT), "differs" if check else "rewritten", file=sys.stderr)
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
