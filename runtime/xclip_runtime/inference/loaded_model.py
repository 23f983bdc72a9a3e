"""A bundle loaded on a device: sessions, labels and preprocessing, for clips that are already prepared."""

from __future__ import annotations

import copy
import logging
import os
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import FramesError, LabelsError
from xclip_runtime.hub import at_revision
from xclip_runtime.inference.auto import MAX_LOGIT_ERROR, check_max_logit_error
from xclip_runtime.inference.bound_model import BoundModel
from xclip_runtime.inference.cached_frames import Reuse, WindowEncoder
from xclip_runtime.inference.graphs import load, load_cached_tower
from xclip_runtime.inference.providers import SessionOptions, check_choice, parse_providers
from xclip_runtime.results import VideoFeatures
from xclip_runtime.util.pickling import NotPicklable
from xclip_runtime.util.renamed import renamed
from xclip_runtime.video import FrameTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.cached_frames import CachedTower
    from xclip_runtime.inference.providers import Compute, DeviceChoice, Goal
    from xclip_runtime.video import Profile

logger = logging.getLogger(__name__)


class LoadedModel(NotPicklable):
    """A bundle loaded on a device, for clips that are already prepared; the arguments are those of `XClip`."""

    _instead = "send the bundle's path, and open it there"

    @renamed(batch="batch_size", intra_op_threads="threads")
    def __init__(
        self,
        bundle: str | os.PathLike[str],
        device: DeviceChoice = "auto",
        precision: Compute | None = None,
        *,
        profile: Profile | None = None,
        threads: int | None = None,
        optimize_for: Goal = "throughput",
        batch_size: int = 1,
        warmup: bool | None = None,
        provider_options: Mapping[str, object] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, object]]] | None = None,
        session_options: object = None,
        max_logit_error: float = MAX_LOGIT_ERROR,
    ) -> None:
        check_choice(device, provider_options, providers)
        check_max_logit_error(max_logit_error)
        own_providers = parse_providers(providers)
        options = partial(
            SessionOptions,
            threads=threads,
            optimize_for=optimize_for,
            max_batch=batch_size,
            provider_options={key: str(value) for key, value in (provider_options or {}).items()},
            cache_dir=None if cache_dir is None else Path(cache_dir),
            providers=own_providers,
            session_options=session_options,
        )
        self.bundle = Bundle.open(bundle)
        self.labels: tuple[str, ...] = self.bundle.labels.names
        self.transform = FrameTransform(profile or self.bundle.preprocessor["profile"], self.bundle.image_size)
        self._loaded = load(self.bundle, device, precision, options, own_providers, max_logit_error=max_logit_error)
        self._bound = BoundModel(self._loaded.vision, self._loaded.prompt, batch_size)
        self._texts = self._bound.bind_texts(self.bundle.text_embeds)
        self._batch_size = batch_size
        wanted = self._loaded.vision.options.device != "cpu" if warmup is None else warmup
        self._warmup_ms = self._bound.warm_up(self._texts) if wanted else None
        if self._warmup_ms is not None:
            logger.info("warm-up took %.0f ms", self._warmup_ms)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None, **options: Any) -> Self:
        """Load a bundle from a folder or a model hub; from a hub, only the files that are used (extra [hub]).

        Args:
            source: A folder, "owner/name" on the hub, or the address of its page. A folder of that name comes first.
            revision: Branch, tag or commit on the hub; None takes "main".
            options: Device, precision and so on, as for the class.

        Raises:
            BundleError: The bundle is missing, changed, of another schema, or lacks the precision.
            HubError: The hub has no such repository, revision or file, or does not answer.
            MissingExtraError: huggingface_hub is not installed.
        """
        return cls(source if revision is None else at_revision(os.fspath(source), revision), **options)

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: object) -> Self:
        """Share the sessions, which hold the weights and never change."""
        return copy.copy(self)

    @property
    def provider(self) -> str:
        """The execution provider that runs the vision graph."""
        return self._loaded.vision.provider

    @property
    def precision(self) -> Compute:
        """Arithmetic of the vision graph."""
        return self._loaded.precision

    @property
    def graph(self) -> GraphEntry:
        """The vision graph's entry in the manifest."""
        return self._loaded.graph

    @property
    def device(self) -> str:
        """The device that runs the vision graph; "other" for execution providers of the user's own list."""
        return self._loaded.vision.options.device

    @property
    def session_options(self) -> SessionOptions:
        """Options of the vision graph's session."""
        return self._loaded.vision.options

    @property
    def ran(self) -> dict[str, str]:
        """Fields of a result that tell what ran."""
        return {
            "provider": self.provider,
            "precision": self.precision,
            "device": self.device,
            "graph": self.graph.name,
        }

    @property
    def info(self) -> Mapping[str, Any]:
        """Effective configuration."""
        return {
            "bundle": str(self.bundle.path),
            "vision_graph": self.graph.file,
            **self.ran,
            "chosen": self._loaded.reason,
            "prompt_provider": self._loaded.prompt.provider,
            "threads": self._loaded.vision.threads,
            "optimize_for": self._loaded.vision.options.optimize_for,
            "batch_size": self._batch_size,
            "warmup_ms": self._warmup_ms,
            "profile": self.transform.profile,
            "num_frames": self.bundle.num_frames,
            "image_size": self.bundle.image_size,
            "labels": len(self.labels),
        }

    @cached_property
    def _cached_tower(self) -> CachedTower:
        return load_cached_tower(self.bundle, self._loaded)

    def window_encoder(self, reuse: Reuse | None = None) -> WindowEncoder:
        """Make an encoder for the windows of one stream, which computes their new frames only.

        ``encode(window)`` takes windows of `XClip.windows` in their order, and returns their features with an
        `Encoding`. The graphs are loaded once for all streams of a model; an encoder holds what T frames computed, 14
        MB for ViT-B/16.

        Args:
            reuse: Policy; None takes the defaults.

        Raises:
            BundleError: The bundle was exported without ``--stream``.
        """
        return WindowEncoder(self._cached_tower, self.label_logits, reuse or Reuse())

    def label_logits(self, features: VideoFeatures) -> NDArray[np.float32]:
        """Compute the logits of the model's labels for features: float32 (N,) in label order."""
        return self._bound.prompt_logits(features, self._texts.embeds)

    def features_batch(self, clips: NDArray[np.uint8]) -> list[VideoFeatures]:
        """Compute the features of prepared clips, uint8 RGB (B, T, size, size, 3), in one run of the vision graph."""
        outputs = self._bound.features(self._check(clips))
        return [VideoFeatures(*pair) for pair in zip(outputs["video_embeds"], outputs["img_features"], strict=True)]

    def prompt_logits(self, features: VideoFeatures, text_embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score texts against stored features exactly as the model does: prompts from the video, then cosines.

        Args:
            features: Result of `features`, also if it was stored as float16.
            text_embeds: float32 (N, D), not normalised, as `text_embeds` returns them.

        Returns:
            float32 (N,): cosines times exp(logit_scale).

        Raises:
            LabelsError: ``text_embeds`` is not (N, D) with this model's D.
        """
        dimension = self.bundle.projection_dim
        if text_embeds.ndim != 2 or text_embeds.shape[1] != dimension:
            message = f"text_embeds have shape {text_embeds.shape}: give (N, {dimension}), as XClip.text_embeds does"
            raise LabelsError(message)
        return self._bound.prompt_logits(features, text_embeds)

    def logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits of one prepared clip, uint8 RGB (T, size, size, 3): float32 (N,) in label order."""
        return next(iter(self.logits_batch(np.asarray(frames)[None])))

    def logits_batch(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits of prepared clips, uint8 RGB (B, T, size, size, 3): float32 (B, N) in label order."""
        return self._bound.scores(self._check(clips), self._texts).logits

    def _check(self, clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
        clips, size = np.asarray(clips), self.bundle.image_size
        shape = (self.bundle.num_frames, size, size, 3)
        if clips.dtype != np.uint8 or clips.shape[1:] != shape or not len(clips):
            message = f"prepared clips are {clips.dtype} {clips.shape}: give uint8 RGB, each {shape}"
            raise FramesError(message)
        return clips
