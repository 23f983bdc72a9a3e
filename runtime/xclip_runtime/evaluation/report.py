"""Summarise outcomes: accuracy with intervals, confusions, two precisions compared, and the swap check."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import LabelsError
from xclip_runtime.evaluation.intervals import Share, mcnemar, wilson
from xclip_runtime.text.labels import comparable
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_runtime.evaluation.runner import Outcome

SWAPPED = (("kick", "kick ball"), ("sword", "sword exercise"))
"""Pairs of HMDB-51 classes that lists number in two orders, so that a checkpoint may have learnt them swapped."""


def accuracy(outcomes: Iterable[Outcome], precision: str) -> dict[str, Any]:
    """Compute the accuracy of one precision; unreadable videos are not in ``n``, but listed in ``errors``."""
    outcomes = list(outcomes)
    read = [outcome for outcome in outcomes if not outcome.error]
    top1, top5 = (wilson(sum(o.answers[precision].rank <= k for o in read), len(read)) for k in (1, 5))
    per_class = {label: _of_class(label, read, precision) for label in sorted({outcome.label for outcome in read})}
    return {
        "top1": _value(top1),
        "top5": _value(top5),
        "n": len(read),
        "top1_interval": [top1.low, top1.high],
        "top5_interval": [top5.low, top5.high],
        "precision": precision,
        "per_class": per_class,
        "mean_class_top1": float(np.mean([each["top1"] for each in per_class.values()])) if read else None,
        "errors": [{"video": o.video, "label": o.label, "error": o.error} for o in outcomes if o.error],
        "mistakes": [
            {"video": o.video, "label": o.label, "answer": answer.top, "prob": answer.probs[0], "rank": answer.rank}
            for o in read
            if (answer := o.answers[precision]).rank > 1
        ],
    }


def comparison(outcomes: Iterable[Outcome], first: str, second: str) -> dict[str, Any]:
    """Compare two precisions on the same frames: agreement, disagreements by which is right, McNemar's exact test."""
    read = [outcome for outcome in outcomes if not outcome.error]
    pairs = [(o.answers[first], o.answers[second]) for o in read]
    right = Counter((a.rank == 1, b.rank == 1) for a, b in pairs)
    agreement = wilson(sum(a.top == b.top for a, b in pairs), len(pairs))
    errors = [o.logit_error for o in read if o.logit_error is not None]
    return {
        "precisions": [first, second],
        "n": len(pairs),
        "agreement": _value(agreement),
        "agreement_interval": [agreement.low, agreement.high],
        "both_right": right[True, True],
        f"only_{first}_right": right[True, False],
        f"only_{second}_right": right[False, True],
        "neither_right": right[False, False],
        "mcnemar_p": mcnemar(right[True, False], right[False, True]),
        "max_abs_logit": {
            "p50": float(np.quantile(errors, 0.5)) if errors else None,
            "p99": float(np.quantile(errors, 0.99)) if len(errors) >= 100 else None,
            "max": max(errors, default=None),
        },
    }


def swap_check(outcomes: Iterable[Outcome], precision: str) -> dict[str, Any]:
    """Compute the accuracy on the pairs of `SWAPPED` with their names as they are, and swapped.

    Swapping two labels before the model runs equals swapping them in its answers, so one run gives both.
    """
    read = [outcome for outcome in outcomes if not outcome.error]
    other = _exchange({label for outcome in read for label in (outcome.label, *outcome.answers[precision].labels)})
    straight = [o.answers[precision].top == o.label for o in read]
    swapped = [other.get(o.answers[precision].top, o.answers[precision].top) == o.label for o in read]
    doubtful = [place for place, outcome in enumerate(read) if outcome.label in other]
    n = len(doubtful)
    return {
        "classes": sorted({read[place].label for place in doubtful}),
        "n": n,
        "straight": asdict(wilson(sum(straight[place] for place in doubtful), n)),
        "swapped": asdict(wilson(sum(swapped[place] for place in doubtful), n)),
        "all_straight": asdict(wilson(sum(straight), len(read))),
        "all_swapped": asdict(wilson(sum(swapped), len(read))),
        "mcnemar_p": mcnemar(
            sum(a and not b for a, b in zip(straight, swapped, strict=True)),
            sum(b and not a for a, b in zip(straight, swapped, strict=True)),
        ),
    }


def check_swappable(labels: Sequence[str]) -> None:
    """Check that a model has the classes of the swap check."""
    known = {comparable(label) for label in labels}
    missing = [name for pair in SWAPPED for name in pair if comparable(name) not in known]
    if missing:
        message = f"the swap check is for HMDB-51, and the bundle has no label {', '.join(missing)}: leave it out"
        raise LabelsError(message)


def confusion(outcomes: Iterable[Outcome], precision: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the L labels that are true or answered, sorted, and their counts, (L, L): row true, column answered."""
    pairs = [(o.label, o.answers[precision].top) for o in outcomes if not o.error]
    labels = sorted({label for pair in pairs for label in pair})
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for shown, answered in pairs:
        counts[place[shown], place[answered]] += 1
    return labels, counts


def write_confusion(path: Path, labels: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Write a confusion matrix as CSV, with the labels in the first row and the first column."""
    with naming(path), path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["shown \\ answered", *labels])
        writer.writerows([label, *row] for label, row in zip(labels, counts.tolist(), strict=True))


def write_failures(path: Path, report: Mapping[str, Any]) -> None:
    """Write every mistake and every unreadable video as CSV."""
    with naming(path), path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "answer", "probability", "rank of the label", "error"])
        for m in report["mistakes"]:
            writer.writerow([m["video"], m["label"], m["answer"], f"{m['prob']:.4f}", m["rank"], ""])
        for e in report["errors"]:
            writer.writerow([e["video"], e["label"], "", "", "", e["error"]["message"]])


def _value(share: Share) -> float | None:
    return share.value if share.n else None


def _of_class(label: str, read: Sequence[Outcome], precision: str) -> dict[str, Any]:
    ranks = [outcome.answers[precision].rank for outcome in read if outcome.label == label]
    share = wilson(sum(rank == 1 for rank in ranks), len(ranks))
    return {"top1": share.value, "top1_interval": [share.low, share.high], "right": share.right, "n": share.n}


def _exchange(labels: Iterable[str]) -> dict[str, str]:
    """Map each label of `SWAPPED` to its counterpart, as the model spells them."""
    spelt = {comparable(label): label for label in labels}
    pairs = [(spelt.get(comparable(a), a), spelt.get(comparable(b), b)) for a, b in SWAPPED]
    return {name: other for pair in pairs for name, other in (pair, pair[::-1])}
