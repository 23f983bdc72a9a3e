"""Write clips that training has never seen, in HMDB-51's layout: ``python -m motion_demo.dataset clips --n 500``.

Two data sets come out, ``seen`` and ``held_out``, of the pairs of colour and motion that training saw and did not see,
and ``labels.txt`` with the texts of all pairs.
Each has a folder of clips a class and split files; split 1 has them all for testing. Every clip is rendered from a seed
outside the training range and encoded at a size, length, frame rate and with a codec of its own.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from motion_demo.encode import write_video
from motion_demo.labels import HELD_OUT, LABELS, SEEN, Label
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPLITS = "testTrainMulti_7030_splits"
_SIZES = ((256, 256), (256, 320), (256, 456), (320, 256), (360, 480), (480, 640), (240, 320))
_RATES = (Fraction(12), Fraction(15), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30))
# The short side in core units: the runtime's default profile then shows the action at the scale it was drawn for.
_SHORT_SIDE = 256


class Codec(NamedTuple):
    """Encoder with its usual container."""

    encoder: str
    suffix: str


CODECS = (Codec("libx264", ".mp4"), Codec("mpeg4", ".avi"), Codec("libvpx-vp9", ".webm"))


def write_clip(stem: Path, seed: int, label: Label, codec: Codec | None = None) -> Path:
    """Render and encode one clip.

    Args:
        stem: The file to write, without its suffix.
        seed: Decides scene, size, length and frame rate.
        label: The class to show.
        codec: None lets the seed decide.

    Returns:
        The file.
    """
    rng = np.random.default_rng((seed, 5))
    size = _SIZES[rng.integers(len(_SIZES))]
    times = frame_times(int(rng.integers(32, 91)))
    frames = render(sample_scene(seed, label), times, size=size, scale=min(size) / _SHORT_SIDE)
    rate = _RATES[rng.integers(len(_RATES))]
    encoder, suffix = codec or CODECS[rng.integers(len(CODECS))]
    path = stem.with_name(stem.name + suffix)
    write_video(path, frames, rate, encoder)
    return path


def write_dataset(folder: Path, labels: Sequence[Label], n: int, first_seed: int) -> Iterator[Path]:
    """Write ``n`` clips in HMDB-51's layout, taking the labels in turn.

    Args:
        folder: Gets a folder for each class and one with the split files.
        labels: What the clips show.
        n: How many clips.
        first_seed: Seed of the first clip; clip k has ``first_seed + k``.

    Yields:
        Each clip, once it is written and in the split files.
    """
    (folder / SPLITS).mkdir(parents=True)
    for index in range(n):
        label = labels[index % len(labels)]
        name = label.text.replace(" ", "_")
        (folder / name).mkdir(exist_ok=True)
        path = write_clip(folder / name / f"{first_seed + index}", first_seed + index, label)
        with (folder / SPLITS / f"{name}_test_split1.txt").open("a", encoding="utf-8") as split:
            split.write(f"{path.name} 2 \n")
        yield path


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--n", type=click.IntRange(1), default=300, show_default=True, help="Clips of each data set.")
@click.option("--first-seed", default=EVALUATION_SEEDS.start, show_default=True, help="Seed of the first clip.")
def main(out: Path, n: int, first_seed: int) -> None:
    """Write OUT/seen, OUT/held_out and OUT/labels.txt."""
    if first_seed not in EVALUATION_SEEDS or first_seed + 2 * n > EVALUATION_SEEDS.stop:
        message = f"--n and --first-seed must keep within {EVALUATION_SEEDS}: training never saw those seeds"
        raise click.UsageError(message)
    if out.exists():
        message = f"{out} exists: name another folder, or remove it"
        raise click.UsageError(message)
    for name, labels, seed in (("seen", SEEN, first_seed), ("held_out", HELD_OUT, first_seed + n)):
        clips = write_dataset(out / name, labels, n, seed)
        for _ in track(clips, total=n, description=name, console=Console(stderr=True)):
            pass
    (out / "labels.txt").write_text("".join(f"{label.text}\n" for label in LABELS), encoding="utf-8")
    click.echo(f"{2 * n} clips in {out / 'seen'} and {out / 'held_out'}")


if __name__ == "__main__":
    main()
