"""XClip, the facade over bundle, sessions, videos and texts."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from xclip_runtime.errors import FramesError, XClipError
from xclip_runtime.inference.scoring import (
    best_labels,
    check_top_k,
    score_clips,
    text_scores,
    views_of,
)
from xclip_runtime.results import Classification, FrameUse, VideoFeatures, VideoScores
from xclip_runtime.streaming.windowed_model import WindowedModel
from xclip_runtime.text.encoder import TextEncoder
from xclip_runtime.text.label_embeddings import EncodedLabels, encode_labels
from xclip_runtime.text.labels import PLACEHOLDER, as_names
from xclip_runtime.util.inputs import check_several, is_several, name_of
from xclip_runtime.video.load import Reading, read_video
from xclip_runtime.video.processes import read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.scoring import ViewScores
    from xclip_runtime.util.inputs import VideoFile
    from xclip_runtime.video import Clip
    from xclip_runtime.video.load import Video
    from xclip_runtime.video.processes import ReadVideo

    OneVideo = VideoFile | Clip | NDArray[Any]
    Videos = Sequence[VideoFile | Clip]
    # A list of arrays is several videos or one, depending on their axes.
    Frames = Video | Iterable[Video]

Result = TypeVar("Result")


class XClip(WindowedModel):
    """An X-CLIP model, ready to classify videos.

    A video is a path, the content of a file as ``bytes`` or as a binary file, frames as uint8 RGB of shape
    (T, H, W, 3) or as a list of images, or a `Clip`. Threads may share an instance.

    Args:
        bundle: Folder written by ``xclip-onnx export``, "motion-demo", or a repository as in `from_pretrained`.
        device: "cpu", "cuda", "tensorrt", "openvino", "openvino:gpu", "openvino:npu", "plugin:NAME", or
            "auto": CUDA where it works, otherwise the CPU with a WARNING, where it runs the fastest engine within
            ``max_logit_error``. A named device runs or raises.
        precision: "fp32", "fp16" or "int8"; None takes fp16 on CUDA and fp32 elsewhere, or int8 where the bundle holds
            nothing else. TensorRT and OpenVINO compute the fp32 graph in "fp16" or "bf16" on request.
        profile: Preprocessing: "videox" (as the checkpoints were trained and scored) or "hf" (as transformers'
            processor); None takes the bundle's.
        threads: Threads inside an operator; None takes every CPU that this process may use.
        optimize_for: "throughput" leaves idle cores to the decoder and to other processes; "latency" keeps them
            spinning.
        batch_size: Videos that the model runs together. On a GPU batches are padded to a power of two, or to this
            size, and each size is prepared once.
        warmup: Run every batch size at construction; None does so on every device but the CPU.
        provider_options: Further options of the device's execution provider, by ONNX Runtime's names.
        cache_dir: Folder for TensorRT's engines; None takes $XCLIP_ONNX_CACHE or the user's cache folder.
        providers: Execution providers as ``onnxruntime.InferenceSession`` takes them, in place of ``device`` and
            ``provider_options`` and used as they are. No other provider, and so not the CPU unless listed, may run
            a node.
        session_options: Config entries for the sessions as a mapping, or an ``onnxruntime.SessionOptions`` that
            takes the place of the defaults. ``threads`` and the ban on CPU fallback are set in either.
        max_logit_error: Largest |Δlogit| to fp32 for which "auto", where it comes to the CPU and no precision is named,
            takes the fastest engine that ``xclip-onnx tune`` measured; without a tuning it goes by the CPU's features.

    Raises:
        BundleError: The bundle is missing, changed, of another schema, or lacks the precision.
        DeviceError: The device cannot run here, or refuses an option. HubError: see `from_pretrained`.
        MissingExtraError: ONNX Runtime is not installed.
        ValueError: ``batch_size`` is below 1, or ``max_logit_error`` below 0.
    """

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return TextEncoder(self.bundle, self._loaded.vision.options)

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, videos: OneVideo, *, top_k: int | None = ..., reading: Reading | None = ..., workers: int | None = ...
    ) -> Classification: ...
    @overload
    def classify(
        self, videos: Videos, *, top_k: int | None = ..., reading: Reading | None = ..., workers: int | None = ...
    ) -> list[Classification]: ...
    @overload
    def classify(
        self, videos: Frames, *, top_k: int | None = ..., reading: Reading | None = ..., workers: int | None = ...
    ) -> Classification | list[Classification]: ...
    def classify(
        self, videos: Any, *, top_k: int | None = 5, reading: Reading | None = None, workers: int | None = None
    ) -> Classification | list[Classification]:
        """Classify one video, or each video of a list.

        Args:
            videos: A video gives one result, a list of videos a list in the same order. A list of images, each uint8
                RGB (H, W, 3), is the frames of one video.
            top_k: Number of labels to return, best first; None returns all.
            reading: Part of a file to read, views, and decoder.
            workers: Videos of a list that are read at once, see `classify_each`.

        Raises:
            VideoError: A file cannot be read as a video, or an object is not a video.
            FramesError: Frames are not uint8 (T, H, W, 3).
            ValueError: ``top_k`` or ``workers`` is below 1.
        """
        if not is_several(videos):
            check_top_k(top_k)
            return self._to_results(top_k, [(videos, self._read(reading, videos))])[0]
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
        """Classify videos in their order; a video that fails yields its error in its place.

        Videos, possibly endless, are taken as needed, and the next ones are read while the model runs: ``workers`` at
        once, None for one per CPU that this process may use, as far as its memory allows. Up to 4 are read by threads;
        of more, files are read by processes. Other arguments are as in `classify`.

        Raises:
            VideoTypeError: ``videos`` is a single video.
            ValueError: ``top_k`` or ``workers`` is below 1.
        """
        check_top_k(top_k)
        return self._each(videos, partial(self._read, reading), partial(self._to_results, top_k), workers)

    def features(self, video: Video, *, reading: Reading | None = None) -> VideoFeatures:
        """Compute the outputs of the vision graph, which `prompt_logits` scores texts against.

        Arguments are as in `classify`, with a single view: unlike probabilities, features are not averaged.

        Raises:
            VideoError: The file cannot be read as a video.
            FramesError: Frames are not uint8 (T, H, W, 3), or there are several views.
        """
        _check_single(len(Reading.of(reading).views))
        return self.features_batch(self._read_one_view(reading, video).frames)[0]

    def features_each(
        self, videos: Iterable[Video], *, reading: Reading | None = None, workers: int | None = None
    ) -> Iterator[VideoFeatures | XClipError]:
        """Compute `features` of videos, with ``videos``, ``workers`` and errors as in `classify_each`."""
        _check_single(len(Reading.of(reading).views))
        return self._each(videos, partial(self._read_one_view, reading), self._to_features, workers)

    def embed(self, video: Video, *, reading: Reading | None = None) -> NDArray[np.float32]:
        """Compute the video's embedding, float32 (D,) of unit length.

        It carries no prompt: its cosine with a text embedding is not the model's logit. Arguments and errors are those
        of `features`.
        """
        return self.features(video, reading=reading).unit_embeds

    def embed_each(
        self, videos: Iterable[Video], *, reading: Reading | None = None, workers: int | None = None
    ) -> Iterator[NDArray[np.float32] | XClipError]:
        """Compute `embed` of videos, with ``videos``, ``workers`` and errors as in `classify_each`."""
        found = self.features_each(videos, reading=reading, workers=workers)
        return (each.unit_embeds if isinstance(each, VideoFeatures) else each for each in found)

    def with_labels(
        self,
        labels: Iterable[str] | EncodedLabels,
        template: str | Iterable[str] = PLACEHOLDER,
        *,
        truncate: bool = False,
    ) -> XClip:
        """Return this model with other labels; both share their sessions, and this one keeps its labels.

        Several templates are an ensemble: their embeddings are averaged (see
        `xclip_runtime.text.label_embeddings.ensemble`), and the video's prompts are generated from the average.

        Args:
            labels: In the order of the logits, duplicates kept; or a set that is already encoded, by this bundle or by
                another with the same text tower.
            template: Text with a ``{}`` for the label, or several. The published checkpoints were trained on the bare
                name. Ignored for a set that is already encoded.
            truncate: Cut texts that are longer than the model's context.

        Raises:
            LabelsError: ``labels`` is a string, there is no label, one is empty or too long, a template has no ``{}``,
                or another text tower encoded the set.
            MissingExtraError: ``tokenizers`` is not installed (extra [text]) and the set is not encoded.
        """
        encoder = self._text_encoder  # created before the copy, which shares it
        if not isinstance(labels, EncodedLabels):
            labels = encode_labels(encoder, labels, template, truncate=truncate)
        labels.check_fits(self.bundle.text_tower_sha256)
        other = copy.copy(self)
        other.labels = labels.names
        other._texts = self._bound.bind_texts(labels.text_embeds)  # noqa: SLF001 - of this very class
        return other

    def score(
        self,
        video: Video,
        texts: Iterable[str] | EncodedLabels,
        *,
        reading: Reading | None = None,
        truncate: bool = False,
    ) -> VideoScores:
        """Score at least one text for a video; the result keeps the order given.

        Videos and ``reading`` are as in `classify`. Texts may be encoded already; ``truncate`` cuts those that
        are longer than the model's context.

        Raises:
            VideoError: The file cannot be read as a video.
            FramesError: Frames are not uint8 (T, H, W, 3).
            LabelsError: ``texts`` is a string, there is no text, or one is empty or too long.
            MissingExtraError: ``tokenizers`` is not installed (extra [text]).
        """
        model = self._with_texts(texts, truncate=truncate)
        return model._to_text_scores([(video, self._read(reading, video))])[0]  # noqa: SLF001 - of this very class

    def score_each(
        self,
        videos: Iterable[Video],
        texts: Iterable[str] | EncodedLabels,
        *,
        reading: Reading | None = None,
        truncate: bool = False,
        workers: int | None = None,
    ) -> Iterator[VideoScores | XClipError]:
        """Compute `score` of videos, with ``videos``, ``workers`` and errors as in `classify_each`.

        The texts are encoded once.
        """
        model = self._with_texts(texts, truncate=truncate)
        return self._each(videos, partial(self._read, reading), model._to_text_scores, workers)  # noqa: SLF001

    def text_embeds(self, texts: Iterable[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """Encode texts with the bundle's tokenizer and text graph (extra [text]).

        Args:
            texts: Any texts; each is taken as it is, without a template.
            truncate: Cut texts that are longer than the model's context, 77 tokens, as CLIP does on request.

        Returns:
            float32 (N, D), not normalised, as in the bundle's text_embeds.npy.

        Raises:
            LabelsError: ``texts`` is a string, or a text is longer than the model's context.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        return self._text_encoder.encode(texts, truncate=truncate)

    def check_texts(self, texts: Iterable[str]) -> None:
        """Check that `text_embeds` takes texts, without encoding them.

        Raises:
            LabelsError: ``texts`` is a string, or a text is longer than the model's context.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        self._text_encoder.token_ids(texts)

    def _with_texts(self, texts: Iterable[str] | EncodedLabels, *, truncate: bool) -> XClip:
        given = texts if isinstance(texts, EncodedLabels) else as_names(texts, "text", "texts")
        return self.with_labels(given, truncate=truncate)

    def _read(self, reading: Reading | None, video: Video, read: ReadVideo = read_video) -> Clip:
        return read(video, self.bundle.num_frames, self.transform, Reading.of(reading))

    def _read_one_view(self, reading: Reading | None, video: Video, read: ReadVideo = read_video) -> Clip:
        clip = self._read(reading, video, read)
        views = views_of(clip)
        _check_single(len(views))
        return replace(clip, frames=views)

    def _each(
        self,
        videos: Iterable[Video],
        read: Callable[[Video, ReadVideo], Clip],
        finish: Callable[[Sequence[tuple[Video, Clip]]], Sequence[Result]],
        workers: int | None,
    ) -> Iterator[Result | XClipError]:
        check_several(videos)
        return read_ahead(videos, read, finish, workers=workers, batch=self._batch_size)

    def _to_features(self, videos: Sequence[tuple[Video, Clip]]) -> list[VideoFeatures]:
        return self.features_batch(np.concatenate([clip.frames for _, clip in videos]))

    def _to_results(self, top_k: int | None, videos: Sequence[tuple[Video, Clip]]) -> list[Classification]:
        scored = self._score(videos)
        return [Classification(labels=best_labels(self.labels, *scores, top_k), **facts) for scores, facts in scored]

    def _to_text_scores(self, videos: Sequence[tuple[Video, Clip]]) -> list[VideoScores]:
        names, scale = self.labels, self.bundle.logit_scale
        return [VideoScores(texts=text_scores(names, *scores, scale), **facts) for scores, facts in self._score(videos)]

    def _score(self, videos: Sequence[tuple[Video, Clip]]) -> Iterator[tuple[ViewScores, dict[str, Any]]]:
        """Score clips; yield the scores with the fields that every result of a video has."""
        scored = score_clips(self._bound, self._texts, [clip for _, clip in videos], self._batch_size)
        for (video, clip), (scores, timings) in zip(videos, scored, strict=True):
            ran = {**self.ran, "timings_ms": timings}
            yield scores, {"video": name_of(video), "frames": FrameUse.of(clip), **ran}


def _check_single(views: int) -> None:
    if views != 1:
        message = f"features require a single view; got {views}: read with Views(1, 1)"
        raise FramesError(message)
