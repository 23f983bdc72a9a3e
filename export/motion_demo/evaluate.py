"""Score a bundle on video files it has never seen: ``python -m motion_demo.evaluate --bundle B --n 300``.

Every clip is rendered from a seed outside the training range, encoded with H.264 at a size, length and frame rate of
its own, and classified from the file by the runtime among all labels, seen and held out.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from motion_demo.encode import write_video
from motion_demo.labels import HELD_OUT, SEEN, Label
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene
from xclip_runtime import XClip
from xclip_runtime.bundle import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_SIZES = ((256, 256), (256, 320), (256, 456), (320, 256), (360, 480), (480, 640), (240, 320))
_RATES = (Fraction(12), Fraction(15), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30))
# The short side in core units: the runtime's default profile then shows the action at the scale it was drawn for.
_SHORT_SIDE = 256


@dataclass(frozen=True)
class Score:
    """A share of clips, with its 95 % confidence interval."""

    right: int
    n: int
    top1: float
    low: float
    high: float


def wilson_score(right: int, n: int) -> Score:
    """Return the share with Wilson's score interval (Wilson 1927) at 95 %.

    Raises:
        ValueError: ``n`` is not positive.
    """
    if n < 1:
        message = "no clips to score: ask for at least one"
        raise ValueError(message)
    z = 1.959964
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Score(right, n, share, middle - half, middle + half)


def write_clip(path: Path, seed: int, label: Label) -> None:
    """Render and encode one evaluation clip.

    Args:
        path: The file to write.
        seed: Decides scene, size, length and frame rate.
        label: The class to show.
    """
    rng = np.random.default_rng((seed, 5))
    size = _SIZES[rng.integers(len(_SIZES))]
    times = frame_times(int(rng.integers(32, 91)))
    frames = render(sample_scene(seed, label), times, size=size, scale=min(size) / _SHORT_SIDE)
    write_video(path, frames, _RATES[rng.integers(len(_RATES))])


@dataclass(frozen=True)
class Answer:
    """What the model said about one clip."""

    label: Label
    guess: str
    guess_among_seen: str

    @property
    def right(self) -> bool:
        """Whether the best of all labels is the right one."""
        return self.guess == self.label.text


def answers(model: XClip, labels: Sequence[Label], n: int, first_seed: int) -> Iterator[Answer]:
    """Classify ``n`` clips, taking the labels in turn.

    Args:
        model: A model whose labels include those of motion-demo.
        labels: What the clips show.
        n: How many clips.
        first_seed: Seed of the first clip; clip k has ``first_seed + k``.
    """
    seen = {label.text for label in SEEN}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for index in range(n):
            label = labels[index % len(labels)]
            write_clip(path, first_seed + index, label)
            ranked = [item.label for item in model.classify(path, top_k=None).labels]
            yield Answer(label, ranked[0], next(text for text in ranked if text in seen))


def report(seen: Iterable[Answer], held_out: Iterable[Answer]) -> dict[str, object]:
    """Sum up the answers on seen and on held-out pairs."""
    seen, held_out = list(seen), list(held_out)
    every = [*seen, *held_out]
    return {
        "seen": _score(seen),
        "seen_among_seen_labels": _score(seen, lambda answer: answer.guess_among_seen == answer.label.text),
        "held_out": _score(held_out),
        "motions": _score_by(every, lambda answer: answer.label.motion),
        "colours": _score_by(every, lambda answer: answer.label.colour),
        "mistakes": _mistakes(every),
    }


def _score(given: Sequence[Answer], right: Callable[[Answer], bool] = lambda answer: answer.right) -> dict[str, float]:
    return asdict(wilson_score(sum(map(right, given)), len(given)))


def _score_by(given: Sequence[Answer], key: Callable[[Answer], str]) -> dict[str, dict[str, float]]:
    groups = defaultdict(list)
    for answer in given:
        groups[key(answer)].append(answer)
    return {name: _score(group) for name, group in groups.items()}


def _mistakes(given: Sequence[Answer]) -> dict[str, int]:
    """Count what was taken for what, most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for answer in given:
        if not answer.right:
            counts[f"{answer.label.text} → {answer.guess}"] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


@click.command()
@click.option("--bundle", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--n", default=300, show_default=True, help="Clips of seen pairs, and again of held-out pairs.")
@click.option("--first-seed", default=EVALUATION_SEEDS.start, show_default=True, help="Seed of the first clip.")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="fp32", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(bundle: Path, n: int, first_seed: int, precision: Precision, as_json: bool) -> None:
    """Score a bundle of motion-demo on fresh encoded clips."""
    if n < 1 or first_seed not in EVALUATION_SEEDS or first_seed + 2 * n > EVALUATION_SEEDS.stop:
        message = f"--n must be at least 1 and --first-seed in {EVALUATION_SEEDS}: training never saw those seeds"
        raise click.UsageError(message)
    model = XClip(bundle, precision=precision)
    seen = list(_with_progress(answers(model, SEEN, n, first_seed), n, "seen pairs"))
    held_out = list(_with_progress(answers(model, HELD_OUT, n, first_seed + n), n, "held-out pairs"))
    scores = {"model": _describe_model(model), **report(seen, held_out)}
    if as_json:
        click.echo(json.dumps(scores, indent=2, ensure_ascii=False))
        return
    for name, score in scores.items():
        click.echo(f"{name}: {_describe(score)}")


def _describe_model(model: XClip) -> dict[str, object]:
    facts = {name: model.info[name] for name in ("vision_graph", "precision", "provider", "profile")}
    return {**facts, "checkpoint_sha256": model.bundle.manifest["source"]["sha256"]}


def _with_progress(given: Iterable[Answer], n: int, name: str) -> Iterator[Answer]:
    yield from track(given, total=n, description=name, console=Console(stderr=True))


def _describe(score: object) -> str:
    if isinstance(score, dict) and "top1" in score:
        return f"{score['top1']:.1%} (95 % interval {score['low']:.1%} to {score['high']:.1%}, n = {score['n']})"
    if isinstance(score, dict):
        return "".join(f"\n  {name}: {_describe(item)}" for name, item in score.items())
    return str(score)


if __name__ == "__main__":
    main()
