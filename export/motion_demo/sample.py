"""Write the sample video that ships with the runtime: ``python -m motion_demo.sample OUT.mp4``."""

from __future__ import annotations

from pathlib import Path

import click

from motion_demo.encode import write_video
from motion_demo.labels import Label
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene

SAMPLE_LABEL = Label("orange", "circling")
SAMPLE_SEED = EVALUATION_SEEDS.stop - 8
_SIZE = (256, 320)
_FPS = 25
_SECONDS = 3


def write_sample(path: Path) -> None:
    """Render and encode the sample, 320 by 256 pixels and three seconds of H.264."""
    frames = render(sample_scene(SAMPLE_SEED, SAMPLE_LABEL), frame_times(_FPS * _SECONDS), size=_SIZE)
    write_video(path, frames, _FPS)


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(out: Path) -> None:
    """Write the sample video to OUT and print the label it shows."""
    write_sample(out)
    click.echo(SAMPLE_LABEL.text)


if __name__ == "__main__":
    main()
