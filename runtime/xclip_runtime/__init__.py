"""X-CLIP on ONNX Runtime: classify videos without PyTorch.

The names below are the whole public interface. They are imported on first use, so that ``import xclip_runtime`` itself
costs nothing: neither numpy nor OpenCV nor ONNX Runtime is loaded before a model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_runtime._version import __version__

if TYPE_CHECKING:
    from xclip_runtime.bundle import Bundle
    from xclip_runtime.errors import XClipError
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Classification, LabelScore, TextScore, VideoFeatures, VideoScores
    from xclip_runtime.text.label_embeddings import EncodedLabels, load_labels

__all__ = [
    "Bundle",
    "Classification",
    "EncodedLabels",
    "LabelScore",
    "TextScore",
    "VideoFeatures",
    "VideoScores",
    "XClip",
    "XClipError",
    "__version__",
    "load_labels",
]

_MODULE_OF = {
    "Bundle": "bundle",
    "Classification": "results",
    "EncodedLabels": "text.label_embeddings",
    "LabelScore": "results",
    "TextScore": "results",
    "VideoFeatures": "results",
    "VideoScores": "results",
    "XClip": "model",
    "XClipError": "errors",
    "load_labels": "text.label_embeddings",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module  # noqa: PLC0415 - a lazy module keeps its imports lazy, too

    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
