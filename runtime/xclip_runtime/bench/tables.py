"""Text of a report, for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def scenario_rows(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Format the table of scenarios; return its header and rows."""
    header = ("scenario", "metric", "result", "p50 ms", "p90 ms", "p99 ms", "clips/s", "n")
    rows = []
    for name, scenario in report["scenarios"].items():
        latency = scenario["latency_ms"] if name != "Offline" else {}
        result = "n too small" if scenario["value"] is None else f"{scenario['value']:.4g} {scenario['unit']}"
        if name == "Server" and scenario["value"] is None:
            result = "no rate held"
        quantiles = [plain(latency.get(q)) for q in ("p50", "p90", "p99")]
        rate = plain(scenario["samples_per_second"])
        rows.append([name, scenario["metric"], result, *quantiles, rate, str(scenario["n"])])
    return header, rows


def disturbance(report: Mapping[str, Any]) -> str | None:
    """Return a warning if other processes were running; None on a quiet machine."""
    if report["others_cpu"] <= 0.1:
        return None
    return f"other processes used {report['others_cpu']:.1f} CPUs meanwhile: measure again on a quiet machine"


def plain(value: Any) -> str:
    """Format a value: four digits for a number, a dash for None, and collections item by item."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)
