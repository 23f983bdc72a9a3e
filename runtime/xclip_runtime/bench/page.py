"""HTML page of a report with embedded plots, and PNG files beside it."""

from __future__ import annotations

import base64
import json
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bench.plots import plot_latencies, plot_load, plot_stages, plot_sweeps
from xclip_runtime.bench.report import disturbance, plain, scenario_rows
from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

COLD_STAGES = ("start", "import", "load", "first")
WARM_STAGES = ("decode", "prepare", "vision", "prompt")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
table { border-collapse: collapse; font-size: .9rem } img { max-width: 100%; height: auto }
td, th { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 } .note { color: #666; font-size: .9rem }
.card { border: 1px solid #ddd; border-radius: .5rem; padding: .7rem 1rem; min-width: 8.5rem; flex: 1 }
.card b { display: block; font-size: 1.3rem; white-space: nowrap } .card span { color: #666; font-size: .85rem }
summary { cursor: pointer } pre { font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
"""


def write_page(folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Write ``index.html``, ``report.json`` and the plots; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = list(_plots(folder, report))
    write_json(folder / "report.json", report)
    (folder / "index.html").write_text(_html(folder, report, plots), "utf-8")
    return ["index.html", "report.json", *plots]


def _plots(folder: Path, report: Mapping[str, Any]) -> Iterator[str]:
    latencies = {
        name: scenario["latencies_ms"]
        for name, scenario in report["scenarios"].items()
        if name != "Offline" and scenario["latencies_ms"]
    }
    if latencies:
        plot_latencies(folder / "latency.png", latencies)
        yield "latency.png"
    if report["sweeps"].get("rate"):
        plot_load(folder / "load.png", report["sweeps"]["rate"])
        yield "load.png"
    if report["stages"]:
        warm = {name: float(np.median(report["stages"][name])) for name in WARM_STAGES}
        cold = {name: float(np.median(report["cold_start"][name])) for name in COLD_STAGES if report["cold_start"]}
        plot_stages(folder / "stages.png", warm, cold)
        yield "stages.png"
    sweeps = {name: points for name, points in report["sweeps"].items() if name != "rate"}
    if sweeps:
        plot_sweeps(folder / "sweeps.png", sweeps)
        yield "sweeps.png"


def _html(folder: Path, report: Mapping[str, Any], plots: Iterable[str]) -> str:
    model, machine = report["model"], report["machine"]
    title = f"{model['name']}, {model['precision']} on {model['provider']}"
    embedded = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in plots}
    images = {name: f'<img alt="{name[:-4]}" src="data:image/png;base64,{data}">' for name, data in embedded.items()}
    sections = (("Where the time goes", "stages.png"), ("Under load", "load.png"), ("Sweeps", "sweeps.png"))
    recorded = [report[part] for part in ("machine", "software", "model", "settings")]
    facts = [[name.replace("_", " "), plain(value)] for part in recorded for name, value in part.items()]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>",
        '<meta name=viewport content="width=device-width">',
        f"<h1>{escape(title)}</h1><p class=note>xclip-onnx bench, {escape(report['date'])}; {escape(machine['cpu'])}, ",
        f"{machine['cpus_usable']} CPUs, {model['threads']} intra-op threads</p>",
        f"<p><strong>{escape(noise[0].upper() + noise[1:])}.</strong></p>" if (noise := disturbance(report)) else "",
        _cards(report),
        "<h2>Scenarios</h2>",
        _table(*scenario_rows(report)),
        f"<p class=note>MLPerf-style, load by {report['settings']['generator']}: MLPerf's scenarios, in runs far ",
        "shorter than its rules ask for. A quantile is shown only where n leaves a sample beyond it: p99 needs 100. ",
        "Latencies of Server count from the scheduled start.</p>",
        images.get("latency.png", ""),
        *(f"<h2>{heading}</h2>{images[name]}" for heading, name in sections if name in images),
        "<h2>Machine, software, settings</h2>",
        _table((), facts),
        "<details><summary>The whole report as JSON</summary><pre>",
        escape(json.dumps(_without_series(report), indent=1, ensure_ascii=False)),
        "</pre><p class=note>Without the lists of single latencies, which report.json has.</p></details></html>",
    ]
    return "".join(parts)


def _cards(report: Mapping[str, Any]) -> str:
    cards = []
    single, offline = report["scenarios"].get("SingleStream"), report["scenarios"].get("Offline")
    if single and single["latency_ms"]["p50"] is not None:
        cards.append((f"{single['latency_ms']['p50']:.4g} ms", f"median latency, n = {single['n']}"))
    if offline:
        cards.append((f"{offline['value']:.3g} clips/s", f"offline throughput, n = {offline['n']}"))
    if report["stages"]:
        total = report["stages"]["total"]
        cards.append((f"{np.median(total):.4g} ms", f"file to labels, median, n = {len(total)}"))
    if report["cold_start"]:
        first = report["cold_start"]["to_first_answer"]
        cards.append((f"{np.median(first) / 1000:.2f} s", f"process start to first answer, n = {len(first)}"))
        if report["cold_start"]["peak_rss_mb"]:
            cards.append((f"{report['cold_start']['peak_rss_mb']:.0f} MB", "peak RSS of such a process"))
    inside = "".join(f"<div class=card><b>{value}</b><span>{name}</span></div>" for value, name in cards)
    return f"<div class=cards>{inside}</div>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [" class=number" if 2 <= place < len(header) else "" for place in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    head = f"<tr>{cells(header, 'th')}</tr>" if header else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _without_series(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_series(item) for name, item in value.items() if name != "latencies_ms"}
    return value
