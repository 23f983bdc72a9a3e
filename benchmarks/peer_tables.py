"""Result of benchmarks/peers.py as Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peer_arms import OURS

if TYPE_CHECKING:
    from pathlib import Path

VISION_COLUMNS = (
    *("arm", "s/clip", "/ ours fp32", "/ ours int8", "of GEMM rate", "peak MB", "load s", "start to first s"),
    *("installed MB", "logit error p50 / max", "same top-1"),
)


def peer_records(results: Path) -> dict[str, dict[str, Any]]:
    """Read the record of every kind of processor, by the kind's name."""
    files = sorted((results / "peers").glob("*.json"))
    return {file.stem.replace("-", " ").title(): json.loads(file.read_text("utf-8")) for file in files}


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
