"""X-CLIP on ONNX Runtime: classify videos without PyTorch.

The names below are the public interface. They are imported on first use, so that ``import xclip_runtime`` itself loads
neither numpy nor OpenCV nor ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_runtime._version import __version__

if TYPE_CHECKING:
    from xclip_runtime.bundle import Bundle
    from xclip_runtime.errors import (
        BulkError,
        BundleCorruptError,
        BundleError,
        BundleNotFoundError,
        BundleSchemaError,
        DeviceError,
        FramesError,
        HubAccessError,
        HubError,
        HubNotFoundError,
        HubUnavailableError,
        LabelsError,
        MissingExtraError,
        NoFramesError,
        PrecisionUnavailableError,
        VideoDecodeError,
        VideoError,
        VideoIndexError,
        VideoIndexMismatchError,
        VideoIndexNotFoundError,
        VideoLimitError,
        VideoNotFoundError,
        VideoTimeoutError,
        VideoTypeError,
        XClipError,
    )
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.inference.packing import pack_bundle
    from xclip_runtime.integrations.ray_cluster.bulk import BulkReport as BulkReport
    from xclip_runtime.integrations.ray_cluster.bulk import run_bulk as run_bulk
    from xclip_runtime.integrations.ray_cluster.deployment import xclip_deployment as xclip_deployment
    from xclip_runtime.model import XClip
    from xclip_runtime.results import (
        Classification,
        Encoding,
        Event,
        FrameUse,
        Gap,
        LabelScore,
        TextScore,
        Timings,
        VideoFeatures,
        VideoScores,
        WindowResult,
    )
    from xclip_runtime.search import Added, Hit, SearchResult, VideoIndex
    from xclip_runtime.serve.settings import Limits, ServeSettings
    from xclip_runtime.streaming.events import EventDetector, Smoother
    from xclip_runtime.streaming.sources import Backoff, FrameSource, RawFormat, open_source
    from xclip_runtime.streaming.windows import StreamWindow, Window
    from xclip_runtime.text.label_embeddings import EncodedLabels, load_labels, save_labels
    from xclip_runtime.video import Clip, FrameTransform, Views, read_clip, sampling
    from xclip_runtime.video.load import Reading
    from xclip_runtime.video.threads import ThreadPolicy

# fmt: off
__all__ = [
    "Added", "Backoff", "BulkError", "Bundle", "BundleCorruptError", "BundleError", "BundleNotFoundError",
    "BundleSchemaError", "Classification", "Clip", "DeviceError", "EncodedLabels", "Encoding", "Event",
    "EventDetector", "FrameSource", "FrameTransform", "FrameUse", "FramesError", "Gap", "Hit", "HubAccessError",
    "HubError", "HubNotFoundError", "HubUnavailableError", "LabelScore", "LabelsError", "Limits", "MissingExtraError",
    "NoFramesError", "PrecisionUnavailableError", "RawFormat", "Reading", "Reuse", "SearchResult", "ServeSettings",
    "Smoother", "StreamWindow", "TextScore", "ThreadPolicy", "Timings", "VideoDecodeError", "VideoError",
    "VideoFeatures", "VideoIndex", "VideoIndexError", "VideoIndexMismatchError", "VideoIndexNotFoundError",
    "VideoLimitError", "VideoNotFoundError", "VideoScores", "VideoTimeoutError", "VideoTypeError", "Views", "Window",
    "WindowResult", "XClip", "XClipError", "__version__", "load_labels", "open_source", "pack_bundle", "read_clip",
    "sampling", "save_labels",
]
# fmt: on

_MODULES = {
    "bundle": "Bundle",
    "model": "XClip",
    "inference.cached_frames": "Reuse",
    "inference.packing": "pack_bundle",
    "results": "Classification Encoding Event FrameUse Gap LabelScore TextScore Timings VideoFeatures VideoScores "
    "WindowResult",
    "search": "Added Hit SearchResult VideoIndex",
    "serve.settings": "Limits ServeSettings",
    "streaming.events": "EventDetector Smoother",
    "streaming.sources": "Backoff FrameSource RawFormat open_source",
    "streaming.windows": "StreamWindow Window",
    "text.label_embeddings": "EncodedLabels load_labels save_labels",
    "video": "Clip FrameTransform Views read_clip sampling",
    "video.load": "Reading",
    "video.threads": "ThreadPolicy",
    # Not in __all__: importing these needs the extra [ray].
    "integrations.ray_cluster.bulk": "BulkReport run_bulk",
    "integrations.ray_cluster.deployment": "xclip_deployment",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415 - importing the package should cost nothing

    holder = next((module for module, names in _MODULES.items() if name in names.split()), None)
    if holder is None and name.endswith("Error") and name in __all__:
        holder = "errors"
    if holder is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f".{holder}", __name__), name)


def __dir__() -> list[str]:
    return __all__
