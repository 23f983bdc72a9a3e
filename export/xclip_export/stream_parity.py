"""Parity gate of the stream graphs: caching in torch, and the comparison with it.

Two windows are compared: one whose frames are all new, which must equal the exact graph, and one that follows it with
other new frames beside cached ones, and in one run with another stream, which must equal the same caching in torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from xclip_export.parity import Outputs, compare, out_of_tolerance
from xclip_runtime.errors import ParityError
from xclip_runtime.inference.cached_frames import stream_feeds
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_export.parity import Gate, Parity
    from xclip_export.towers import Message, VisionLayer, VisionTower

    Floats = NDArray[np.float32]

SAME_AS_EXACT = {"fp32": 1e-3, "int8": 1e-3, "fp16": 1e-2}
"""Largest |Δlogit| between a window of new frames only and the exact graph; other shapes round fp16 otherwise."""

_NEW = 4


@dataclass(frozen=True)
class CachedFrames:
    """Results of frames from when they were new, in torch."""

    class_tokens: Tensor
    """(L - 1, K, d), at the input of each layer but the first."""
    last: Tensor
    """(K, 1 + P, d), the output of the last layer."""

    def followed_by(self, new: CachedFrames) -> CachedFrames:
        """Drop as many of the oldest frames as there are new ones."""
        kept = len(new.last)
        tokens = torch.cat([self.class_tokens[:, kept:], new.class_tokens], dim=1)
        return CachedFrames(tokens, torch.cat([self.last[kept:], new.last]))


@torch.no_grad()
def run_new_frames(tower: VisionTower, frames: NDArray[np.uint8], cached: Tensor) -> CachedFrames:
    """Run new frames, uint8 (K, H, W, 3), beside the class tokens (L - 1, T - K, d) of cached ones: the reference."""
    x = tower.embed(torch.from_numpy(np.ascontiguousarray(frames))[None])
    tokens: list[Tensor] = []
    for index, module in enumerate(tower.layers):
        layer, cls = cast("VisionLayer", module), x[:, :1]
        if index == 0:
            messages = layer.message(cls)
        else:
            tokens.append(cls[:, 0])
            everyone = torch.cat([cached[index - 1], cls[:, 0]])
            messages = cast("Message", layer.message)(everyone[:, None])[-len(frames) :]
        normed = layer.layer_norm1(x)
        x = x + layer.self_attn(normed, torch.cat([normed, layer.layer_norm1(messages)], dim=1))
        x = x + layer.mlp(layer.layer_norm2(x))
    return CachedFrames(torch.stack(tokens), x)


class StreamGate:
    """Comparison of stream graphs with the exact graphs, and with caching in torch.

    Args:
        gate: Gate of the other graphs.
        tower: The vision tower.
        head: The head graph.
    """

    def __init__(self, gate: Gate, tower: VisionTower, head: Path) -> None:
        self._gate = gate
        noise, video = gate.clips[:2]
        self._new = [video, noise[:_NEW]]
        nothing = torch.zeros(len(tower.layers) - 1, 0, tower.embed_dim)
        first = run_new_frames(tower, self._new[0], nothing)
        second = first.followed_by(run_new_frames(tower, self._new[1], first.class_tokens[:, _NEW:]))
        self._reference = self._complete([_outputs(tower, window) for window in (first, second)])
        self._nothing = nothing.numpy()
        self._head = Session(head, SessionOptions("cpu"))

    def check(self, graph: Path, exact: Path, precision: str) -> Parity:
        """Check a stream graph; ``exact`` is the vision graph of the same precision and target.

        Raises:
            ParityError: It is out of tolerance.
        """
        session = Session(graph, SessionOptions("cpu"))
        video, following = self._new
        first = session.run(stream_feeds([video], [self._nothing]))
        # Its negative: frames that are like those of the window would do little harm there.
        second = session.run(stream_feeds([following, ~video], [first["class_tokens"][:, _NEW:], self._nothing]))
        rows = [first, {name: np.concatenate([first[name][_NEW:], second[name][:_NEW]]) for name in _HEAD_INPUTS}]
        outputs = self._complete([self._run_head(row) for row in rows])
        self._check_exact(graph, exact, outputs, SAME_AS_EXACT[precision])
        parity = compare(outputs, self._reference, ("video_embeds", "img_features"), precision)
        if not parity.passed:
            raise out_of_tolerance(graph, parity, "the cached window, or the one before it")
        return parity

    def _check_exact(self, graph: Path, exact: Path, outputs: Outputs, allowed: float) -> None:
        found = Session(exact, SessionOptions("cpu")).run({"pixel_values": self._new[0][None]})
        logits = self._complete([found]).logits_per_video[0]
        worst = float(np.abs(outputs.logits_per_video[0] - logits).max())
        if not worst <= allowed:
            message = (
                f"{graph.name} is off by {worst:.3g} in a logit from {exact.name} where all frames are new, "
                f"{allowed} is allowed: nothing was written"
            )
            raise ParityError(message)

    def _run_head(self, row: dict[str, Floats]) -> dict[str, Floats]:
        return self._head.run({name: row[name][None] for name in _HEAD_INPUTS})

    def _complete(self, rows: list[dict[str, Floats]]) -> Outputs:
        return self._gate.complete(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


_HEAD_INPUTS = ("frame_embeds", "patch_features")


@torch.no_grad()
def _outputs(tower: VisionTower, window: CachedFrames) -> dict[str, Floats]:
    video, features = tower.video_embeds(window.last[:, 0]), tower.img_features(window.last[:, 1:])
    return {"video_embeds": video.numpy(), "img_features": features.numpy()}
