"""Candidates are measured in turns, within the budget, and none that fails ends the others."""

from __future__ import annotations

import pytest

from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.tuning.candidates import candidates
from xclip_runtime.tuning.engine import EngineError, EngineTimeoutError
from xclip_runtime.tuning.measurement import measure

FOUND = candidates(Bundle.open(DEMO_BUNDLE), ("cpu",), 2)


class Machine:
    """Clock, and engines that take a second a clip."""

    def __init__(self):
        self.now, self.turns, self.open, self.fails, self.hangs = 0.0, [], 0, {}, ()

    def start(self, candidate, seconds):
        if str(candidate) in self.fails:
            raise EngineError(self.fails[str(candidate)])
        if str(candidate) in self.hangs:
            self.now += seconds
            message = "too slow"
            raise EngineTimeoutError(message)
        self.open += 1
        return Engine(self, candidate)


class Engine:
    """Engine that runs a clip when it is started, more slowly than the next."""

    def __init__(self, machine, candidate):
        self.machine, self.candidate = machine, candidate
        self.facts = {"provider": "p", **self.run(0, 0), "seconds": 9.0}

    def run(self, clip, seconds):
        self.machine.now += 1
        self.machine.turns.append((str(self.candidate), clip))
        return {"seconds": 1.0, "logits": [1.0, 2.0]}

    def close(self):
        self.machine.open -= 1


def run(machine, budget=100, together=True):
    return measure(FOUND, machine.start, clips=2, rounds=3, budget=budget, together=together, clock=lambda: machine.now)


def test_candidates_are_precisions_and_threads_fp32_first():
    assert [str(candidate) for candidate in FOUND] == [
        "cpu fp32, 2 threads",
        "cpu int8, 2 threads",
        "cpu fp32, 1 threads",
        "cpu int8, 1 threads",
    ]


@pytest.mark.parametrize("together", [True, False])
def test_every_candidate_runs_the_same_clip_in_each_round(together):
    machine = Machine()
    result = run(machine, together=together)

    names = [str(candidate) for candidate in FOUND]
    turns = machine.turns if together else [*machine.turns[:4], *machine.turns[5::2]]  # one to warm up, each time
    assert turns == [(name, clip) for clip in (0, 1, 0) for name in names]
    assert [row.median for row in result.measurements] == [1.0] * 4
    assert (result.done, result.cut, machine.open) == (3, False, 0)


def test_the_budget_ends_the_rounds_and_it_is_told():
    machine = Machine()
    result = run(machine, budget=6)

    assert len(machine.turns) == 6
    assert (result.done, result.cut, machine.open) == (1, True, 0)


def test_a_first_run_counts_where_it_is_the_only_one():
    result = run(Machine(), budget=4)

    assert [row.median for row in result.measurements] == [9.0] * 4
    assert (result.done, result.cut) == (1, True)


def test_a_candidate_that_is_too_slow_to_start_leaves_time_for_the_others():
    machine = Machine()
    machine.hangs = (str(FOUND[0]),)
    result = run(machine, budget=20)

    assert [row.problem for row in result.measurements] == ["too slow", None, None, None]
    assert machine.now <= 20


def test_a_candidate_that_fails_is_a_row_with_its_reason():
    machine = Machine()
    machine.fails = {str(FOUND[1]): "it does not load"}
    result = run(machine)

    assert [row.problem for row in result.measurements] == [None, "it does not load", None, None]
    assert result.done == 3


def test_ctrl_c_closes_every_engine(monkeypatch):
    machine = Machine()

    def interrupt(self, candidate, seconds):
        if machine.open == 2:
            raise KeyboardInterrupt
        return start(self, candidate, seconds)

    start = Machine.start
    monkeypatch.setattr(Machine, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(machine)
    assert machine.open == 0
