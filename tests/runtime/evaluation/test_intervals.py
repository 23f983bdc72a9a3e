import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.evaluation.intervals import mcnemar, wilson

COUNTS = st.integers(0, 400)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (811, 1530, 0.5050, 0.5550)]
)
def test_the_interval_is_wilsons(right, n, low, high):
    share = wilson(right, n)

    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(COUNTS, COUNTS)
def test_the_interval_holds_the_share_and_stays_within_0_and_1(right, wrong):
    share = wilson(right, right + wrong)

    assert 0 <= share.low <= share.high <= 1
    assert right + wrong == 0 or share.low - 1e-12 <= share.value <= share.high + 1e-12


def test_of_nothing_nothing_is_known():
    share = wilson(0, 0)

    assert math.isnan(share.value)
    assert (share.low, share.high) == (0, 1)


@pytest.mark.parametrize(("right", "n"), [(3, 2), (-1, 2)])
def test_a_share_outside_of_its_range_is_refused(right, n):
    with pytest.raises(ValueError, match=r"right must be in \[0, n\]"):
        wilson(right, n)


# Two-sided binomial tests with p = ½, from tables.
@pytest.mark.parametrize(
    ("b", "c", "p"), [(0, 0, 1.0), (1, 9, 0.021484375), (10, 0, 2**-9), (5, 5, 1.0), (6, 16, 0.052479)]
)
def test_mcnemars_test_is_the_exact_one(b, c, p):
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-4)


@given(COUNTS, COUNTS)
def test_mcnemars_test_does_not_mind_which_is_first(b, c):
    assert mcnemar(b, c) == mcnemar(c, b)
    assert 0 <= mcnemar(b, c) <= 1


def test_thousands_of_cases_do_not_overflow():
    assert 0 < mcnemar(4800, 5200) < 1e-4
