"""Vision and prompt session bound to each other by I/O binding: tensors are allocated once and stay on the device.

Clips are copied into a buffer that is kept, the vision graph's outputs are the prompt graph's inputs in place, label
embeddings are bound once, and results are copies that no later call overwrites. On CUDA every batch size is captured as
a CUDA graph. The CPU runs the same code.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import threading
import time
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from xclip_runtime.inference import installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.inference.session import Session
    from xclip_runtime.results import VideoFeatures

    Floats = NDArray[np.float32]
    Clips = NDArray[np.uint8]

Result = TypeVar("Result")

LABELS_AT_ONCE = 1024
"""Labels per run of the prompt graph, so that its memory does not grow with the label set."""

KEPT_ON_CPU = 2
"""Batch sizes whose buffers are kept on the CPU, where batches are not padded."""

WARM_UP_RUNS = 2
"""Runs of each batch size: one compiles and allocates, one captures the CUDA graph."""


class Scores(NamedTuple):
    """Logits of a batch, float32 (B, N), and milliseconds of both graphs with the copies to and from the device."""

    logits: Floats
    vision_ms: float
    prompt_ms: float


@dataclass(frozen=True)
class _Bound:
    """A binding, its output tensor, and the number of its CUDA graph."""

    binding: Any
    output: Any
    graph_id: int


@dataclass
class Texts:
    """Label embeddings on the device."""

    embeds: Floats
    """float32 (N, D); on the CPU the tensors share its memory."""
    chunks: list[Any]
    """The same on the device, at most `LABELS_AT_ONCE` labels each."""
    bound: dict[int, list[_Bound]] = field(default_factory=dict)
    """The prompt graph's bindings to the tensors of a batch size, one per chunk, by that slot's number."""


@dataclass(frozen=True)
class _Slot:
    """Tensors of one batch size."""

    host: Clips
    pixels: Any
    features: dict[str, Any]
    binding: Any
    graph_id: int


class BoundModel:
    """A vision and a prompt session that share tensors. Safe to call from any thread; one call runs at a time.

    On a GPU more clips than ``max_batch`` are split; the CPU runs any number at once.
    """

    def __init__(self, vision: Session, prompt: Session, max_batch: int = 1) -> None:
        self._vision, self._prompt, self._max_batch = vision, prompt, max_batch
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._graph_ids = itertools.count(1)
        self._lock = threading.Lock()
        # A CUDA graph belongs to the thread that captured it.
        self._thread = ThreadPoolExecutor(1, "xclip-cuda") if vision.options.cuda_graph else None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes that batches are padded to on a GPU, smallest first: powers of two up to the largest batch."""
        powers = itertools.takewhile(lambda size: size < self._max_batch, (2**i for i in itertools.count()))
        return (*powers, self._max_batch)

    def bind_texts(self, embeds: Floats) -> Texts:
        """Copy label embeddings, float32 (N, D), to the device, once."""
        own = np.ascontiguousarray(embeds, np.float32)
        chunks = [own[start : start + LABELS_AT_ONCE] for start in range(0, len(own), LABELS_AT_ONCE)]
        return Texts(own, [self._prompt.tensor_of(chunk) for chunk in chunks])

    def features(self, clips: Clips) -> dict[str, Floats]:
        """Return copies of the vision graph's outputs for clips, uint8 RGB (B, T, size, size, 3), each (B, …)."""

        def encode(part: Clips) -> dict[str, Floats]:
            slot = self._encode(part)
            return {name: _own(value)[: len(part)] for name, value in slot.features.items()}

        parts = self._on_parts(clips, encode)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def scores(self, clips: Clips, texts: Texts) -> Scores:
        """Compute the logits of clips, uint8 RGB (B, T, size, size, 3); their features never leave the device."""

        def score(part: Clips) -> Scores:
            start = time.perf_counter()
            slot = self._encode(part)
            encoded = time.perf_counter()
            logits = np.concatenate([_own(bound.output) for bound in self._prompted(slot, texts)], axis=1)[: len(part)]
            return Scores(logits, 1000 * (encoded - start), 1000 * (time.perf_counter() - encoded))

        parts = self._on_parts(clips, score)
        logits = np.concatenate([part.logits for part in parts])
        return Scores(logits, sum(part.vision_ms for part in parts), sum(part.prompt_ms for part in parts))

    def prompt_logits(self, features: VideoFeatures, text_embeds: Floats) -> Floats:
        """Compute the logits, float32 (N,), of texts (N, D) for a clip's features that have left the device."""
        video = {
            "video_embeds": features.video_embeds[None].astype(np.float32, copy=False),
            "img_features": features.img_features[None].astype(np.float32, copy=False),
        }
        chunks = (text_embeds[i : i + LABELS_AT_ONCE] for i in range(0, len(text_embeds), LABELS_AT_ONCE))
        logits = [self._prompt.run({**video, "text_embeds": chunk})["logits_per_video"][0] for chunk in chunks]
        return np.concatenate(logits) if logits else np.empty(0, np.float32)

    def warm_up(self, texts: Texts) -> float:
        """Run every batch size until it is compiled and captured; return the elapsed milliseconds."""
        start = time.perf_counter()
        frame = [int(size) for size in self._vision.inputs[0].shape[1:]]
        for size in self.batch_sizes if self._padded else (1,):
            for _ in range(WARM_UP_RUNS):
                self.scores(np.zeros((size, *frame), np.uint8), texts)
        return 1000 * (time.perf_counter() - start)

    @property
    def _padded(self) -> bool:
        return self._vision.memory != "cpu"

    def _on_parts(self, clips: Clips, work: Callable[[Clips], Result]) -> list[Result]:
        """Run ``work`` on one batch after the other with exclusive use of the tensors, CUDA graphs in one thread."""
        size = self._max_batch
        parts = [clips[start : start + size] for start in range(0, len(clips), size)] if self._padded else [clips]
        if self._thread is not None:
            return [self._thread.submit(work, part).result() for part in parts]
        results = []
        for part in parts:
            with self._lock:
                results.append(work(part))
        return results

    def _encode(self, clips: Clips) -> _Slot:
        """Run the vision graph on at most ``max_batch`` clips; the rows after them are undefined."""
        size = next(size for size in self.batch_sizes if size >= len(clips)) if self._padded else len(clips)
        slot = self._slot(size)
        slot.host[: len(clips)] = clips
        if self._padded:
            slot.pixels.update_inplace(slot.host)
        self._vision.run_bound(slot.binding, slot.graph_id)
        return slot

    def _prompted(self, slot: _Slot, texts: Texts) -> list[_Bound]:
        if slot.graph_id not in texts.bound:
            alive = {kept.graph_id for kept in self._slots.values()}
            texts.bound = {number: bound for number, bound in texts.bound.items() if number in alive}
            texts.bound[slot.graph_id] = [self._bind_prompt(slot, chunk) for chunk in texts.chunks]
        for bound in texts.bound[slot.graph_id]:
            self._prompt.run_bound(bound.binding, bound.graph_id)
        return texts.bound[slot.graph_id]

    def _bind_prompt(self, slot: _Slot, chunk: Any) -> _Bound:
        output = self._prompt.tensor((len(slot.host), chunk.shape()[0]), np.float32)
        inputs = {**slot.features, "text_embeds": chunk}
        binding = self._prompt.bind(inputs, {self._prompt.outputs[0].name: output})
        return _Bound(binding, output, next(self._graph_ids))

    def _slot(self, size: int) -> _Slot:
        slot = self._slots.get(size)
        if slot is None:
            slot = self._slots[size] = self._new_slot(size)
        self._slots.move_to_end(size)
        if not self._padded and len(self._slots) > KEPT_ON_CPU:
            self._slots.popitem(last=False)
        return slot

    def _new_slot(self, size: int) -> _Slot:
        frames, *_ = self._vision.inputs
        host = host_array((size, *(int(axis) for axis in frames.shape[1:])), pinned=self._padded)
        pixels = self._vision.tensor(host.shape, np.uint8) if self._padded else self._vision.tensor_of(host)
        features = {
            output.name: self._vision.tensor((size, *(int(axis) for axis in output.shape[1:])), np.float32)
            for output in self._vision.outputs
        }
        binding = self._vision.bind({frames.name: pixels}, features)
        return _Slot(host, pixels, features, binding, next(self._graph_ids))


def host_array(shape: tuple[int, ...], *, pinned: bool) -> NDArray[np.uint8]:
    """Allocate a uint8 array for copies to the device; page-locked memory (``pinned``) spares a staging copy."""
    if not pinned:
        return np.zeros(shape, np.uint8)
    # Own pages: CUDA refuses copies from a range that other arrays have locked in part.
    pages = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8)
    _lock(pages)
    return pages.reshape(shape)


def _lock(pages: NDArray[np.uint8]) -> None:
    """Page-lock the memory of an array for as long as the array lives; it stays pageable where that fails."""
    version = installation.cuda_version()
    if version is None:
        return
    try:
        runtime = ctypes.CDLL(f"libcudart.so.{version.partition('.')[0]}")
        address = ctypes.c_void_p(pages.ctypes.data)
        status: int = runtime.cudaHostRegister(address, ctypes.c_size_t(pages.nbytes), 0)
    except (OSError, AttributeError):
        return
    if status == 0:
        # Addresses that stay locked after their memory is freed corrupt copies from what is allocated there next.
        unlock = weakref.finalize(pages, runtime.cudaHostUnregister, address)
        unlock.atexit = False


def _own(value: Any) -> Floats:
    """Copy the content of a tensor."""
    return np.array(value.numpy(), np.float32, copy=True)
