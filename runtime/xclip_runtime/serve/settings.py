"""What a server allows, and how it shares its work."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What is refused before it can cost much."""

    upload_bytes: int = 256 * MIB
    """Size of a request's body."""
    duration: float = 600.0
    """Seconds of video, by what its container says."""
    pixels: int = 4096 * 2304
    """Width times height of the video."""
    decode_seconds: float = 30.0
    """After so long a decode worker is killed."""
    decode_bytes: int = 4096 * MIB
    """Address space of a decode worker; where the platform cannot limit it this has no effect."""
    labels: int = 1000
    """Labels or texts of one request."""
    text_length: int = 500
    """Characters of a label or text."""
    batch: int = 32
    """Clips or videos in one request of /v2."""
    views: int = 12
    """Views of one video, clips times crops."""
    kept_clips: int = 64
    """Videos whose features are kept for more labels; the one that was used least lately goes first."""
    live_sessions: int = 8
    """Cameras at a time."""


@dataclass(frozen=True)
class ServeSettings:
    """How a server runs."""

    limits: Limits = field(default_factory=Limits)
    queue_size: int = 64
    """Requests that may be anywhere between upload and answer; one more is refused with 503."""
    deadline: float = 60.0
    """Seconds after which a request is given up; clients may ask for less."""
    decode_workers: int = 2
    """Processes that decode."""
    batch_size: int = 1
    """Clips that go through the vision graph together."""
    batch_delay: float = 0.0
    """Seconds that a clip waits for others to fill its batch."""
    api_keys: tuple[str, ...] = ()
    """Keys that clients must show; none for no such check."""
