"""Compare two reports: ratios with intervals, and the settings that make reports incomparable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bench.latency import ratio_interval
from xclip_runtime.errors import ReportError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

SCHEMA = 2
"""Version of the report; 1 measured features and prompts apart rather than `classify`."""
LEAST = 5
"""Minimum number of measurements on either side for an interval."""


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a report of ``bench --json``.

    Raises:
        ReportError: The file is missing or not a report.
    """
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


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """List the differences that make a ratio meaningless: in machine, settings, threads or execution provider."""
    pairs = [(name, a[part].get(name), b[part].get(name)) for part in ("machine", "settings") for name in a[part]]
    pairs += [(name, a["model"][name], b["model"][name]) for name in ("provider", "intra_op_threads", "optimize_for")]
    return [f"{name}: {one!r} and {other!r}" for name, one, other in pairs if one != other]


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare every metric that both reports have.

    Returns:
        ``metric``, ``unit``, ``a``, ``b``, ``ratio`` (b / a), ``interval`` (95 %, or None if a side has fewer than five
        measurements), ``n`` of both.
    """
    found = []
    of_b = {name: (unit, values) for name, unit, values in _series(b)}
    for name, unit, values in _series(a):
        others = of_b.get(name, ("", []))[1]
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
