"""Every error that xclip-onnx raises on purpose.

    XClipError
    ├── BundleError(ValueError)                 a bundle that cannot be used
    │   ├── BundleNotFoundError(FileNotFoundError)
    │   ├── BundleCorruptError                  a file is missing, changed or truncated
    │   ├── BundleSchemaError                   written by another version, or not a bundle
    │   └── PrecisionUnavailableError           the bundle holds no graph of that precision
    ├── VideoError(ValueError)                  a video that cannot be read
    │   ├── VideoNotFoundError(FileNotFoundError)
    │   ├── VideoDecodeError                    not a video, broken, or an unsupported codec
    │   ├── VideoTimeoutError(TimeoutError)     over the time limit of one file
    │   ├── NoFramesError                       it opens, yet holds no picture
    │   ├── VideoLimitError                     longer or larger than a server takes
    │   └── DecoderCrashedError(RuntimeError)   the process that read it is gone
    ├── FramesError(ValueError)                 an array that is not uint8 (T, H, W, 3)
    ├── DeviceError(RuntimeError)               the requested device or provider cannot run here
    ├── LabelsError(ValueError)                 a label set that cannot be used
    ├── DatasetError(ValueError)                labelled videos that are not laid out as they should be
    ├── TensorError(ValueError)                 a request that is not of the Open Inference Protocol
    │   └── UnknownModelError                   it asks for a model that the server does not have
    ├── ServeError(RuntimeError)                a server cannot answer now
    │   ├── UnauthorizedError                   a key is needed
    │   ├── UploadTooLargeError                 the body of a request is over the limit
    │   ├── OverloadedError                     too many requests at once
    │   └── DeadlineError(TimeoutError)         the request's time is over
    ├── ReportError(ValueError)                 a benchmark report that cannot be read or compared
    ├── VideoIndexError(ValueError)             an index of videos that cannot be used
    │   ├── VideoIndexNotFoundError(FileNotFoundError)
    │   └── VideoIndexMismatchError             made with another model
    ├── CaptionsError(ValueError)               a file of captions that cannot be used
    ├── RepositoryError(FileExistsError)        a model repository that must not be replaced
    ├── BulkError(ValueError)                   a bulk run that cannot begin, or not go on
    ├── CheckpointError(ValueError)             a checkpoint that cannot be exported
    ├── ParityError(RuntimeError)               an exported graph does not agree with its checkpoint
    └── MissingExtraError(ImportError)          an optional dependency is not installed

Messages are one line and end with what to do about it.
"""

from __future__ import annotations


class XClipError(Exception):
    """Root of every error that xclip-onnx raises on purpose."""

    def to_dict(self) -> dict[str, str]:
        """Return ``type`` and ``message``, the "error" of every JSON document."""
        return {"type": type(self).__name__, "message": str(self)}


class BundleError(XClipError, ValueError):
    """A bundle that cannot be used."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle at the given path."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, changed or truncated."""


class BundleSchemaError(BundleError):
    """The folder is not a bundle, or one of a schema that this version does not read."""


class PrecisionUnavailableError(BundleError):
    """The bundle holds no vision graph of the requested precision."""


class VideoError(XClipError, ValueError):
    """A video that cannot be read."""


class VideoNotFoundError(VideoError, FileNotFoundError):
    """No video at the given path."""


class VideoDecodeError(VideoError):
    """Not a video, a broken one, or one in a codec that the decoder does not know."""


class VideoTimeoutError(VideoError, TimeoutError):
    """Reading the video takes longer than its time limit."""


class NoFramesError(VideoError):
    """The file opens, yet not one picture comes out of it."""


class VideoLimitError(VideoError):
    """The video is longer or larger than a server takes."""


class DecoderCrashedError(VideoError, RuntimeError):
    """The process that read the video is gone."""


class FramesError(XClipError, ValueError):
    """Frames that are not uint8 RGB of shape (T, H, W, 3)."""


class DeviceError(XClipError, RuntimeError):
    """The requested device or execution provider cannot run on this machine."""


class LabelsError(XClipError, ValueError):
    """A label set that cannot be used."""


class DatasetError(XClipError, ValueError):
    """Labelled videos that are missing or not laid out as they should be."""


class TensorError(XClipError, ValueError):
    """A request that is not one of the Open Inference Protocol, or whose tensors do not fit the model."""


class UnknownModelError(TensorError):
    """The server has no model of that name and version."""


class ServeError(XClipError, RuntimeError):
    """A server cannot answer a request now."""


class UnauthorizedError(ServeError):
    """The client has shown no key that the server knows."""


class UploadTooLargeError(ServeError):
    """The body of a request is over the limit."""


class OverloadedError(ServeError):
    """Too many requests at once, or the server is starting or stopping."""


class DeadlineError(ServeError, TimeoutError):
    """The request's time is over."""


class ReportError(XClipError, ValueError):
    """A benchmark report that cannot be read, or not be compared with another."""


class VideoIndexError(XClipError, ValueError):
    """An index of videos that cannot be used."""


class VideoIndexNotFoundError(VideoIndexError, FileNotFoundError):
    """No index at the given path."""


class VideoIndexMismatchError(VideoIndexError):
    """The index was made with another model."""


class CaptionsError(XClipError, ValueError):
    """A file of captions that cannot be used."""


class RepositoryError(XClipError, FileExistsError):
    """A model repository would take the place of something else."""


class BulkError(XClipError, ValueError):
    """A bulk run that cannot begin, or not go on where an earlier one ended."""


class CheckpointError(XClipError, ValueError):
    """A checkpoint that cannot be exported."""


class ParityError(XClipError, RuntimeError):
    """An exported graph does not agree with its checkpoint."""


class MissingExtraError(XClipError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: What was asked for, as the start of a sentence.
        extra: The extra of xclip-onnx that provides it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'xclip-onnx[{extra}]'")
