"""Exact and cached windows side by side: accuracy by the label of a window's middle, and time to detection."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from xclip_runtime.evaluation.datasets import Sample
from xclip_runtime.evaluation.streams import ComparedStream, ComparedWindow, summarise
from xclip_runtime.results import Encoding

LABELS = ("run", "jump", "sit")
RUN_JUMP = (Sample("v", "run", 0.0, 4.0), Sample("v", "jump", 4.0, 8.0))


def logits(label):
    return np.float32([label == name for name in LABELS])


def stream(exact, cached, segments=RUN_JUMP, origin=0.0):
    """Windows of 2 s, one a second."""
    encoding = Encoding(exact=False, new_frames=4, frames=8, drift=None)
    windows = [
        ComparedWindow(origin + k, origin + k + 2.0, logits(one), logits(other), encoding, 8.0, 2.0)
        for k, (one, other) in enumerate(zip(exact, cached, strict=True))
    ]
    return ComparedStream(windows, segments)


def test_the_label_of_a_window_is_that_of_its_middle():
    exact = ["run"] * 3 + ["jump"] * 4
    found = summarise([stream(exact, ["run"] * 4 + ["jump"] * 3)], LABELS).labelled

    assert (found.accuracy_exact.right, found.accuracy_exact.n) == (7, 7)
    assert (found.accuracy_cached.right, found.accuracy_cached.n) == (6, 7)
    assert found.mcnemar_p == 1.0
    # The window from 3 to 5 s is in neither segment as a whole.
    assert (found.agreement_inside.right, found.agreement_inside.n) == (6, 6)


def test_a_change_is_detected_at_the_end_of_the_first_window_that_says_so():
    exact = ["run"] * 3 + ["jump"] * 4
    found = summarise([stream(exact, ["jump"] + ["run"] * 4 + ["jump"] * 2)], LABELS).labelled

    # The answer of the very first window is before the change.
    assert found.detection_s_exact.mean == 1.0
    assert found.detection_s_cached.mean == 3.0
    assert (found.detection_s_cached.changes, found.detection_s_cached.detected) == (1, 1)


def test_changes_of_several_streams_are_counted_together_and_missed_ones_have_no_time():
    seen, missed = stream(["run"] * 3 + ["jump"] * 4, ["run"] * 7), stream(["run"] * 7, ["run"] * 7)
    found = summarise([seen, missed], LABELS).labelled

    assert (found.detection_s_exact.changes, found.detection_s_exact.detected) == (2, 1)
    assert found.detection_s_exact.mean == 1.0
    assert (found.detection_s_cached.detected, found.detection_s_cached.mean) == (0, None)
    assert found.accuracy_exact.n == 14


def test_windows_and_videos_without_a_label_count_for_agreement_only():
    gap = (Sample("v", "run", 0.0, 2.0), Sample("v", "jump", 6.0, math.inf))
    found = summarise([stream(["run"] * 7, ["run"] * 7, gap), stream(["run"] * 7, ["sit"] * 7, ())], LABELS)

    assert (found.windows, found.agreement.n, found.agreement.right) == (14, 14, 7)
    # Of the middles 1 to 7 s, 1, 6 and 7 have a label.
    assert found.labelled.accuracy_exact.n == 3
    assert summarise([stream(["run"], ["run"], ())], LABELS).labelled is None


@pytest.mark.parametrize("segments", [(), RUN_JUMP[:1], (Sample("v", "sit", 0.9, 0.95),)])
def test_the_document_is_json_without_nan(segments):
    found = summarise([stream(["run"], ["run"], segments)], LABELS).to_dict()

    assert "NaN" not in json.dumps(found)


def test_changes_behind_the_last_window_are_none():
    found = summarise([stream(["run"] * 2, ["run"] * 2)], LABELS).labelled

    assert found.detection_s_exact.changes == 0
