import numpy as np

from xclip_runtime.bench.report import ratio_interval


def test_a_ratio_lies_in_its_interval_and_equal_runs_are_not_told_apart():
    rng = np.random.default_rng(1)
    a = rng.normal(100, 5, 60)

    low, high = ratio_interval(a, 2 * rng.normal(100, 5, 60), lambda x: float(np.median(x)))
    assert 1.9 < low < 2 < high < 2.1
    low, high = ratio_interval(a, rng.permutation(a), lambda x: float(np.median(x)))
    assert low < 1 < high
