"""Accuracy on labelled videos, by the published protocol."""

from xclip_runtime.evaluation.datasets import Sample, find_samples, in_turn, with_labels_of
from xclip_runtime.evaluation.report import accuracy, comparison, confusion, swap_check
from xclip_runtime.evaluation.runner import Answer, Outcome, evaluate

__all__ = [
    "Answer",
    "Outcome",
    "Sample",
    "accuracy",
    "comparison",
    "confusion",
    "evaluate",
    "find_samples",
    "in_turn",
    "swap_check",
    "with_labels_of",
]
