"""The arithmetic of a report, on outcomes that a reader can count."""

from __future__ import annotations

import pytest

from xclip_runtime.errors import LabelsError
from xclip_runtime.evaluation.report import (
    accuracy,
    check_swappable,
    comparison,
    confusion,
    swap_check,
    write_confusion,
    write_failures,
)
from xclip_runtime.evaluation.runner import Answer, Outcome


def answer(rank, top):
    return Answer(rank, (top,), (0.5,))


def outcome(label, fp32, int8=None):
    """A video of a label and what was answered; the true label comes second where it is not first."""
    answers = {"fp32": answer(1 if fp32 == label else 2, fp32)}
    if int8:
        answers["int8"] = answer(1 if int8 == label else 6, int8)
    return Outcome(f"{label}.mp4", label, answers, 0.25 if int8 else None)


UNREADABLE = Outcome("broken.mp4", "run", {}, error={"type": "VideoDecodeError", "message": "broken.mp4: no"})


def test_accuracy_counts_what_could_be_read():
    report = accuracy([outcome("run", "run"), outcome("run", "sit"), outcome("sit", "sit"), UNREADABLE], "fp32")

    assert (report["top1"], report["top5"], report["n"]) == (pytest.approx(2 / 3), 1.0, 3)
    assert report["per_class"]["run"] == {
        "top1": 0.5,
        "top1_interval": pytest.approx([0.0945, 0.9055], abs=1e-4),
        "right": 1,
        "n": 2,
    }
    assert report["mean_class_top1"] == 0.75
    assert [error["video"] for error in report["errors"]] == ["broken.mp4"]
    assert report["mistakes"] == [{"video": "run.mp4", "label": "run", "answer": "sit", "prob": 0.5, "rank": 2}]


def test_a_rank_beyond_five_is_no_top_5():
    assert accuracy([outcome("run", "run", "sit")], "int8")["top5"] == 0


def test_nothing_that_could_be_read_has_no_accuracy():
    report = accuracy([UNREADABLE], "fp32")

    assert (report["top1"], report["top5"], report["n"]) == (None, None, 0)


def test_two_precisions_are_compared_video_by_video():
    outcomes = [
        *[outcome("run", "run", "run")] * 4,
        *[outcome("run", "run", "sit")] * 2,
        *[outcome("run", "sit", "run")],
        *[outcome("run", "sit", "jump")] * 2,
        *[outcome("run", "sit", "sit")],
        UNREADABLE,
    ]
    found = comparison(outcomes, "fp32", "int8")

    assert (found["n"], found["agreement"]) == (10, 0.5)
    assert (found["both_right"], found["only_fp32_right"], found["only_int8_right"], found["neither_right"]) == (
        4,
        2,
        1,
        3,
    )
    assert found["mcnemar_p"] == 1.0
    assert found["max_abs_logit"] == {"p50": 0.25, "p99": None, "max": 0.25}


def test_the_swap_check_exchanges_two_names_at_a_time():
    outcomes = [
        *[outcome("kick", "kick ball")] * 3,
        outcome("kick ball", "kick ball"),
        outcome("sword", "sword"),
        outcome("sword exercise", "kick"),
        outcome("run", "run"),
        outcome("run", "kick"),
    ]
    found = swap_check(outcomes, "fp32")

    assert found["n"] == 6
    assert (found["straight"]["right"], found["swapped"]["right"]) == (2, 3)
    assert (found["all_straight"]["right"], found["all_swapped"]["right"]) == (3, 4)
    assert found["mcnemar_p"] == 1.0


def test_the_swap_check_needs_the_four_classes():
    check_swappable(["Kick", "kick_ball", "sword", "sword exercise"])
    with pytest.raises(LabelsError, match="sword exercise"):
        check_swappable(["kick", "kick ball", "sword"])


def test_a_confusion_matrix_has_a_row_for_what_was_shown(tmp_path):
    labels, counts = confusion(
        [outcome("run", "sit"), outcome("run", "run"), outcome("sit", "sit"), UNREADABLE], "fp32"
    )
    write_confusion(tmp_path / "confusion.csv", labels, counts)

    assert (labels, counts.tolist()) == (["run", "sit"], [[1, 1], [0, 1]])
    assert (tmp_path / "confusion.csv").read_text() == "shown \\ answered,run,sit\nrun,1,1\nsit,0,1\n"


def test_failures_list_mistakes_and_what_could_not_be_read(tmp_path):
    write_failures(
        tmp_path / "failures.csv", accuracy([outcome("run", "sit"), outcome("run", "run"), UNREADABLE], "fp32")
    )

    assert (tmp_path / "failures.csv").read_text().splitlines()[1:] == [
        "run.mp4,run,sit,0.5000,2,",
        "broken.mp4,run,,,,broken.mp4: no",
    ]


@pytest.mark.parametrize("given", [outcome("run", "sit"), outcome("run", "sit", "run"), UNREADABLE])
def test_an_outcome_survives_its_file(given):
    assert Outcome.from_dict(given.to_dict()) == given
