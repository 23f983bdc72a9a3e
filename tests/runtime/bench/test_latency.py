import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.bench.latency import quantile, ratio_interval, summary

TIMES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=150)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100)])
def test_a_quantile_needs_a_sample_beyond_it(q, needed):
    assert quantile(range(1, needed), q) is None
    assert quantile(range(1, needed + 1), q) == round(q * needed)


@given(TIMES, st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_one_of_the_values_with_the_right_share_below(values, q):
    found = quantile(values, q)

    assert found is None or np.mean(np.asarray(values) <= found) >= q - 1e-9
    assert found is None or found in values


def test_a_summary_of_few_values_has_no_p99():
    found = summary([float(value) for value in range(1, 21)])

    assert (found["n"], found["p50"], found["p90"], found["p95"], found["p99"], found["max"]) == (
        20,
        10,
        18,
        19,
        None,
        20,
    )
    assert summary([])["mean"] is None


def test_a_ratio_lies_in_its_interval_and_equal_runs_are_not_told_apart():
    rng = np.random.default_rng(1)
    a = rng.normal(100, 5, 60)

    low, high = ratio_interval(a, 2 * rng.normal(100, 5, 60), lambda x: float(np.median(x)))
    assert 1.9 < low < 2 < high < 2.1
    low, high = ratio_interval(a, rng.permutation(a), lambda x: float(np.median(x)))
    assert low < 1 < high
