"""Print a digest of the frames of files, one line of JSON: to compare what processes read that differ in one thing.

python tests/helpers/frame_digests.py '[[PATH, [INDEX, …], {OPTION: …}], …]'
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.insert(0, str(Path(__file__).parents[1]))


def digest_of(frames: Sequence[np.ndarray]) -> str:
    """Shapes and pixels."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.shape).encode())
        digest.update(np.ascontiguousarray(frame))
    return digest.hexdigest()


def digests(requests: Sequence[tuple[str, Sequence[int], dict[str, Any]]]) -> list[str]:
    """The frames of each file, and what the model gets of them."""
    from helpers.video_files import read_whole
    from xclip_runtime.video import FrameTransform, Views, read_views

    found = []
    for path, indices, options in requests:
        frames = read_whole(path, indices, **options)
        for profile in ("videox", "hf"):
            transform = FrameTransform(profile, 40)
            frames += list(read_views(path, num_frames=5, transform=transform, views=Views(1, 3), **options).frames)
        found.append(digest_of(frames))
    return found


def main() -> None:
    if sys.argv[1] == "unwritten":
        # Memory that no one wrote, of the sizes of frames: it shows whether the marker of this process is at work.
        sizes = (3 * 40 * 40, 3 * 160 * 128, 3 * 720 * 576, 3 * 1920 * 1080)
        print(json.dumps([digest_of([np.empty(size, np.uint8)]) for size in sizes]))  # noqa: T201
    else:
        print(json.dumps(digests(json.loads(sys.argv[1]))))  # noqa: T201


if __name__ == "__main__":
    main()
