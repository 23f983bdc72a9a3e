"""Plan of a benchmark. Imports nothing heavy, so that the command's help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
Sweep = Literal["batch", "threads", "concurrency", "rate"]
SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
Input = Literal["clip", "file"]
INPUTS: tuple[Input, ...] = get_args(Input)
Generator = Literal["loadgen", "plain"]


@dataclass(frozen=True)
class Conditions:
    """Duration and intensity of the scenarios.

    Attributes:
        duration: Minimum duration of each run, seconds.
        count: Minimum number of queries of each run; number of samples of Offline.
        samples_per_query: Samples of a MultiStream query.
        latency_bound: Latency bound of Server, milliseconds; None takes four times the p90 of SingleStream.
        server_percentile: Percentage of Server's latencies that must be within the bound.
        concurrency: Queries that Server answers at a time.
    """

    duration: float = 3.0
    count: int = 10
    samples_per_query: int = 8
    latency_bound: float | None = None
    server_percentile: float = 90.0
    concurrency: int = 1


@dataclass(frozen=True)
class Plan:
    """Everything that a benchmark measures.

    Attributes:
        bundle: Folder of the bundle.
        videos: Files to classify, in turn.
        options: Keyword arguments of `xclip_runtime.XClip`, without the batch size.
        scenarios: MLPerf scenarios to run.
        sweeps: Sweeps to run.
        conditions: Duration and intensity of the scenarios.
        input: Sample of the scenarios: a prepared clip in memory, or a file to read as well.
        batch_size: Clips that the model runs together.
        cold_starts: Fresh processes to time; 0 for none.
        generator: Load generator.
    """

    bundle: str
    videos: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    scenarios: tuple[Scenario, ...] = SCENARIOS
    sweeps: tuple[Sweep, ...] = SWEEPS
    conditions: Conditions = field(default_factory=Conditions)
    input: Input = "clip"
    batch_size: int = 1
    cold_starts: int = 3
    generator: Generator = "plain"
