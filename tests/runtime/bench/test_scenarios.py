"""MLPerf-style scenarios by LoadGen and by plain loops."""

from __future__ import annotations

import time

import numpy as np
import pytest

from xclip_runtime.bench.plan import SCENARIOS, Conditions
from xclip_runtime.bench.scenarios import loadgen_available, run_scenario
from xclip_runtime.errors import MissingExtraError

GENERATORS = ["loadgen", "plain"]


class Sleeper:
    """A workload whose answers take two milliseconds a batch."""

    def __init__(self, batch=1):
        self.batch_size, self.clips, self.answered = batch, np.zeros((2, 1)), []

    def answer(self, samples):
        for start in range(0, len(samples), self.batch_size):
            time.sleep(0.002)
            self.answered.append(len(samples[start : start + self.batch_size]))


BRIEF = Conditions(duration=0.05, count=12, samples_per_query=4)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_runs_under_either_generator(scenario, generator):
    workload = Sleeper()
    found = run_scenario(workload, scenario, BRIEF, generator)

    assert (found["scenario"], found["generator"]) == (scenario, generator)
    assert found["n"] == len(found["latencies_ms"]) == found["latency_ms"]["n"]
    assert found["samples_per_second"] is None or 0 < found["samples_per_second"] <= 500
    assert found["latency_ms"]["p99"] is None or found["n"] >= 100
    assert sum(workload.answered) >= 12


@pytest.mark.parametrize("generator", GENERATORS)
def test_single_stream_is_judged_by_its_p90(generator):
    found = run_scenario(Sleeper(), "SingleStream", BRIEF, generator)

    assert found["metric"] == "p90 latency"
    assert found["value"] == found["latency_ms"]["p90"] >= 2


@pytest.mark.parametrize("generator", GENERATORS)
def test_multi_stream_counts_queries_and_gives_no_p99_of_a_dozen(generator):
    found = run_scenario(Sleeper(), "MultiStream", BRIEF, generator)

    assert 12 <= found["n"] < 100
    assert found["value"] is None
    # A query is done when its last sample is, and the four go through one by one.
    assert min(found["latencies_ms"]) >= 4 * 2


@pytest.mark.parametrize("generator", GENERATORS)
def test_offline_goes_through_in_batches(generator):
    workload = Sleeper(batch=3)
    found = run_scenario(workload, "Offline", BRIEF, generator)

    assert found["value"] == found["samples_per_second"]
    assert workload.answered.count(3) >= 4


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_server_cannot_hold_a_bound_below_its_own_time(generator):
    found = run_scenario(Sleeper(), "Server", Conditions(duration=0.02, count=10, latency_bound=1.0), generator)

    assert found["value"] is None
    assert not any(trial["holds"] for trial in found["trials"])


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_server_holds_a_bound_that_is_never_reached(generator):
    found = run_scenario(Sleeper(), "Server", Conditions(duration=0.02, count=10, latency_bound=1e5), generator)

    assert found["value"] == max(trial["rate"] for trial in found["trials"])
    assert all(trial["holds"] for trial in found["trials"])


def test_without_the_extra_the_generator_is_missed_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlperf_loadgen", None)

    assert not loadgen_available()
    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[bench\]"):
        run_scenario(Sleeper(), "SingleStream", BRIEF, "loadgen")
