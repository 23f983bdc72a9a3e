"""Arguments of a wrong type are refused by their name."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.util.arguments import check_count, check_numbers


@pytest.mark.parametrize("value", [1, 10**30, np.int64(3)])
def test_whole_numbers_pass(value):
    check_count("workers", value)


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "2", None, float("nan"), [1]])
def test_all_else_is_refused_in_one_line(value):
    with pytest.raises(ValueError, match=r"^workers is .*: give a whole number of at least 1$"):
        check_count("workers", value)


def test_none_passes_where_it_has_a_meaning():
    check_count("workers", None, "one per CPU")
    with pytest.raises(ValueError, match=r"or None for one per CPU$"):
        check_count("workers", 0, "one per CPU")


def test_a_count_may_have_a_largest_value():
    check_count("shortlist", 4096, most=4096)
    with pytest.raises(ValueError, match=r"^shortlist is 4097: give a whole number from 1 to 4096$"):
        check_count("shortlist", 4097, most=4096)


@pytest.mark.parametrize("value", ["2", [1.0], b"1", 1j])
def test_what_is_no_number_is_refused(value):
    check_numbers(start=1, end=np.float32(2), limit=None)
    with pytest.raises(ValueError, match=r"^start is .*: give a number$"):
        check_numbers(end=2.0, start=value)
