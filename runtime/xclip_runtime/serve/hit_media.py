"""The videos of search hits, made playable by unguessable tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from pathlib import Path

MAX_VIDEOS = 1000
"""Videos that can be played; the least recently found is dropped first."""


class HitMedia:
    """The videos of recent hits, each under an unguessable token.

    Only a search, which needs a key where the server has keys, makes a video playable: no path comes from a client.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._videos: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of videos that can be played."""
        return len(self._videos)

    def path_of(self, video: str) -> str:
        """Make a video playable; return its path on the server."""
        token = hmac.new(self._secret, video.encode(), hashlib.sha256).hexdigest()[:32]
        self._videos[token] = video
        self._videos.move_to_end(token)
        while len(self._videos) > MAX_VIDEOS:
            self._videos.popitem(last=False)
        return f"/v1/media/{token}"

    def forget(self) -> None:
        """Make all tokens known so far invalid."""
        self._secret = secrets.token_bytes(32)
        self._videos.clear()

    def video(self, token: str) -> Path | None:
        """Return the video of a token, or None if it has been dropped or moved."""
        path = Path(self._videos.get(token, ""))
        return path if path.is_file() else None
