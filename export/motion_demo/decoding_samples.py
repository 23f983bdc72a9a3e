"""Make the small videos with which `xclip-onnx doctor` tests decoders.

    python -m motion_demo.decoding_samples runtime/xclip_runtime/data/decoding

Each shows, upright, red and green above blue and grey. Run it with a PyAV that has the encoders.
"""

from __future__ import annotations

import fractions
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

COLOURS = (((220, 40, 40), (40, 200, 40)), ((40, 40, 220), (128, 128, 128)))
SIDE, FRAMES, FPS = 64, 8, 25


def encode(path: Path, codec: str, options: dict[str, str], *, mirrored: bool = False) -> None:
    """Write one video; a mirrored one is stored so that its display matrix sets it right."""
    image = np.array(COLOURS, np.uint8).repeat(SIDE // 2, axis=0).repeat(SIDE // 2, axis=1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        if mirrored:
            stream.set_display_rotation(0, hflip=True)
            image = np.ascontiguousarray(image[:, ::-1])
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    """Write all of them to the folder that is the first argument."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    encode(folder / "interlaced.mp4", "libx264", {"flags": "+ildct+ilme", "x264-params": "tff=1"})
    encode(folder / "mirrored.mp4", "libx264", {}, mirrored=True)
    encode(folder / "av1.mp4", "libsvtav1", {"svtav1-params": "preset=8"})


if __name__ == "__main__":
    main()
