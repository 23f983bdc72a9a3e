"""Every error that xclip-onnx raises on purpose.

    XClipError
    ├── BundleError(ValueError)                 a bundle that cannot be used
    │   ├── BundleNotFoundError(FileNotFoundError)
    │   ├── BundleCorruptError                  a file is missing, changed or truncated
    │   ├── BundleSchemaError                   written by another version, or not a bundle
    │   └── PrecisionUnavailableError           the bundle holds no graph of that precision
    ├── VideoError(ValueError)                  a video that cannot be read
    │   ├── VideoNotFoundError(FileNotFoundError)
    │   ├── VideoTypeError(TypeError)           an object that is not read as a video
    │   ├── VideoDecodeError                    not a video, damaged, or an unsupported codec
    │   ├── VideoTimeoutError(TimeoutError)     takes longer to read than its time limit
    │   ├── NoFramesError                       contains no video frames
    │   ├── VideoLimitError                     longer or larger than the limits allow
    │   └── DecoderCrashedError(RuntimeError)   the process that decoded it died
    ├── FramesError(ValueError)                 an array that is not uint8 (T, H, W, 3)
    ├── DeviceError(RuntimeError)               the requested device or provider cannot run here
    ├── LabelsError(ValueError)                 a label set that cannot be used
    ├── DatasetError(ValueError)                labelled videos in an unknown layout
    ├── TensorError(ValueError)                 an invalid request of the Open Inference Protocol
    │   └── UnknownModelError                   the server has no such model
    ├── ServeError(RuntimeError)                a request that a server does not answer
    │   ├── UnauthorizedError                   no valid API key
    │   ├── ModelControlError                   clients may not load and unload models
    │   ├── ModelLoadError                      a model that a server cannot load
    │   ├── ForbiddenError                      sent by another site's page, or to a name that is not the server's
    │   ├── UploadTooLargeError                 the request body is over the limit
    │   ├── DiskFullError                       the server has no room for the upload
    │   ├── OverloadedError                     too many requests at once
    │   │   └── StartingError                   the server is starting or stopping
    │   ├── ClientLimitError                    too many requests of one client at once
    │   └── DeadlineError(TimeoutError)         the request takes longer than its timeout
    ├── ListenError(OSError)                    a server cannot listen on its address, or use its certificate
    ├── ReportError(ValueError)                 a benchmark report that cannot be read or compared
    ├── VideoIndexError(ValueError)             an index of videos that cannot be used
    │   ├── VideoIndexNotFoundError(FileNotFoundError)
    │   └── VideoIndexMismatchError             written with another model
    ├── CaptionsError(ValueError)               a file of captions that cannot be used
    ├── RepositoryError(FileExistsError)        a folder that a model repository must not replace
    ├── OutputLockedError(RuntimeError)         an output that another process is writing
    ├── BulkError(ValueError)                   a bulk run that cannot start or go on
    ├── CheckpointError(ValueError)             a checkpoint that cannot be exported
    ├── HubError(OSError)                       a model hub, or the cache of its downloads, that cannot be used
    │   ├── HubNotFoundError(FileNotFoundError) no such repository, revision or file, or a private one
    │   ├── HubAccessError(PermissionError)     a gated repository, or a token that is not enough
    │   └── HubUnavailableError(ConnectionError) overloaded, down, cut off, or offline mode
    ├── ParityError(RuntimeError)               an exported graph that differs from its checkpoint
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


class VideoTypeError(VideoError, TypeError):
    """An object of a type that is not read as a video."""


class VideoDecodeError(VideoError):
    """Not a video, a damaged one, or one with an unsupported codec."""


class VideoTimeoutError(VideoError, TimeoutError):
    """Reading the video takes longer than its time limit."""


class NoFramesError(VideoError):
    """The file contains no video frames."""


class VideoLimitError(VideoError):
    """The video is longer or larger than the limits allow."""


class DecoderCrashedError(VideoError, RuntimeError):
    """The process that decoded the video died."""


class FramesError(XClipError, ValueError):
    """Frames that are not uint8 RGB of shape (T, H, W, 3)."""


class DeviceError(XClipError, RuntimeError):
    """The requested device or execution provider cannot run on this machine."""


class LabelsError(XClipError, ValueError):
    """A label set that cannot be used."""


class DatasetError(XClipError, ValueError):
    """Labelled videos that are missing or in an unknown layout."""


class TensorError(XClipError, ValueError):
    """An invalid request of the Open Inference Protocol, or tensors that do not fit the model."""


class UnknownModelError(TensorError):
    """The server has no model of that name and version."""


class ServeError(XClipError, RuntimeError):
    """A request that the server does not answer."""


class UnauthorizedError(ServeError):
    """The request carries no valid API key."""


class ModelControlError(ServeError):
    """The server does not let clients load and unload models."""


class ModelLoadError(ServeError):
    """A model that the server cannot load; one that it serves goes on."""


class ForbiddenError(ServeError):
    """The request comes from a page of another site, or names a host that is not the server's."""


class UploadTooLargeError(ServeError):
    """The request body is over the limit."""


class DiskFullError(ServeError):
    """The disk of the temporary directory has no room for the upload."""


class OverloadedError(ServeError):
    """Too many requests at once, or the server is starting or stopping."""


class StartingError(OverloadedError):
    """The server is starting or stopping."""


class ClientLimitError(ServeError):
    """Too many requests of one client at once."""


class DeadlineError(ServeError, TimeoutError):
    """The request takes longer than its timeout."""


class ListenError(XClipError, OSError):
    """A server cannot listen on its address, or use its TLS certificate."""


class ReportError(XClipError, ValueError):
    """A benchmark report that cannot be read or compared."""


class VideoIndexError(XClipError, ValueError):
    """An index of videos that cannot be used."""


class VideoIndexNotFoundError(VideoIndexError, FileNotFoundError):
    """No index at the given path."""


class VideoIndexMismatchError(VideoIndexError):
    """The index was written with another model."""


class CaptionsError(XClipError, ValueError):
    """A file of captions that cannot be used."""


class RepositoryError(XClipError, FileExistsError):
    """A folder that a model repository must not replace."""


class OutputLockedError(XClipError, RuntimeError):
    """An output that another process is writing."""


class BulkError(XClipError, ValueError):
    """A bulk run that cannot start, resume an earlier one, or go on."""


class CheckpointError(XClipError, ValueError):
    """A checkpoint that cannot be exported."""


class HubError(XClipError, OSError):
    """A model hub, or the cache of its downloads, that cannot be used."""


class HubNotFoundError(HubError, FileNotFoundError):
    """The hub has no such repository, revision or file, or the repository is private."""


class HubAccessError(HubError, PermissionError):
    """The repository is gated, or the token is missing, invalid or not enough."""


class HubUnavailableError(HubError, ConnectionError):
    """The hub is overloaded, down or not to be reached, or offline mode is on."""


class ParityError(XClipError, RuntimeError):
    """An exported graph that differs from its checkpoint by more than its tolerance."""


class MissingExtraError(XClipError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: The feature, as the start of a sentence.
        extra: The extra of xclip-onnx that provides it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)  # what a pickle creates it from
        self.msg = f"{feature} needs an optional dependency: pip install 'xclip-onnx[{extra}]'"
