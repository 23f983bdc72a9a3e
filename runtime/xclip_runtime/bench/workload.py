"""Samples that a benchmark classifies again and again: clips in memory, or files on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xclip_runtime.bench.plan import Input
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Classification
    from xclip_runtime.video import Clip

WARM_UP = 2


@dataclass(frozen=True)
class Workload:
    """Model with samples for it.

    Attributes:
        model: The model under test.
        videos: Files; sample i is file ``i % len(videos)``.
        clips: The same files, read and prepared.
        input: "clip" classifies frames in memory; "file" reads and decodes as well.
        batch_size: Samples given to `XClip.classify` at once; the model's own batch size.
    """

    model: XClip
    videos: tuple[str, ...]
    clips: tuple[Clip, ...]
    input: Input = "clip"
    batch_size: int = 1

    @classmethod
    def of(
        cls,
        model: XClip,
        videos: Sequence[str],
        input: Input = "clip",  # noqa: A002 - the option's name
        batch_size: int = 1,
    ) -> Workload:
        """Read the videos.

        Raises:
            VideoError: One cannot be read.
        """
        clips = tuple(read_video(video, model.bundle.num_frames, model.transform, Reading()) for video in videos)
        return cls(model, tuple(videos), clips, input, batch_size)

    def answer(self, samples: Sequence[int]) -> list[Classification]:
        """Classify samples as `XClip.classify` does, a batch at a time.

        Args:
            samples: Numbers of samples.

        Returns:
            A result for each, in their order.
        """
        inputs: tuple[str, ...] | tuple[Clip, ...] = self.videos if self.input == "file" else self.clips
        results: list[Classification] = []
        for start in range(0, len(samples), self.batch_size):
            batch = [inputs[sample % len(inputs)] for sample in samples[start : start + self.batch_size]]
            results += [self.model.classify(batch[0])] if len(batch) == 1 else self.model.classify(batch)
        return results

    def warm_up(self) -> None:
        """Run what the first measured answer should not pay for."""
        for _ in range(WARM_UP):
            self.answer(range(self.batch_size))


def stage_times(workload: Workload, *, seconds: float, count: int) -> dict[str, list[float]]:
    """Measure the stages from a file to labels, one video after the other.

    Args:
        workload: The samples; their files are read anew each time, whatever ``workload.input`` is.
        seconds: Minimum duration.
        count: Minimum number of videos.

    Returns:
        Milliseconds by stage, one for each video.
    """
    times: dict[str, list[float]] = {name: [] for name in ("decode", "prepare", "vision", "prompt", "total")}
    workload.model.classify(workload.videos[0])
    begun = time.perf_counter()
    while len(times["total"]) < count or time.perf_counter() - begun < seconds:
        timings = workload.model.classify(workload.videos[len(times["total"]) % len(workload.videos)]).timings_ms
        for name, values in times.items():
            values.append(getattr(timings, name))
    return times
