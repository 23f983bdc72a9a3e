"""XClip: bundle + sessions + video → results."""

from __future__ import annotations

import copy
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import DeviceError, FramesError, LabelsError, XClipError
from xclip_runtime.inference.bound_model import LABELS_AT_ONCE, BoundModel
from xclip_runtime.inference.graphs import load
from xclip_runtime.inference.scoring import average_views, best_labels, check_top_k, softmax
from xclip_runtime.inference.session import SessionOptions
from xclip_runtime.results import (
    Classification,
    FrameUse,
    TextScore,
    Timings,
    VideoFeatures,
    VideoScores,
    WindowResult,
)
from xclip_runtime.streaming.events import Smoother
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import open_source
from xclip_runtime.streaming.windows import StreamWindow
from xclip_runtime.text.encoder import TextEncoder
from xclip_runtime.text.label_embeddings import EncodedLabels, encode_labels
from xclip_runtime.text.labels import PLACEHOLDER
from xclip_runtime.util.cpus import default_workers
from xclip_runtime.util.prefetch import pipelined_batches
from xclip_runtime.video import Clip, FrameTransform
from xclip_runtime.video.load import Reading, Video, read_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.session import Compute, Device, DeviceChoice, Goal
    from xclip_runtime.streaming.sources import FrameSource
    from xclip_runtime.video import Profile

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class _Seen(NamedTuple):
    """What all views of a clip say together."""

    probs: NDArray[np.float64]
    logits: NDArray[np.float32]
    timings_ms: Timings


class XClip:
    """An X-CLIP model, ready to classify videos.

    Args:
        bundle: Folder written by ``xclip-onnx export``.
        device: "cpu", "cuda", "tensorrt", "openvino", or "auto": CUDA where it works, the CPU otherwise, said once at
            WARNING. A device that is named either runs or raises.
        precision: "fp32", "fp16" or "int8"; None takes fp16 on CUDA and fp32 elsewhere. TensorRT and OpenVINO compute
            the fp32 graph in "fp16" or "bf16" on request.
        profile: "videox" (as the checkpoints were trained and scored) or "hf" (as transformers' processor does it);
            None takes the bundle's.
        intra_op_threads: Threads inside an operator; None takes every CPU that this process may use.
        optimize_for: "throughput" leaves idle cores to the decoder and to others; "latency" keeps them spinning.
        batch: Clips that :meth:`classify_each` runs together. On a GPU batches are padded to a power of two, or to
            this size, and each size is prepared once.
        warmup: Whether to run every batch size at construction; None does so on everything but the CPU, which is
            ready when it is loaded.
        provider_options: Further options of the execution provider, by ONNX Runtime's names; needs a named device.
        cache_dir: Where TensorRT keeps its engines; None takes $XCLIP_ONNX_CACHE or the user's cache folder.

    Raises:
        BundleError: The bundle is missing, changed, of another schema, or lacks the precision.
        DeviceError: The device cannot run here.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        device: DeviceChoice = "auto",
        precision: Compute | None = None,
        *,
        profile: Profile | None = None,
        intra_op_threads: int | None = None,
        optimize_for: Goal = "throughput",
        batch: int = 1,
        warmup: bool | None = None,
        provider_options: Mapping[str, object] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        def options_of(device: Device) -> SessionOptions:
            return SessionOptions(
                device,
                intra_op_threads,
                optimize_for,
                max_batch=batch,
                provider_options={key: str(value) for key, value in (provider_options or {}).items()},
                cache_dir=None if cache_dir is None else Path(cache_dir),
            )

        _check_options(device, batch, provider_options)
        self.bundle = Bundle.open(bundle)
        self.labels: tuple[str, ...] = self.bundle.labels.names
        self.transform = FrameTransform(profile or self.bundle.preprocessor["profile"], self.bundle.image_size)
        self._text_embeds = self.bundle.text_embeds
        self._loaded = load(self.bundle, device, precision, options_of)
        self._vision, self._prompt = self._loaded.vision, self._loaded.prompt
        self._batch = batch
        self._bound = BoundModel(self._vision, self._prompt, batch)
        self._texts = self._bound.bind_texts(self._text_embeds)
        self._text = TextEncoder(self.bundle, self._vision.options)
        wanted = self._vision.options.device != "cpu" if warmup is None else warmup
        self._warmup_ms = self._bound.warm_up(self._texts) if wanted else None
        if self._warmup_ms is not None:
            logger.info("warm-up took %.0f ms", self._warmup_ms)

    @property
    def provider(self) -> str:
        """The execution provider that runs the vision graph."""
        return self._vision.provider

    @property
    def precision(self) -> Compute:
        """What the vision graph is computed in."""
        return self._loaded.precision

    @property
    def graph(self) -> GraphEntry:
        """The vision graph's entry in the manifest."""
        return self._loaded.graph

    @property
    def info(self) -> Mapping[str, Any]:
        """What was loaded: never what was asked for."""
        return {
            "bundle": str(self.bundle.path),
            "vision_graph": self.graph.file,
            "precision": self.precision,
            "provider": self.provider,
            "prompt_provider": self._prompt.provider,
            "intra_op_threads": self._vision.intra_op_threads,
            "optimize_for": self._vision.options.optimize_for,
            "batch": self._batch,
            "warmup_ms": self._warmup_ms,
            "profile": self.transform.profile,
            "num_frames": self.bundle.num_frames,
            "image_size": self.bundle.image_size,
            "labels": len(self.labels),
        }

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, videos: Video, *, top_k: int | None = 5, reading: Reading | None = None, workers: int | None = None
    ) -> Classification: ...
    @overload
    def classify(
        self,
        videos: Sequence[Video],
        *,
        top_k: int | None = 5,
        reading: Reading | None = None,
        workers: int | None = None,
    ) -> list[Classification]: ...
    def classify(
        self,
        videos: Video | Sequence[Video],
        *,
        top_k: int | None = 5,
        reading: Reading | None = None,
        workers: int | None = None,
    ) -> Classification | list[Classification]:
        """Classify one video, or each video of a list.

        Args:
            videos: A path, an array uint8 RGB (T, H, W, 3), or a clip; a list of these gives a list, in the same order.
            top_k: How many labels to return, best first; None returns all.
            reading: Which part of a file to look at, in how many views, and with which decoder.
            workers: Threads that read ahead in a list, see :meth:`classify_each`.

        Raises:
            VideoError: A file cannot be read as a video.
            FramesError: An array is not uint8 (T, H, W, 3).
            ValueError: ``top_k`` or ``workers`` is less than 1.
        """
        if isinstance(videos, (str, os.PathLike, np.ndarray, Clip)):
            check_top_k(top_k)
            return self._answer(videos, self._read(videos, reading), top_k)
        results = []
        for result in self.classify_each(videos, top_k=top_k, reading=reading, workers=workers):
            if isinstance(result, XClipError):
                raise result
            results.append(result)
        return results

    def classify_each(
        self,
        videos: Iterable[Video],
        *,
        top_k: int | None = 5,
        reading: Reading | None = None,
        workers: int | None = None,
    ) -> Iterator[Classification | XClipError]:
        """Classify videos in their order; one that fails gives its error in its place, and the rest goes on.

        The next videos are read while the present one is in the model.

        Args:
            videos: Paths, arrays or clips; taken as needed, so it may be endless.
            top_k: As in :meth:`classify`.
            reading: As in :meth:`classify`.
            workers: Threads that read videos; None takes one for each CPU that this process may use, at most 4.

        Raises:
            ValueError: ``top_k`` or ``workers`` is less than 1.
        """
        check_top_k(top_k)
        return _each(
            videos,
            lambda video: self._read(video, reading),
            lambda clips: self._answer_batch(clips, top_k),
            workers,
            batch=self._batch,
        )

    def features(self, video: Video, *, reading: Reading | None = None) -> VideoFeatures:
        """What the vision graph sees in a video: enough to score any text later, with :meth:`prompt_logits`.

        Args:
            video: A path, an array uint8 RGB (T, H, W, 3), or a clip.
            reading: Which part of a file to look at. One view only: probabilities can be averaged over views,
                features cannot.

        Raises:
            VideoError: The file cannot be read as a video.
            FramesError: The array is not uint8 (T, H, W, 3), or the clip has several views.
            ValueError: ``reading`` asks for several views.
        """
        _check_one_view(reading)
        return self._see(self._read_one_view(video, reading).frames[0])

    def features_each(
        self, videos: Iterable[Video], *, reading: Reading | None = None, workers: int | None = None
    ) -> Iterator[VideoFeatures | XClipError]:
        """The features of videos in their order; one that fails gives its error in its place, and the rest goes on.

        The next videos are read while the present one is in the model.

        Args:
            videos: Paths, arrays or clips; taken as needed, so it may be endless.
            reading: As in :meth:`features`.
            workers: As in :meth:`classify_each`.

        Raises:
            ValueError: ``workers`` is less than 1, or ``reading`` asks for several views.
        """
        _check_one_view(reading)
        return _each(
            videos,
            lambda video: self._read_one_view(video, reading),
            lambda clips: [self._see(clip.frames[0]) for _, clip in clips],
            workers,
        )

    def features_batch(self, clips: NDArray[np.uint8]) -> list[VideoFeatures]:
        """The features of several prepared clips, in one run of the vision graph.

        Args:
            clips: uint8 RGB (B, T, size, size, 3) with the model's own number of frames and size.
        """
        outputs = self._bound.features(clips)
        return [VideoFeatures(*pair) for pair in zip(outputs["video_embeds"], outputs["img_features"], strict=True)]

    def with_labels(
        self,
        labels: Sequence[str] | EncodedLabels,
        template: str | Sequence[str] = PLACEHOLDER,
        *,
        truncate: bool = False,
    ) -> XClip:
        """This model with other labels; both share their graphs in memory, and this one keeps its labels.

        Several templates are an ensemble: their embeddings are averaged (see
        :func:`xclip_runtime.text.label_embeddings.ensemble`), and the video's prompts are generated from the average.

        Args:
            labels: In the order in which the model will answer, duplicates kept; or a set that is encoded already,
                by this bundle or by another with the same text tower.
            template: Text with a ``{}`` for the label, or several. The published checkpoints were trained on the bare
                name. Of no use to a set that is encoded already.
            truncate: Cut texts that are longer than the model's context.

        Raises:
            LabelsError: There is no label, one is empty or too long, a template has no ``{}``, or another text tower
                encoded the set.
            MissingExtraError: ``tokenizers`` is not installed (extra [text]); an encoded set does without.
            BundleError: The bundle's tokenizer or text graph is missing or changed.
        """
        if not isinstance(labels, EncodedLabels):
            labels = encode_labels(self._text, labels, template, truncate=truncate)
        labels.check_fits(self.bundle.text_tower_sha256)
        other = copy.copy(self)
        other.labels = labels.names
        other._text_embeds = labels.text_embeds  # noqa: SLF001 - of this very class
        other._texts = self._bound.bind_texts(labels.text_embeds)  # noqa: SLF001
        return other

    def score(
        self, video: Video, texts: Sequence[str], *, reading: Reading | None = None, truncate: bool = False
    ) -> VideoScores:
        """Score a video against sentences.

        For many videos and the same texts, :meth:`with_labels` encodes the texts only once.

        Args:
            video: As in :meth:`classify`.
            texts: Any words, at least one.
            reading: As in :meth:`classify`.
            truncate: Cut texts that are longer than the model's context.

        Returns:
            The texts in the order given.

        Raises:
            VideoError: The file cannot be read as a video.
            FramesError: The array is not uint8 (T, H, W, 3).
            LabelsError: There is no text, or one is empty or too long.
            MissingExtraError: ``tokenizers`` is not installed (extra [text]).
            BundleError: The bundle's tokenizer or text graph is missing or changed.
        """
        model = self.with_labels(texts, truncate=truncate)
        clip = self._read(video, reading)
        seen = model._look(clip)  # noqa: SLF001 - of this very class
        scale = float(self.bundle.manifest["model"]["logit_scale"])
        scores = zip(model.labels, seen.probs.tolist(), seen.logits.tolist(), strict=True)
        return VideoScores(
            video=_name_of(video),
            texts=tuple(TextScore(text, prob, logit, logit / scale) for text, prob, logit in scores),
            frames=FrameUse.of(clip),
            provider=self.provider,
            precision=self.precision,
            timings_ms=seen.timings_ms,
        )

    def text_embeds(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """Embeddings of texts by the bundle's own tokenizer and text graph (extra [text]).

        Args:
            texts: Any words; each is taken as it is, without a template.
            truncate: Cut texts that are longer than the model's context, as CLIP does on request.

        Returns:
            float32 (N, D), not normalised, as in the bundle's text_embeds.npy.

        Raises:
            LabelsError: A text is longer than the model's context, which is 77 tokens with start and end.
            MissingExtraError: ``tokenizers`` is not installed.
            BundleError: The bundle's tokenizer or text graph is missing or changed.
        """
        return self._text.encode(texts, truncate=truncate)

    def prompt_logits(self, features: VideoFeatures, text_embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score texts against a video exactly as the model does: prompts from the video, then cosines.

        The texts do not see each other, so any number of them goes through in pieces of at most
        :data:`LABELS_AT_ONCE`.

        Args:
            features: Of :meth:`features`; features that were stored as float16 are taken, too.
            text_embeds: float32 (N, D), not normalised, as :meth:`text_embeds` gives them.

        Returns:
            float32 (N,): cosines times exp(logit_scale).

        Raises:
            LabelsError: ``text_embeds`` is not (N, D) with this model's D.
        """
        dimension = self.bundle.projection_dim
        if text_embeds.ndim != 2 or text_embeds.shape[1] != dimension:
            message = f"text_embeds have shape {text_embeds.shape}: give (N, {dimension}), as XClip.text_embeds does"
            raise LabelsError(message)
        video = {
            "video_embeds": features.video_embeds[None].astype(np.float32, copy=False),
            "img_features": features.img_features[None].astype(np.float32, copy=False),
        }
        chunks = (text_embeds[i : i + LABELS_AT_ONCE] for i in range(0, len(text_embeds), LABELS_AT_ONCE))
        logits = [self._prompt.run({**video, "text_embeds": chunk})["logits_per_video"][0] for chunk in chunks]
        return np.concatenate(logits) if logits else np.empty(0, np.float32)

    def windows(self, window: float = 4.0, hop: float | None = None, *, fps: float | None = None) -> StreamWindow:
        """Windows of this model's size, to feed with frames; ``logits(window.frames)`` is their answer.

        Args:
            window: Seconds.
            hop: Seconds from one window to the next; None takes half a window.
            fps: Frames a second, if known.

        Raises:
            ValueError: ``window`` or ``hop`` is out of its range.
        """
        hop = window / 2 if hop is None else hop
        return StreamWindow(window, hop, num_frames=self.bundle.num_frames, transform=self.transform, fps=fps)

    def stream(
        self,
        source: str | int | os.PathLike[str] | FrameSource,
        *,
        window: float = 4.0,
        hop: float | None = None,
        top_k: int | None = 5,
        smooth: float = 0.0,
        newest_wins: bool | None = None,
    ) -> Iterator[WindowResult]:
        """Classify a live or long video, window after window.

        Frames are read in a thread of their own. Of a live source, a window that is not yet in the model is dropped
        when the next one is ready, and counted; any other source waits for the model.

        Args:
            source: Number of a camera, an address such as rtsp://…, a file, "-" for standard input, or a source as
                :func:`xclip_runtime.streaming.sources.open_source` opens it.
            window: Seconds that a window lasts.
            hop: Seconds from one window to the next; None takes half a window.
            top_k: How many labels to return, best first; None returns all.
            smooth: Time constant of exponential smoothing of the probabilities, seconds; 0 for none.
            newest_wins: Whether windows may be dropped; None takes the source's nature.

        Raises:
            VideoError: The source cannot be opened, gives no picture, or, while iterating, is gone for too long.
            ValueError: An option is out of its range.
        """
        check_top_k(top_k)
        smoother = Smoother(smooth)
        opened = open_source(source) if isinstance(source, (str, int, os.PathLike)) else source
        feed = WindowFeed(
            opened,
            self.windows(window, hop, fps=opened.fps),
            self.transform,
            newest_wins=opened.live if newest_wins is None else newest_wins,
        )
        return self._stream(feed, smoother, top_k)

    def _stream(self, feed: WindowFeed, smoother: Smoother, top_k: int | None) -> Iterator[WindowResult]:
        for window, dropped_windows, dropped_frames in feed:
            logits = self.logits(window.frames)
            probs = smoother.update(softmax(logits), window.end, anew=window.gap is not None)
            yield WindowResult(
                start=window.start,
                end=window.end,
                labels=best_labels(self.labels, probs, logits, top_k),
                latency_ms=1000 * (time.perf_counter() - window.arrived),
                dropped_windows=dropped_windows,
                dropped_frames=dropped_frames,
                gap=window.gap,
                provider=self.provider,
                precision=self.precision,
            )

    def embed(self, video: Video) -> NDArray[np.float32]:
        """The video's embedding, float32 (D,) of unit length.

        It carries no prompt: its cosine with a text embedding is not the model's logit.

        Raises:
            VideoError: The file cannot be read as a video.
            FramesError: The array is not uint8 (T, H, W, 3).
        """
        return self.features(video).unit_embeds

    def logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits of one prepared clip, in label order.

        Args:
            frames: uint8 RGB (T, size, size, 3) with the model's own number of frames and size.

        Returns:
            float32 (N,).
        """
        logits: NDArray[np.float32] = self.logits_batch(frames[None])[0]
        return logits

    def logits_batch(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits of several prepared clips, in label order; their features never leave the device.

        Args:
            clips: uint8 RGB (B, T, size, size, 3) with the model's own number of frames and size.

        Returns:
            float32 (B, N).
        """
        return self._bound.scores(clips, self._texts).logits

    def _read(self, video: Video, reading: Reading | None) -> Clip:
        return read_video(video, self.bundle.num_frames, self.transform, reading or Reading())

    def _read_one_view(self, video: Video, reading: Reading | None) -> Clip:
        clip = self._read(video, reading)
        views = _views_of(clip)
        if len(views) != 1:
            message = f"the clip has {len(views)} views: read one with Views(1, 1) for features"
            raise FramesError(message)
        return replace(clip, frames=views)

    def _see(self, frames: NDArray[np.uint8]) -> VideoFeatures:
        return self.features_batch(frames[None])[0]

    def _look(self, clip: Clip) -> _Seen:
        return self._look_at_batch([clip])[0]

    def _look_at_batch(self, clips: Sequence[Clip]) -> list[_Seen]:
        views = [view for clip in clips for view in _views_of(clip)]
        # No more views at a time than a batch holds, so that twelve views need no more memory than one.
        runs = [
            self._bound.scores(np.stack(views[start : start + self._batch]), self._texts)
            for start in range(0, len(views), self._batch)
        ]
        logits = np.concatenate([run.logits for run in runs])
        vision_ms, prompt_ms = (sum(times) / len(views) for times in zip(*(run[1:] for run in runs), strict=True))
        ends = np.cumsum([len(_views_of(clip)) for clip in clips])
        return [
            _seen(clip, part, vision_ms * len(part), prompt_ms * len(part))
            for clip, part in zip(clips, np.split(logits, ends[:-1]), strict=True)
        ]

    def _answer(self, video: Video, clip: Clip, top_k: int | None) -> Classification:
        return self._answer_batch([(video, clip)], top_k)[0]

    def _answer_batch(self, videos: Sequence[tuple[Video, Clip]], top_k: int | None) -> list[Classification]:
        return [
            Classification(
                video=_name_of(video),
                labels=best_labels(self.labels, seen.probs, seen.logits, top_k),
                frames=FrameUse.of(clip),
                provider=self.provider,
                precision=self.precision,
                timings_ms=seen.timings_ms,
            )
            for (video, clip), seen in zip(videos, self._look_at_batch([clip for _, clip in videos]), strict=True)
        ]


def _each(
    videos: Iterable[Video],
    read: Callable[[Video], Clip],
    answer: Callable[[Sequence[tuple[Video, Clip]]], Sequence[Result]],
    workers: int | None,
    *,
    batch: int = 1,
) -> Iterator[Result | XClipError]:
    """``answer`` of every video that ``read`` reads, ahead and in batches; what cannot be read gives its error."""
    if workers is not None and workers < 1:
        message = f"workers is {workers}: give at least 1, or None for one a CPU"
        raise ValueError(message)

    def read_or_error(video: Video) -> Clip | XClipError:
        try:
            return read(video)
        except XClipError as error:
            return error

    def answer_or_error(pairs: Sequence[tuple[Video, Clip | XClipError]]) -> list[Result | XClipError]:
        clips = [(video, clip) for video, clip in pairs if isinstance(clip, Clip)]
        answers = iter(answer(clips) if clips else ())
        return [next(answers) if isinstance(clip, Clip) else clip for _, clip in pairs]

    return pipelined_batches(videos, read_or_error, answer_or_error, workers=workers or default_workers(), batch=batch)


def _check_options(device: DeviceChoice, batch: int, provider_options: Mapping[str, object] | None) -> None:
    if batch < 1:
        message = f"batch is {batch}: give at least 1"
        raise ValueError(message)
    if provider_options and device == "auto":
        message = "provider options belong to one provider, device auto may take another: name the device"
        raise DeviceError(message)


def _check_one_view(reading: Reading | None) -> None:
    if reading is not None and len(reading.views) != 1:
        message = f"features of {len(reading.views)} views cannot be averaged as probabilities can: ask for one view"
        raise ValueError(message)


def _seen(clip: Clip, logits: NDArray[np.float32], vision_ms: float, prompt_ms: float) -> _Seen:
    """What the views of a clip say together; ``logits`` is (V, N)."""
    return _Seen(
        *average_views(logits),
        timings_ms=Timings(
            decode=clip.decode_ms,
            prepare=clip.prepare_ms,
            vision=vision_ms,
            prompt=prompt_ms,
            total=clip.decode_ms + clip.prepare_ms + vision_ms + prompt_ms,
        ),
    )


def _name_of(video: Video) -> str | None:
    return os.fspath(video) if isinstance(video, (str, os.PathLike)) else None


def _views_of(clip: Clip) -> NDArray[np.uint8]:
    """uint8 (V, T, size, size, 3)."""
    return clip.frames if clip.frames.ndim == 5 else clip.frames[None]
