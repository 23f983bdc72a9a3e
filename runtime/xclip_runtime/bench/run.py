"""Run a benchmark plan on one bundle, and report."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bench.cold_start import cold_starts
from xclip_runtime.bench.machine import busy_seconds, machine, software
from xclip_runtime.bench.report import SCHEMA
from xclip_runtime.bench.scenarios import run_scenario
from xclip_runtime.bench.sweeps import run_sweep
from xclip_runtime.bench.workload import Workload, stage_times
from xclip_runtime.bundle import Bundle, sha256_of
from xclip_runtime.model import XClip
from xclip_runtime.util.memory import peak_rss_mb

if TYPE_CHECKING:
    from collections.abc import Callable

    from xclip_runtime.bench.plan import Plan


def bench(plan: Plan, progress: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Run a plan, and return the ``bench --json`` document; ``progress`` gets the name of each part as it begins."""
    Bundle.open(plan.bundle)  # A missing bundle fails before any process is started.
    begun, others = time.perf_counter(), _cpu_seconds_of_others()
    progress("cold start")
    cold = None
    if plan.cold_starts:
        cold = cold_starts(plan.bundle, plan.videos[0], plan.options, plan.cold_starts)
    progress("loading")
    model = _load(plan)
    workload = Workload.of(model, plan.videos, plan.input, plan.batch_size)
    workload.warm_up()
    seconds, count = plan.conditions.duration, plan.conditions.count
    progress("stages")
    stages = stage_times(workload, seconds=seconds, count=count)
    scenarios = {}
    for scenario in plan.scenarios:
        progress(scenario)
        scenarios[scenario] = run_scenario(workload, scenario, plan.conditions, plan.generator)
    sweeps = {}
    for sweep in plan.sweeps:
        progress(f"{sweep} sweep")
        sweeps[sweep] = run_sweep(workload, sweep, partial(_load, plan), seconds=seconds / 2, count=count)
    elapsed = time.perf_counter() - begun
    return {
        "bench_schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": elapsed,
        "others_cpu": max(0.0, _cpu_seconds_of_others() - others) / elapsed,
        "model": _model(model),
        "machine": machine(),
        "software": software(),
        "settings": _settings(plan),
        "stages": stages,
        "scenarios": scenarios,
        "sweeps": sweeps,
        "cold_start": cold,
        "peak_rss_mb": peak_rss_mb(),
    }


def _load(plan: Plan, **changes: Any) -> XClip:
    return XClip(plan.bundle, **{**plan.options, "batch_size": plan.batch_size, **changes})


def _cpu_seconds_of_others() -> float:
    """Return the CPU seconds since boot of all processes but this one and its ended children."""
    return busy_seconds() - sum(os.times()[:4])


def _model(model: XClip) -> dict[str, Any]:
    return {
        "name": model.bundle.path.resolve().name,
        **model.info,
        "manifest_sha256": model.bundle.digest,
        "source": model.bundle.manifest["source"],
    }


def _settings(plan: Plan) -> dict[str, Any]:
    c = plan.conditions
    return {
        "input": plan.input,
        "batch_size": plan.batch_size,
        "duration_s": c.duration,
        "count": c.count,
        "samples_per_query": c.samples_per_query,
        "latency_bound_ms": c.latency_bound,
        "server_percentile": c.server_percentile,
        "concurrency": c.concurrency,
        "generator": plan.generator,
        "videos_sha256": [sha256_of(path) if (path := Path(video)).is_file() else video for video in plan.videos],
    }
