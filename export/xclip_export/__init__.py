"""Export X-CLIP checkpoints as bundles that run without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_runtime.inference.installation import disable_telemetry

if TYPE_CHECKING:
    from xclip_export.exporter import ExportReport, export_bundle

__all__ = ["ExportReport", "export_bundle"]

# Optimum loads ONNX Runtime by itself.
disable_telemetry()


def __getattr__(name: str) -> object:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from xclip_export import exporter  # noqa: PLC0415 - torch and transformers take seconds to import

    return getattr(exporter, name)
