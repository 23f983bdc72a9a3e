"""Opening of containers: names, formats that are read, and the choice of the video track."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import av
from av.stream import Discard, Disposition

from xclip_runtime.errors import NoFramesError, VideoDecodeError, VideoError, VideoNotFoundError
from xclip_runtime.util.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

DEMUXERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "rm", "mxf", "mxf_opatom", "gxf", "nut", "wtv"),
    *("dv", "ivf", "gif", "apng", "amv", "dhav", "nsv", "3dostr", "yuv4mpegpipe", "mpjpeg", "mjpeg", "h261", "h263"),
    *("h264", "hevc", "vvc", "av1", "obu", "mpegvideo", "m4v", "vc1", "cavsvideo", "dirac", "dnxhd", "live_flv"),
    # Audio formats, so that the error says that there is no video track, not that the format is unknown.
    *("aac", "ac3", "aiff", "amr", "flac", "mp3", "wav"),
)
"""FFmpeg's names of the formats that files and uploads may have. Playlists and other formats that name further files or
addresses are left out."""

_STILLS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
_KNOWN_FORMATS = {"format_whitelist": ",".join(DEMUXERS)}


def open_file(path: str) -> Any:
    """Open a local file, whatever its name looks like.

    Raises:
        VideoNotFoundError: It is not there, or may not be read.
        VideoDecodeError: It is damaged or of a format that is not in `DEMUXERS`.
    """
    name, options = printable(path), {**_KNOWN_FORMATS, "protocol_whitelist": "file"}
    try:
        return open_input(f"file:{os.path.abspath(path)}", name, options)  # noqa: PTH100 - as it is spelt
    except VideoDecodeError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        missing = isinstance(cause, FileNotFoundError)
        found = f"no such file: {name}" if missing else f"{name} cannot be read ({cause.strerror})"
        message = f"{found}: check the path{'' if missing else ' and its permissions'}"
        raise VideoNotFoundError(message) from cause


def open_standard_input(name: str) -> Any:
    """Open what is piped to this process; `name` is for messages."""
    return open_input("pipe:0", name, {**_KNOWN_FORMATS, "protocol_whitelist": "pipe"})


def open_input(
    address: str, name: str, options: Mapping[str, str], form: str | None = None, timeout: float | None = None
) -> Any:
    """Open what FFmpeg finds at an address, called `name` in messages, in the format `form`, or the one it detects.

    Opening and each read may take `timeout` seconds.

    Raises:
        VideoDecodeError: It cannot be opened.
    """
    try:
        return av.open(address, format=form, options=dict(options), metadata_errors="replace", timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.error.ArgumentError) and "format_whitelist" in options:
            reason = "is a playlist, an image or of another format that is not read as a video: give the video itself"
        else:
            reason = "cannot be opened as a video: it is damaged, cut short, or has no video track; check it"
        message = f"{name} {reason}, or convert it to MP4 (H.264)"
        raise VideoDecodeError(message) from error


def video_track(container: Any, name: str, track: int | None = None) -> Any:
    """Choose a video track by its number, from 0, or FFmpeg's best that is neither cover art nor a thumbnail.

    Raises:
        NoFramesError: No video track.
        VideoError: There is none of that number.
        VideoDecodeError: It is in a codec that FFmpeg does not know.
    """
    tracks = container.streams.video
    videos = [stream for stream in tracks if not stream.disposition & _STILLS]
    if track is None and not videos:
        message = f"{name} has no video track: pass a video, not a sound file"
        raise NoFramesError(message)
    if track is not None and not 0 <= track < len(tracks):
        message = f"{name} has {len(tracks)} video tracks, and none of number {track}: count them from 0"
        raise VideoError(message)
    if track is None:
        moving = [stream for stream in videos if stream.frames != 1] or videos
        best = container.streams.best("video")
        stream = best if best in moving else moving[0]
    else:
        stream = tracks[track]
    if stream.codec_context is None:
        message = f"{name} is in a codec that FFmpeg does not know: convert it to MP4 (H.264)"
        raise VideoDecodeError(message)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream
