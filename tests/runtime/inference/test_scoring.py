"""Softmax, view averaging and the order of labels."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime.inference.scoring import average_views, best_labels, check_top_k, softmax


def test_softmax_is_exp_over_its_sum_along_the_last_axis():
    logits = np.log(np.array([[1, 2, 5], [3, 3, 2]], np.float32))

    np.testing.assert_allclose(softmax(logits), [[0.125, 0.25, 0.625], [0.375, 0.375, 0.25]], atol=1e-7)


def test_softmax_is_computed_in_float64_and_does_not_overflow():
    probs = softmax(np.array([10000.0, 9999.0, -10000.0], np.float32))

    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, [np.e / (1 + np.e), 1 / (1 + np.e), 0], atol=1e-12)


def test_views_average_probabilities_which_is_not_the_softmax_of_the_averaged_logits():
    logits = np.log(np.array([[9, 1], [2, 2]], np.float32))

    scores = average_views(logits)

    np.testing.assert_allclose(scores.probs, [(0.9 + 0.5) / 2, (0.1 + 0.5) / 2], atol=1e-7)
    np.testing.assert_allclose(scores.logits, logits.mean(axis=0))
    assert not np.allclose(scores.probs, softmax(scores.logits))


def test_one_view_keeps_its_own_probabilities_and_logits():
    logits = np.array([[1.0, -2.0, 3.0]], np.float32)

    scores = average_views(logits)

    np.testing.assert_array_equal(scores.probs, softmax(logits[0]))
    np.testing.assert_array_equal(scores.logits, logits[0])


def test_the_best_labels_come_first_with_their_own_scores():
    best = best_labels(["a", "b", "c"], np.array([0.2, 0.7, 0.1]), np.array([2, 3, 1], np.float32), 2)

    assert [(score.label, score.prob, score.logit) for score in best] == [("b", 0.7, 3.0), ("a", 0.2, 2.0)]


def test_equal_probabilities_are_ordered_by_logit_then_by_position():
    best = best_labels(["a", "b", "c"], np.array([0.0, 0.0, 0.0]), np.array([1, 2, 1], np.float32), None)

    assert [score.label for score in best] == ["b", "a", "c"]


@pytest.mark.parametrize("top_k", [None, 99])
def test_none_and_more_than_there_are_give_every_label(top_k):
    assert len(best_labels(["a", "b"], np.array([0.5, 0.5]), np.zeros(2, np.float32), top_k)) == 2


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(top_k):
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        check_top_k(top_k)


@pytest.mark.parametrize("top_k", [1, None])
def test_top_k_of_one_and_none_are_accepted(top_k):
    check_top_k(top_k)
