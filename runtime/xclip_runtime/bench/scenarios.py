"""MLPerf-style scenarios, with the load of MLCommons' LoadGen (extra [bench]) or of plain loops.

The scenarios are those of MLPerf Inference; "MLPerf-style" since the runs are far shorter than its rules require.

- SingleStream: one query after the other; p90 latency.
- MultiStream: queries of several samples; p99 latency.
- Server: queries at random times; highest rate with latencies within a bound.
- Offline: all samples at once; samples a second.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bench.load import closed_loop, open_loop, quantile, serving, summary
from xclip_runtime.errors import MissingExtraError, XClipError
from xclip_runtime.util.deadline import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from xclip_runtime.bench.plan import Conditions, Generator, Scenario
    from xclip_runtime.bench.workload import Workload

    Run = Callable[[Workload, Scenario, Conditions, float | None], tuple[list[float], float]]

QUANTILE: dict[Scenario, float] = {"SingleStream": 0.9, "MultiStream": 0.99}
SEARCH_STEPS = 5


def loadgen_available() -> bool:
    """Return True if LoadGen is installed."""
    try:
        _loadgen()
    except MissingExtraError:
        return False
    return True


def run_scenario(
    workload: Workload, scenario: Scenario, conditions: Conditions, generator: Generator
) -> dict[str, Any]:
    """Run one scenario; its value is None if n is too small for the metric's quantile, or if no rate holds."""
    run = _run_loadgen if generator == "loadgen" else _run_plain
    if scenario == "Server":
        return {"scenario": "Server", "generator": generator, **_server(workload, conditions, run)}
    latencies, rate = run(workload, scenario, conditions, None)
    result: dict[str, Any] = {"scenario": scenario, "generator": generator}
    if scenario == "Offline":
        result |= {"metric": "throughput", "value": rate, "unit": "clips/s"}
    else:
        q = QUANTILE[scenario]
        result |= {"metric": f"p{100 * q:.0f} latency", "value": quantile(latencies, q), "unit": "ms"}
    if scenario == "MultiStream":
        result["samples_per_query"] = conditions.samples_per_query
    return result | _measured(latencies, rate)


def _server(workload: Workload, conditions: Conditions, run: Run) -> dict[str, Any]:
    """Search for the highest rate that keeps the latency bound, up to the rate of a closed loop."""
    alone = closed_loop(
        workload.answer, seconds=conditions.duration / 2, count=conditions.count, concurrency=conditions.concurrency
    )
    p90 = quantile(alone.latencies_ms, 0.9) or max(alone.latencies_ms)
    bound = conditions.latency_bound or 4 * p90
    low, high, trials, best = 0.0, alone.rate, [], None
    for step in range(SEARCH_STEPS):
        rate = 0.8 * alone.rate if step == 0 else (low + high) / 2
        latencies, done = run(workload, "Server", conditions, rate)
        reached = quantile(latencies, conditions.server_percentile / 100)
        holds = reached is not None and reached <= bound
        trials.append({"rate": rate, "holds": holds, **_measured(latencies, done)})
        if holds:
            low, best = rate, trials[-1]
        else:
            high = rate
    found = best or {"latency_ms": summary([]), "latencies_ms": [], "samples_per_second": None, "n": 0}
    return {
        "metric": f"rate, p{conditions.server_percentile:.0f} ≤ {bound:.0f} ms",
        "value": best["rate"] if best else None,
        "unit": "clips/s",
        "bound_ms": bound,
        **{name: found[name] for name in ("latency_ms", "latencies_ms", "samples_per_second", "n")},
        "trials": [{name: value for name, value in t.items() if name != "latencies_ms"} for t in trials],
    }


def _measured(latencies: Sequence[float], rate: float) -> dict[str, Any]:
    return {
        "n": len(latencies),
        "latency_ms": summary(latencies),
        "samples_per_second": rate,
        "latencies_ms": [round(value, 3) for value in latencies],
    }


def _run_plain(
    workload: Workload, scenario: Scenario, conditions: Conditions, rate: float | None
) -> tuple[list[float], float]:
    """Run plain loops; return latencies in milliseconds and samples a second."""
    seconds, count = conditions.duration, conditions.count
    if scenario == "Server" and rate is not None:
        done = open_loop(workload.answer, rate=rate, seconds=seconds, count=count, concurrency=conditions.concurrency)
    elif scenario == "Offline":
        latencies: list[float] = []
        started = time.perf_counter()
        while len(latencies) < count or time.perf_counter() - started < seconds:
            workload.answer(range(len(latencies), len(latencies) + workload.batch_size))
            latencies += [1000 * (time.perf_counter() - started)] * workload.batch_size
        return latencies, len(latencies) / (time.perf_counter() - started)
    else:
        per_query = conditions.samples_per_query if scenario == "MultiStream" else 1
        done = closed_loop(workload.answer, seconds=seconds, count=count, samples_per_query=per_query)
    return done.latencies_ms, done.rate


def _loadgen() -> ModuleType:
    try:
        import mlperf_loadgen  # noqa: PLC0415 - optional
    except ImportError as error:
        feature = "the MLPerf-style load generator"
        raise MissingExtraError(feature, "bench") from error
    module: ModuleType = mlperf_loadgen
    return module


def _run_loadgen(
    workload: Workload, scenario: Scenario, conditions: Conditions, rate: float | None
) -> tuple[list[float], float]:
    """Run LoadGen; return latencies in milliseconds, Server's from the scheduled start, and samples a second."""
    loadgen = _loadgen()

    def serve(samples: Sequence[Any]) -> None:
        for start in range(0, len(samples), workload.batch_size):
            part = samples[start : start + workload.batch_size]
            workload.answer([sample.index for sample in part])
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part])

    held = max(len(workload.clips), conditions.samples_per_query)
    settings = _settings(loadgen, workload, scenario, conditions, rate)
    concurrency = conditions.concurrency if scenario == "Server" else 1
    with tempfile.TemporaryDirectory() as folder:
        with serving(serve, concurrency) as send:

            def test() -> None:
                sut = loadgen.ConstructSUT(lambda samples: send(list(samples)), lambda: None)
                qsl = loadgen.ConstructQSL(held, held, lambda _: None, lambda _: None)
                loadgen.StartTestWithLogSettings(sut, qsl, settings, _log_settings(loadgen, folder))
                loadgen.DestroyQSL(qsl)
                loadgen.DestroySUT(sut)

            # Ctrl-C would be raised in a callback: LoadGen's C++ ends the process at an exception.
            in_daemon_thread(test).result()
        latencies = _latencies(Path(folder), scenario)
        if scenario == "MultiStream":  # LoadGen logs no rate for it, in which queries run one after the other.
            return latencies, 1000 * conditions.samples_per_query * len(latencies) / sum(latencies)
        return latencies, _rate(Path(folder), scenario)


def _settings(
    loadgen: ModuleType, workload: Workload, scenario: Scenario, conditions: Conditions, rate: float | None
) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * conditions.duration)
    settings.min_query_count = conditions.count
    settings.multi_stream_samples_per_query = conditions.samples_per_query
    if scenario == "Server":
        settings.server_target_qps = rate
        settings.server_target_latency_percentile = conditions.server_percentile / 100
    if scenario == "Offline":
        # LoadGen sizes its single query for the duration by the expected rate.
        alone = closed_loop(workload.answer, seconds=0, count=2, samples_per_query=workload.batch_size)
        settings.offline_expected_qps = max(alone.rate, conditions.count / max(conditions.duration, 1e-3))
    return settings


def _log_settings(loadgen: ModuleType, folder: str) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = True
    return settings


def _latencies(folder: Path, scenario: Scenario) -> list[float]:
    """Read latencies from LoadGen's trace, from the scheduled start; MultiStream's are of whole queries."""
    trace = (folder / "mlperf_log_trace.json").read_text(encoding="utf-8")
    found = re.findall(r'"query_seq":(\d+).*?"complete_ns":(\d+)', trace)
    if scenario != "MultiStream":
        return [int(nanoseconds) / 1e6 for _, nanoseconds in found]
    slowest: dict[str, float] = {}
    for query, nanoseconds in found:
        slowest[query] = max(slowest.get(query, 0.0), int(nanoseconds) / 1e6)
    return list(slowest.values())


_RATE_KEYS: dict[Scenario, str] = {
    "SingleStream": "result_qps_with_loadgen_overhead",
    "Server": "result_completed_samples_per_sec",
    "Offline": "result_samples_per_second",
}


def _rate(folder: Path, scenario: Scenario) -> float:
    """Read the samples a second from LoadGen's log."""
    for line in (folder / "mlperf_log_detail.txt").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.partition(" ")[2])
        if entry["key"] == _RATE_KEYS[scenario]:
            return float(entry["value"])
    message = f"LoadGen logged no rate for {scenario}: use --generator plain"
    raise XClipError(message)
