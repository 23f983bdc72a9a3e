"""Write the README's figures from the JSON in benchmarks/results, so that no number in it is typed by hand.

    python benchmarks/figures.py            # rewrite the blocks of README.md
    python benchmarks/figures.py --check    # exit 1 if a block differs from what the JSON says; the tests do this

A block stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import peers

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)
PAIRS = {"seen": "seen in training", "held-out": "held out of training, clips and texts both"}


def motion_demo(results: Path) -> str:
    """Accuracy of the embedded model, in every precision that was compared."""
    reports = {name: _read(results / f"motion-demo-{name}.json") for name in PAIRS}
    lines = ["| pairs of colour and motion | precision | top-1 | 95 % interval | n |", "|---|---|---|---|---|"]
    for name, pairs in PAIRS.items():
        for report in (reports[name], reports[name]["compared"]):
            low, high = report["top1_interval"]
            interval = f"{low:.1%} to {high:.1%}"
            lines.append(f"| {pairs} | {report['precision']} | {report['top1']:.1%} | {interval} | {report['n']} |")
    mistakes = Counter((m["label"], m["answer"]) for m in reports["held-out"]["mistakes"])
    (label, answer), most = mistakes.most_common(1)[0]
    agreed = sum(round(r["comparison"]["agreement"] * r["comparison"]["n"]) for r in reports.values())
    n = sum(r["comparison"]["n"] for r in reports.values())
    measured = f"{reports['seen']['date']} with onnxruntime {reports['seen']['versions']['onnxruntime']}"
    return "\n".join(
        [
            *lines,
            "",
            f"Of the {mistakes.total()} mistakes of fp32 on held-out pairs, {most} take `{label}` for `{answer}`.",
            f"fp32 and int8 give the same answer for {agreed} of all {n} videos. Measured on {measured}.",
        ]
    )


def peer_tables(results: Path) -> str:
    """Speed, memory, size and exactness beside every peer; where nothing was measured, that it was not."""
    file = results / "peers.json"
    if not file.exists():
        return "This table has not been measured for this version yet."
    result = _read(file)
    parts = [peers.heading(result), peers.vision_table(result)]
    if "end_to_end" in result:
        parts.append(peers.end_to_end_table(result))
    return "\n\n".join(parts)


def decode_table(results: Path) -> str:
    """Time to read a video, beside other ways to read it."""
    result = _read(results / "decode.json")
    rows = {**result["short_ms"], **result["long_ms"]}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| ms | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, row in rows.items():
        cells = (f"{row[name]:.0f}" if row.get(name, math.nan) >= 0 else "" for name in names)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    prepared = ", ".join(f"{name} {ms:.0f} ms" for name, ms in result["prepare_ms"]["1080p"].items())
    versions = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if name != "architecture")
    clock = "processor time" if result["clock"] == "processor" else "elapsed time"
    return "\n".join(
        [*lines, "", f"Preparing 32 1080p pictures in memory: {prepared}.", f"Medians of {clock}; {versions}."]
    )


FIGURES: dict[str, Callable[[Path], str]] = {"motion-demo": motion_demo, "peers": peer_tables, "decode": decode_table}


def with_figures(text: str, results: Path = RESULTS) -> str:
    """A README whose blocks hold what the results say."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{FIGURES[block[2]](results)}\n\n{block[4]}", text)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def main() -> int:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a figure differs")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    figures = with_figures(text)
    if options.check:
        return int(figures != text)
    readme.write_text(figures, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
