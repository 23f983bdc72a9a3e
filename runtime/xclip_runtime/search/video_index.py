"""VideoIndex: add videos, search them by text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from xclip_runtime.errors import LabelsError, VideoIndexError, XClipError
from xclip_runtime.results import Encoding  # noqa: TC001 - the server reads the types of a hit
from xclip_runtime.search.adding import Job, Outcome, source_of, whole_features, window_features
from xclip_runtime.search.identity import ModelIdentity
from xclip_runtime.search.store import MOST_NEAREST, FeatureType, IndexDescription, Store
from xclip_runtime.util.arguments import check_count
from xclip_runtime.util.inputs import check_several, name_of, path_of
from xclip_runtime.util.locks import locked
from xclip_runtime.util.pickling import NotPicklable
from xclip_runtime.util.renamed import renamed
from xclip_runtime.video.processes import PER_CPU

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip
    from xclip_runtime.search.store import WindowSpan

Note = Callable[[str, float], None]
"""Called with each window added: the file's path as given, and the window's end in seconds."""

STORED = "a path: an index stores the paths of its videos"
SHORTLIST = 100
"""Default number of windows that are scored exactly: twice the number that missed none of the ten best hits among 700
videos, see benchmarks/results/retrieval.json."""


@dataclass(frozen=True)
class Added:
    """Outcome of adding one file."""

    video: str
    """Path as given."""

    outcome: Outcome | Literal["unchanged", "failed"]
    """"resumed": continued after a killed run; "unchanged": not read again."""

    windows: int
    """Number of its windows in the index."""

    error: XClipError | None = None
    """Reason of a failure, which leaves the file's windows in the index as they were."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``index add --json`` document; a failed file has an "error", as with ``classify``."""
        if self.error is not None:
            return {"video": self.video, "error": self.error.to_dict()}
        return {"video": self.video, "outcome": self.outcome, "windows": self.windows}


@dataclass(frozen=True)
class Hit:
    """Window that matches a text."""

    video: str
    """Absolute path."""

    start: float
    """Seconds."""

    end: float
    """Seconds; the end of the video where it was indexed as a whole."""

    logit: float
    """Score of the model: cosine with the prompted text embedding times exp(logit_scale)."""

    cosine: float
    """Cosine with the unprompted text embedding, which makes the shortlist."""

    encoding: Encoding | None = None
    """Origin of its features: exact, or from cached frames; None if the index is from before it stored that."""


@dataclass(frozen=True)
class SearchResult:
    """Best hits for a text."""

    query: str

    hits: tuple[Hit, ...]
    """Best first, by their logits."""

    scored: int
    """Number of windows that were scored exactly."""

    windows: int
    """Number of windows in the index."""

    timings_ms: dict[str, float]
    """Milliseconds: "text" to encode the query, "shortlist", "prompt" to read features and score them, "total"."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``index search --json`` document."""
        return asdict(self)


class VideoIndex(NotPicklable):
    """Index of videos for text search. Close it, or use it as a context manager.

    Args:
        store: Contents of the index.
        model: The model that the index was made with.

    Raises:
        VideoIndexMismatchError: The index was made with another model.
    """

    _instead = "send the folder, and open it there with VideoIndex.open"

    def __init__(self, store: Store, model: XClip) -> None:
        store.description.model.check_search(model, str(store.folder))
        self.store = store
        self.model = model

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: XClip) -> VideoIndex:
        """Open an index.

        Raises:
            VideoIndexNotFoundError: The folder holds no index.
            VideoIndexMismatchError: The index was made with another model.
            VideoIndexError: The index is damaged, or of another version.
            MissingExtraError: The extra [index] is not installed.
        """
        return cls._over(Store.open(folder), model)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], model: XClip, *, features: FeatureType | None = None) -> VideoIndex:
        """Create an index, or open an existing one.

        Args:
            folder: Folder of the index; created if missing.
            model: The model that computes the features.
            features: Storage type of the features for exact scores, "fp16" or "fp32"; None takes that of the existing
                index, and fp16 for a new one.

        Raises:
            VideoIndexMismatchError: The existing index was made with another model.
            VideoIndexError: The folder holds other files, or an index with another storage type.
            MissingExtraError: The extra [index] is not installed.
            ValueError: ``features`` is unknown.
        """
        if features not in (None, *get_args(FeatureType)):
            message = f"features {features!r} are unknown: choose one of {', '.join(get_args(FeatureType))}"
            raise ValueError(message)
        index = cls._over(Store.create(folder, IndexDescription(ModelIdentity.of(model), features or "fp16")), model)
        held = index.store.description.features
        if features not in (None, held):
            index.close()
            message = (
                f"the index in {folder} stores features in {held}, not {features}: leave that out, or make a new index"
            )
            raise VideoIndexError(message)
        return index

    @classmethod
    def _over(cls, store: Store, model: XClip) -> VideoIndex:
        try:
            return cls(store, model)
        except XClipError:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.store)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def add(
        self,
        videos: Iterable[str | os.PathLike[str]],
        *,
        window: float | None = None,
        hop: float | None = None,
        reuse: Reuse | None = None,
        workers: int | None = None,
        on_window: Note | None = None,
    ) -> Iterator[Added]:
        """Add files in their order; a file that fails is yielded with its error, and the rest goes on.

        A crash loses nothing that was yielded. A file whose size, time of change and windows are those in the index
        is not read again; one that has changed replaces its windows in the index.

        Args:
            videos: Paths; duplicates are added once.
            window: Seconds of the windows that files are cut into; None takes a file as one window.
            hop: Seconds from one window to the next; None takes half a window.
            reuse: Compute the new frames of a window only, see `XClip.stream`; None computes all.
            workers: Whole files that are read at once; files cut into windows are read one by one.
            on_window: Called after each window that was added, see `Note`.

        Raises:
            VideoTypeError: ``videos`` is a single path.
            VideoIndexMismatchError: The model has another precision or profile than the features in the index, or these
                were computed exactly and those from cached frames, or the other way.
            OutputLockedError: Another process is adding videos to this index.
            ValueError: ``window``, ``hop`` or ``workers`` is out of its range.
        """
        check_several(videos)
        self.store.description.model.check_add(self.model, str(self.store.folder))
        check_count("workers", workers, PER_CPU)
        self.store.expect(reuse=window is not None and reuse is not None)
        note = on_window or (lambda *_: None)
        if window is None:
            return self._while_locked(self._add_whole(self._plan(videos, None, None), workers, note))
        hop = self.model.windows(window, hop, reuse=reuse is not None).hop
        return self._while_locked(self._add_windows(self._plan(videos, window, hop), note, reuse))

    @renamed(k="top_k")
    def search(
        self,
        text: str,
        top_k: int = 10,
        *,
        shortlist: int = SHORTLIST,
        exact: bool = False,
        per_video: int | None = None,
    ) -> SearchResult:
        """Find the windows that a text describes best.

        X-CLIP's prompts depend on the video, so its logits are not a cosine that a vector search could rank by. The
        windows nearest to the text by cosine are shortlisted, and the shortlist is scored exactly from the stored
        features. Of overlapping windows only the best is a hit; where too few hits are left, the shortlist grows.

        Args:
            text: Any text, taken without a template.
            top_k: Number of hits.
            shortlist: Number of windows to score exactly, at most 4096.
            exact: Score every window instead.
            per_video: Most hits of one file; None for any number.

        Raises:
            LabelsError: The text is empty or too long.
            MissingExtraError: ``tokenizers`` is not installed.
            ValueError: ``top_k``, ``shortlist`` or ``per_video`` is out of its range.
        """
        _check_search(text, top_k, shortlist, per_video)
        begin = time.perf_counter()
        text_embeds = self.model.text_embeds([text])
        unit = text_embeds[0] / np.linalg.norm(text_embeds[0])
        encoded = time.perf_counter()
        total, listing = len(self), 0.0
        scores: dict[int, tuple[float, float]] = {}
        count = total if exact else min(max(shortlist, top_k), MOST_NEAREST)
        while True:
            listed = time.perf_counter()
            wanted = None if exact else [row for row in self.store.nearest(unit, count) if row not in scores]
            listing += time.perf_counter() - listed
            scores |= self._score(wanted, text_embeds, unit)
            hits = self._hits(scores, top_k, per_video)
            if len(hits) == top_k or count >= min(total, MOST_NEAREST):
                break
            count = min(2 * count, MOST_NEAREST)
        end = time.perf_counter()
        return SearchResult(
            query=text,
            hits=tuple(hits),
            scored=len(scores),
            windows=total,
            timings_ms={
                "text": 1000 * (encoded - begin),
                "shortlist": 1000 * listing,
                "prompt": 1000 * (end - encoded - listing),
                "total": 1000 * (end - begin),
            },
        )

    def delete(self, videos: Iterable[str | os.PathLike[str]]) -> int:
        """Delete files, or all files of a folder, from the index, not from the disk.

        Returns:
            The number of files that the index held.

        Raises:
            VideoTypeError: ``videos`` is a single path, whose characters would be paths, too: "/" is every file.
        """
        check_several(videos)
        return self.store.delete(path for video in videos for path in self.store.under(path_of(video, STORED)))

    def _score(
        self, windows: Sequence[int] | None, text_embeds: NDArray[np.float32], unit: NDArray[np.float32]
    ) -> dict[int, tuple[float, float]]:
        """Compute logit and cosine by window; None scores every window."""
        return {
            window: (float(self.model.prompt_logits(features, text_embeds)[0]), float(unit @ features.video_embeds))
            for window, features in self.store.features(windows)
        }

    def _hits(self, scores: dict[int, tuple[float, float]], top_k: int, per_video: int | None) -> list[Hit]:
        """Choose the best windows that do not overlap, best first."""
        hits: list[Hit] = []
        taken: dict[str, list[WindowSpan]] = {}
        for window, (logit, cosine) in sorted(scores.items(), key=lambda item: (-item[1][0], item[0])):
            span = self.store.span(window)
            others = taken.setdefault(span.path, [])
            overlaps = any(span.start < other.end and other.start < span.end for other in others)
            if overlaps or (per_video is not None and len(others) >= per_video):
                continue
            others.append(span)
            hits.append(Hit(span.path, span.start, span.end, logit, cosine, span.encoding))
            if len(hits) == top_k:
                break
        return hits

    def _plan(
        self, videos: Iterable[str | os.PathLike[str]], window: float | None, hop: float | None
    ) -> Iterator[Job | Added]:
        """Yield the job for each file, or its outcome where nothing is to be done."""
        planned = set()
        for video in videos:
            path = name_of(video)
            name = type(video).__name__ if path is None else path
            try:
                source = source_of(path_of(video, STORED), window, hop)
            except XClipError as error:
                yield Added(name, "failed", 0, error)
                continue
            if source.path in planned:
                continue
            planned.add(source.path)
            entry = self.store.entry(source.path)
            if entry is None:
                yield Job(name, source, "added")
            elif entry.source != source:
                yield Job(name, source, "replaced")
            elif entry.complete:
                yield Added(name, "unchanged", entry.windows)
            else:
                yield Job(name, source, "resumed")

    def _while_locked(self, adding: Iterator[Added]) -> Iterator[Added]:
        with locked(self.store.folder, inside=True):
            yield from adding

    def _add_whole(self, plan: Iterator[Job | Added], workers: int | None, note: Note) -> Iterator[Added]:
        ahead, jobs = tee(plan)
        for window, job in zip(whole_features(self.model, ahead, workers), jobs, strict=True):
            if isinstance(job, Added):
                yield job
            elif isinstance(window, XClipError):
                yield Added(job.name, "failed", 0, window)
            elif window is not None:
                self.store.put(job.source, *window, first=True, last=True)
                note(job.name, window.end)
                yield Added(job.name, job.outcome, 1)

    def _add_windows(self, plan: Iterator[Job | Added], note: Note, reuse: Reuse | None) -> Iterator[Added]:
        for job in plan:
            if isinstance(job, Added):
                yield job
                continue
            done = self.store.starts(job.source.path) if job.outcome == "resumed" else set()
            try:
                for window in window_features(self.model, job, done, reuse):
                    self.store.put(job.source, *window, first=not done, last=False)
                    done.add(window.start)
                    note(job.name, window.end)
            except VideoIndexError:
                raise
            except XClipError as error:
                yield Added(job.name, "failed", len(done), error)
                continue
            self.store.complete(job.source.path)
            yield Added(job.name, job.outcome, len(done))


def _check_search(text: str, top_k: int, shortlist: int, per_video: int | None) -> None:
    if not isinstance(text, str) or not text.strip():
        message = f"the text is {text!r}: describe in a few words what to look for"
        raise LabelsError(message)
    check_count("top_k", top_k)
    check_count("per_video", per_video, "all of a video")
    check_count("shortlist", shortlist, most=MOST_NEAREST)
