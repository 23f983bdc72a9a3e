"""Records of benchmarks/results read, and their figures as Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, header))} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def span(values: Sequence[float], digits: str) -> str:
    """The least and the largest, or the one that both are when rounded."""
    return " to ".join(dict.fromkeys(format(value, digits) for value in (min(values), max(values))))


def share_cells(value: float, low: float, high: float) -> tuple[str, str]:
    """Cells of a share and its interval."""
    return f"{value:.1%}", f"{low:.1%} to {high:.1%}"


def thousands(value: float) -> str:
    """A number with groups of three digits."""
    return f"{value:,.0f}".replace(",", " ") if value >= 10_000 else f"{value:.0f}"


def where(result: dict[str, Any]) -> str:
    """Date and machine, from the head that ``records.record`` gives a result."""
    machine = result["machine"]
    made = f"{machine['cpu']}, {machine['cores']} cores, onnxruntime {machine['versions']['onnxruntime']}"
    return f"Measured on {result['date']}: {made}."


def read(path: Path) -> dict[str, Any]:
    """Read a record."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
