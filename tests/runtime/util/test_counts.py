"""Counts are whole numbers from 1 on."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.util.counts import check_count


@pytest.mark.parametrize("value", [1, 10**30, np.int64(3)])
def test_whole_numbers_pass(value):
    check_count("workers", value)


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "2", None, float("nan"), [1]])
def test_all_else_is_refused_in_one_line(value):
    with pytest.raises(ValueError, match=r"^workers is .*: give a whole number of at least 1, or None$"):
        check_count("workers", value, ", or None")
