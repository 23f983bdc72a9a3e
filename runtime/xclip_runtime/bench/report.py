"""Read a report, put it into words, and compare it with another: ratios with intervals, and what forbids them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import ReportError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

SCHEMA = 2
"""Version of the report; 1 measured features and prompts apart rather than `classify`."""
LEAST = 5
"""Minimum number of measurements on either side for an interval."""
RESAMPLES = 2000


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a report of ``bench --json``."""
    try:
        report = json.loads(Path(path).read_bytes())
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise ReportError(message) from error
    except ValueError as error:
        message = f"{path} is not JSON: give what `xclip-onnx bench --json` printed"
        raise ReportError(message) from error
    if not isinstance(report, dict) or report.get("bench_schema") != SCHEMA:
        message = f"{path} is not a report of this version: give what `xclip-onnx bench --json` printed"
        raise ReportError(message)
    return report


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


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """List the differences that make a ratio meaningless: in machine, settings, threads or execution provider."""
    pairs = [(name, a[part].get(name), b[part].get(name)) for part in ("machine", "settings") for name in a[part]]
    pairs += [(name, a["model"][name], b["model"][name]) for name in ("provider", "threads", "optimize_for")]
    return [f"{name}: {one!r} and {other!r}" for name, one, other in pairs if one != other]


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare every metric that both reports have: medians, their ratio b / a, and its 95 % interval if n suffices."""
    found = []
    of_b = {name: values for name, _, values in _series(b)}
    for name, unit, values in _series(a):
        others = of_b.get(name)
        if not values or not others:
            continue
        first, second = float(np.median(values)), float(np.median(others))
        enough = min(len(values), len(others)) >= LEAST
        found.append(
            {
                "metric": name,
                "unit": unit,
                "a": first,
                "b": second,
                "ratio": second / first if first else None,
                "interval": list(ratio_interval(values, others, lambda x: float(np.median(x)))) if enough else None,
                "n": [len(values), len(others)],
            }
        )
    return found


def ratio_interval(
    a: Sequence[float], b: Sequence[float], statistic: Callable[[NDArray[np.float64]], float]
) -> tuple[float, float]:
    """Compute the 95 % percentile-bootstrap interval of ``statistic(b) / statistic(a)``, with seeded resampling.

    Source: Efron 1979, doi 10.1214/aos/1176344552.
    """
    rng = np.random.default_rng(0)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    ratios = [
        statistic(rng.choice(second, len(second))) / statistic(rng.choice(first, len(first))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def _series(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[float]]]:
    """Yield independent measurements by metric, so not the latencies of Server and Offline, which queue."""
    for name, scenario in report["scenarios"].items():
        if name in ("SingleStream", "MultiStream"):
            yield f"{name} latency, median", "ms", scenario["latencies_ms"]
        elif scenario["value"] is not None:
            yield f"{name} {scenario['unit']}", scenario["unit"], [scenario["value"]]
    for name, values in (report["stages"] or {}).items():
        yield f"stage {name}, median", "ms", values
    for name, values in (report["cold_start"] or {}).items():
        if name == "peak_rss_mb":
            yield "peak RSS", "MB", [values] if values else []
        else:
            yield f"cold start {name}, median", "ms", values
