"""A bundle loaded on a device: sessions, labels and preprocessing, for clips that are already prepared."""

from __future__ import annotations

import copy
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import LabelsError
from xclip_runtime.inference.bound_model import BoundModel
from xclip_runtime.inference.graphs import load
from xclip_runtime.inference.providers import SessionOptions, check_choice, parse_providers
from xclip_runtime.results import VideoFeatures
from xclip_runtime.util.renamed import renamed
from xclip_runtime.video import FrameTransform

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.providers import Compute, DeviceChoice, Goal
    from xclip_runtime.video import Profile

logger = logging.getLogger(__name__)


class LoadedModel:
    """A bundle loaded on a device, for clips that are already prepared."""

    @renamed(batch="batch_size")
    def __init__(
        self,
        bundle: str | os.PathLike[str],
        device: DeviceChoice = "auto",
        precision: Compute | None = None,
        *,
        profile: Profile | None = None,
        intra_op_threads: int | None = None,
        optimize_for: Goal = "throughput",
        batch_size: int = 1,
        warmup: bool | None = None,
        provider_options: Mapping[str, object] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, object]]] | None = None,
        session_options: object = None,
    ) -> None:
        """Load a bundle.

        Args:
            bundle: Folder written by ``xclip-onnx export``, or "motion-demo" for the embedded bundle.
            device: "cpu", "cuda", "tensorrt", "openvino", or "auto": CUDA where it works, otherwise the CPU with a
                WARNING. A named device runs or raises.
            precision: "fp32", "fp16" or "int8"; None takes fp16 on CUDA and fp32 elsewhere. TensorRT and OpenVINO
                compute the fp32 graph in "fp16" or "bf16" on request.
            profile: Preprocessing: "videox" (as the checkpoints were trained and scored) or "hf" (as transformers'
                processor); None takes the bundle's.
            intra_op_threads: Threads inside an operator; None takes every CPU that this process may use.
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
                takes the place of the defaults. ``intra_op_threads`` and the ban on CPU fallback are set in either.

        Raises:
            BundleError: The bundle is missing, changed, of another schema, or lacks the precision.
            DeviceError: The device cannot run here, or refuses an option.
            MissingExtraError: ONNX Runtime is not installed.
            ValueError: ``batch_size`` is below 1.
        """
        check_choice(device, provider_options, providers)
        own_providers = parse_providers(providers)
        options = partial(
            SessionOptions,
            intra_op_threads=intra_op_threads,
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
        self._loaded = load(self.bundle, device, precision, options, own_providers)
        self._bound = BoundModel(self._loaded.vision, self._loaded.prompt, batch_size)
        self._texts = self._bound.bind_texts(self.bundle.text_embeds)
        self._batch_size = batch_size
        wanted = self._loaded.vision.options.device != "cpu" if warmup is None else warmup
        self._warmup_ms = self._bound.warm_up(self._texts) if wanted else None
        if self._warmup_ms is not None:
            logger.info("warm-up took %.0f ms", self._warmup_ms)

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: object) -> Self:
        """Share the sessions, which hold the weights and never change."""
        return copy.copy(self)

    def __reduce__(self) -> NoReturn:
        message = (
            "an XClip holds ONNX Runtime sessions and cannot be pickled: send the bundle's path, and open it there"
        )
        raise TypeError(message)

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
    def info(self) -> Mapping[str, Any]:
        """Effective configuration."""
        return {
            "bundle": str(self.bundle.path),
            "vision_graph": self.graph.file,
            "precision": self.precision,
            "provider": self.provider,
            "prompt_provider": self._loaded.prompt.provider,
            "intra_op_threads": self._loaded.vision.intra_op_threads,
            "optimize_for": self._loaded.vision.options.optimize_for,
            "batch_size": self._batch_size,
            "warmup_ms": self._warmup_ms,
            "profile": self.transform.profile,
            "num_frames": self.bundle.num_frames,
            "image_size": self.bundle.image_size,
            "labels": len(self.labels),
        }

    def features_batch(self, clips: NDArray[np.uint8]) -> list[VideoFeatures]:
        """Compute the features of prepared clips, uint8 RGB (B, T, size, size, 3), in one run of the vision graph."""
        outputs = self._bound.features(clips)
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
        logits: NDArray[np.float32] = self.logits_batch(frames[None])[0]
        return logits

    def logits_batch(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the logits of prepared clips, uint8 RGB (B, T, size, size, 3): float32 (B, N) in label order."""
        return self._bound.scores(clips, self._texts).logits
