"""Ranges of the activations of a vision tower on calibration clips, for int8."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from xclip_export.towers import Message
from xclip_runtime.video import FrameTransform, read_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from xclip_export.towers import Attention, VisionLayer, VisionTower

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Observation:
    """Range of one projection input over the calibration clips.

    Attributes:
        low: Smallest value of each channel.
        high: Largest value of each channel.
    """

    low: Floats
    high: Floats

    def include(self, other: Observation) -> None:
        """Widen the range in place to include ``other``."""
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)

    def plus(self, offset: Floats) -> Observation:
        """Shift the range by ``offset``, by channel."""
        return Observation(self.low + offset, self.high + offset)

    def times(self, factor: NDArray[Any] | np.float32) -> Observation:
        """Scale the range by the positive ``factor``, by channel."""
        return Observation(self.low * factor, self.high * factor)

    @property
    def middle(self) -> Floats:
        """Midpoint of the range of each channel."""
        return cast("Floats", (self.low + self.high) / np.float32(2))

    @property
    def magnitude(self) -> Floats:
        """Largest absolute value of each channel."""
        return cast("Floats", np.maximum(np.abs(self.low), np.abs(self.high)))


def calibration_clips(num_frames: int, image_size: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Make six clips, uint8 RGB (T, H, W, 3): plain, inverted and dark video; plain and bright texture; noise."""
    rng = np.random.default_rng(seed)
    with resources.as_file(resources.files("xclip_export") / "data" / "bigbuckbunny-excerpt.mp4") as path:
        video = read_clip(path, num_frames=num_frames, transform=FrameTransform("videox", image_size)).frames
    # Texture with the 1/f spectrum of natural images, moved by a few pixels from frame to frame.
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(image_size), np.fft.rfftfreq(image_size), indexing="ij"))
    spectrum = np.fft.rfft2(rng.standard_normal((3, image_size, image_size))) / np.maximum(frequency, 1 / image_size)
    texture = np.fft.irfft2(spectrum, s=(image_size, image_size)).transpose(1, 2, 0)
    texture = np.clip(128 + 50 * texture / texture.std(), 0, 255).astype(np.uint8)
    drift = np.stack([np.roll(texture, (3 * t, 2 * t), axis=(0, 1)) for t in range(num_frames)])
    noise = rng.integers(0, 256, video.shape, dtype=np.uint8)
    return [video, 255 - video[:, :, ::-1], drift, noise, with_gamma(video, 2.5), with_gamma(drift, 0.4)]


def with_gamma(frames: NDArray[np.uint8], gamma: float) -> NDArray[np.uint8]:
    """Darken (``gamma`` above 1) or brighten frames."""
    levels = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return levels[frames]


@torch.no_grad()
def observe(tower: VisionTower, clips: Iterable[NDArray[np.uint8]]) -> dict[str, Observation]:
    """Run the tower in fp32, and record the ranges of the input of each projection and of queries, keys and values.

    Returns:
        Ranges by site: ``layers.{i}.attention``, ``.query``, ``.key``, ``.value``, ``.out``, ``.fc1``, ``.fc2``, and
        the first five with ``.message`` before them.
    """
    observed: dict[str, Observation] = {}

    def note(site: str, tensor: Tensor) -> None:
        x = tensor.reshape(-1, tensor.shape[-1])
        found = Observation(x.amin(0).numpy(), x.amax(0).numpy())
        # In place: small arrays kept for every clip would fragment the heap, at the cost of a gigabyte a clip.
        observed.setdefault(site, found).include(found)

    def note_input(site: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: note(site, inputs[0])

    def note_output(site: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, __, output: note(site, output)

    with ExitStack() as stack:
        for site, reader in _readers(tower):
            stack.callback(reader.register_forward_pre_hook(note_input(site)).remove)
        for site, attention in _attentions(tower):
            for part, projection in zip(
                ("query", "key", "value"), (attention.q_proj, attention.k_proj, attention.v_proj), strict=True
            ):
                stack.callback(projection.register_forward_hook(note_output(f"{site}.{part}")).remove)
        for clip in clips:
            tower(torch.from_numpy(np.ascontiguousarray(clip))[None])
    return observed


def _attentions(tower: VisionTower) -> Iterator[tuple[str, Attention]]:
    """Yield every attention whose projections are quantised, by site."""
    for index, module in enumerate(tower.layers):
        layer, site = cast("VisionLayer", module), f"layers.{index}"
        yield site, layer.self_attn
        if isinstance(layer.message, Message):
            yield f"{site}.message", layer.message.message_attn


def _readers(tower: VisionTower) -> Iterator[tuple[str, nn.Module]]:
    """Yield the projections whose inputs are quantised, by site.

    Of projections that share an input the key projection stands for all, since its input includes the message tokens.
    """
    for index, module in enumerate(tower.layers):
        layer, site = cast("VisionLayer", module), f"layers.{index}"
        yield f"{site}.fc1", layer.mlp.fc1
        yield f"{site}.fc2", layer.mlp.fc2
    for site, attention in _attentions(tower):
        yield f"{site}.attention", attention.k_proj
        yield f"{site}.out", attention.out_proj
