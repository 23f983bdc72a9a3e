"""Smoothing and events over made-up windows."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.results import Encoding, Event, Gap, LabelScore, WindowResult
from xclip_runtime.streaming.events import EventDetector, Smoother


def window(start, gap=None, **probs):
    labels = tuple(LabelScore(label, prob, 0.0) for label, prob in probs.items())
    ran = {"provider": "CPUExecutionProvider", "precision": "fp32", "device": "cpu", "graph": "vision_model"}
    return WindowResult(start, start + 2, labels, 1.0, 0, 0, gap, Encoding.all_new(32), **ran)


def events(detector, *windows):
    return [e for w in windows for e in detector.update(w)] + detector.finish()


def test_a_label_that_holds_begins_and_ends():
    found = events(EventDetector(0.5), window(0, a=0.1), window(1, a=0.6), window(2, a=0.9), window(3, a=0.4))

    assert found == [Event("a", 1, None, 0.6), Event("a", 1, 4, 0.9)]


def test_the_end_of_the_stream_ends_events():
    assert events(EventDetector(0.5), window(0, a=0.5)) == [Event("a", 0, None, 0.5), Event("a", 0, 2, 0.5)]


def test_what_is_shorter_than_the_minimum_is_no_event():
    detector = EventDetector(0.5, min_duration=3)

    assert events(detector, window(0, a=0.9), window(1, a=0.1), window(2, a=0.1)) == []


def test_an_event_is_told_once_it_has_lasted_long_enough():
    detector = EventDetector(0.5, min_duration=3)

    assert detector.update(window(0, a=0.9)) == []
    assert detector.update(window(1, a=0.8)) == [Event("a", 0, None, 0.9)]
    assert detector.update(window(2, a=0.8)) == []
    assert detector.update(window(3, a=0.1)) == [Event("a", 0, 4, 0.9)]


def test_two_labels_may_hold_at_the_same_time():
    found = events(EventDetector(0.4), window(0, a=0.5, b=0.45), window(1, a=0.5, b=0.1))

    assert [(e.label, e.end) for e in found] == [("a", None), ("b", None), ("b", 2), ("a", 3)]


def test_no_event_spans_a_gap():
    found = events(EventDetector(0.5), window(0, a=0.9), window(100, Gap(2, 100), a=0.9))

    assert [(e.start, e.end) for e in found] == [(0, None), (0, 2), (100, None), (100, 102)]


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"min_duration": -1}])
def test_events_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="give"):
        EventDetector(**options)


def test_smoothing_goes_towards_the_new_value_by_the_time_that_passed():
    smoother = Smoother(2.0)
    smoother.update(np.array([1.0, 0.0]), 0)

    smoothed = smoother.update(np.array([0.0, 1.0]), 2.0)

    np.testing.assert_allclose(smoothed, [np.exp(-1), 1 - np.exp(-1)])


def test_a_dropped_window_does_not_change_the_pace_of_smoothing():
    every, every_other = Smoother(3.0), Smoother(3.0)
    for smoother in (every, every_other):
        smoother.update(np.array([1.0, 0.0]), 0)
    every.update(np.array([0.0, 1.0]), 1)

    np.testing.assert_allclose(
        every.update(np.array([0.0, 1.0]), 2), every_other.update(np.array([0.0, 1.0]), 2), atol=1e-12
    )


def test_smoothed_probabilities_still_sum_to_one():
    smoother, rng = Smoother(1.5), np.random.default_rng(0)

    for end in range(20):
        assert smoother.update(rng.dirichlet(np.ones(5)), end).sum() == pytest.approx(1)


@pytest.mark.parametrize(("smooth", "anew"), [(0.0, False), (5.0, True)])
def test_without_smoothing_or_after_a_gap_probabilities_are_as_they_come(smooth, anew):
    smoother = Smoother(smooth)
    smoother.update(np.array([1.0, 0.0]), 0)

    np.testing.assert_array_equal(smoother.update(np.array([0.2, 0.8]), 1, anew=anew), [0.2, 0.8])


@pytest.mark.parametrize("smooth", [-1.0, float("nan"), float("inf")])
def test_a_smoothing_that_makes_no_sense_is_refused(smooth):
    with pytest.raises(ValueError, match="0 or more"):
        Smoother(smooth)
