"""What is run again and again: clips in memory, or files from disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.model import XClip

Input = Literal["clip", "file"]
INPUTS: tuple[Input, ...] = get_args(Input)
WARM_UP = 2


@dataclass(frozen=True)
class Workload:
    """A model with samples for it.

    Attributes:
        model: What answers.
        videos: The files; sample i is file ``i % len(videos)``.
        clips: Their prepared frames, uint8 (S, T, size, size, 3).
        input: "clip" runs the two graphs on frames in memory; "file" reads and decodes as well.
        batch: Clips that go through the vision graph at once; files go one by one.
    """

    model: XClip
    videos: tuple[str, ...]
    clips: NDArray[np.uint8]
    input: Input = "clip"
    batch: int = 1

    @classmethod
    def of(cls, model: XClip, videos: Sequence[str], input: Input = "clip", batch: int = 1) -> Workload:  # noqa: A002
        """Read the videos.

        Raises:
            VideoError: One cannot be read.
        """
        frames = [read_video(v, model.bundle.num_frames, model.transform, Reading()).frames[0] for v in videos]
        return cls(model, tuple(videos), np.stack(frames), input, batch)

    def answer(self, samples: Sequence[int]) -> None:
        """Classify samples, and wait for the last."""
        if self.input == "file":
            for sample in samples:
                self.model.classify(self.videos[sample % len(self.videos)])
            return
        text_embeds = self.model.bundle.text_embeds
        for start in range(0, len(samples), self.batch):
            clips = self.clips[[sample % len(self.clips) for sample in samples[start : start + self.batch]]]
            for features in self.model.features_batch(clips):
                self.model.prompt_logits(features, text_embeds)

    def warm_up(self) -> None:
        """Run what the first measured answer should not pay for."""
        for _ in range(WARM_UP):
            self.answer(range(self.batch))


def stage_times(workload: Workload, *, seconds: float, count: int) -> dict[str, list[float]]:
    """Milliseconds of each stage, from a file to labels, one video after the other.

    Args:
        workload: Its files are read anew each time, whatever its input is.
        seconds: Go on for at least so long.
        count: And for at least so many videos.
    """
    times: dict[str, list[float]] = {name: [] for name in ("decode", "prepare", "vision", "prompt", "total")}
    workload.model.classify(workload.videos[0])
    begun = time.perf_counter()
    while len(times["total"]) < count or time.perf_counter() - begun < seconds:
        timings = workload.model.classify(workload.videos[len(times["total"]) % len(workload.videos)]).timings_ms
        for name, values in times.items():
            values.append(getattr(timings, name))
    return times
