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
    """Model with samples for it."""

    model: XClip
    videos: tuple[str, ...]
    """Files; sample i is file ``i % len(videos)``."""
    clips: tuple[Clip, ...]
    """The same files, read and prepared."""
    input: Input = "clip"
    """Sample to classify: "clip" is frames in memory, "file" is read and decoded as well."""
    batch_size: int = 1
    """Samples given to `XClip.classify` at once; the model's own batch size."""

    @classmethod
    def of(
        cls,
        model: XClip,
        videos: Sequence[str],
        input: Input = "clip",  # noqa: A002 - the option's name
        batch_size: int = 1,
    ) -> Workload:
        """Read the videos, and prepare their clips."""
        clips = tuple(read_video(video, model.bundle.num_frames, model.transform, Reading()) for video in videos)
        return cls(model, tuple(videos), clips, input, batch_size)

    def answer(self, samples: Sequence[int]) -> list[Classification]:
        """Classify the samples with these numbers as `XClip.classify` does, a batch at a time."""
        inputs: tuple[str, ...] | tuple[Clip, ...] = self.videos if self.input == "file" else self.clips
        results: list[Classification] = []
        for start in range(0, len(samples), self.batch_size):
            batch = [inputs[sample % len(inputs)] for sample in samples[start : start + self.batch_size]]
            results += [self.model.classify(batch[0])] if len(batch) == 1 else self.model.classify(batch)
        return results

    def warm_up(self) -> None:
        """Answer a few batches unmeasured, so that lazy initialisation does not count."""
        for _ in range(WARM_UP):
            self.answer(range(self.batch_size))


def stage_times(workload: Workload, *, seconds: float, count: int) -> dict[str, list[float]]:
    """Measure the stages from a file to labels, in milliseconds, one video after the other, each read anew."""
    times: dict[str, list[float]] = {name: [] for name in ("decode", "prepare", "vision", "prompt", "total")}
    workload.model.classify(workload.videos[0])
    begun = time.perf_counter()
    while len(times["total"]) < count or time.perf_counter() - begun < seconds:
        timings = workload.model.classify(workload.videos[len(times["total"]) % len(workload.videos)]).timings_ms
        for name, values in times.items():
            values.append(getattr(timings, name))
    return times
