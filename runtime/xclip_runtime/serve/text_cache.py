"""Label sets of requests, encoded once and within limits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xclip_runtime.errors import LabelsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.model import XClip
    from xclip_runtime.serve.settings import Limits

MAX_CACHED_TEXTS = 10_000
"""Capacity of the cache. Texts are cached one by one, so that editing a label set encodes the changed text alone."""


TEXTS_AT_ONCE = 32
"""Texts that are encoded before other requests have their turn."""


class LabelEmbeds(NamedTuple):
    """A label set with its text embeddings."""

    names: tuple[str, ...]
    embeds: NDArray[np.float32]
    """float32 (N, D), not normalised."""


class TextCache:
    """Thread-safe LRU cache of text embeddings.

    Args:
        model: The model that encodes texts.
        limits: Number and length of the texts of a request.
    """

    def __init__(self, model: XClip, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self.bundle_labels = LabelEmbeds(model.bundle.labels.names, model.bundle.text_embeds)
        """The label set of the bundle."""
        # Of labels with the same name the first counts.
        self._bundle_rows = dict(reversed(list(zip(*self.bundle_labels, strict=True))))
        self._cached: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, texts: Sequence[str]) -> None:
        """Check texts against the limits.

        Raises:
            LabelsError: There are too many, or one is empty or too long.
        """
        if len(texts) > self._limits.labels:
            message = f"{len(texts)} labels exceed the limit of {self._limits.labels}: send fewer"
            raise LabelsError(message)
        if any(not text.strip() for text in texts):
            message = "a label is empty: remove or name it"
            raise LabelsError(message)
        longest = max(map(len, texts), default=0)
        if longest > self._limits.text_length:
            message = f"a label has {longest} characters, the limit is {self._limits.text_length}: shorten it"
            raise LabelsError(message)

    def check_tokens(self, names: Sequence[str], texts: Sequence[str]) -> None:
        """Check that `encode` takes texts, without encoding them.

        Raises:
            LabelsError: A text is longer than the model's context.
            MissingExtraError: The extra [text] is not installed.
            BundleError: The bundle has no text tower.
        """
        if new := self._new(names, texts):
            self._model.check_texts(new)

    def parts(self, names: Sequence[str], texts: Sequence[str]) -> list[list[str]]:
        """Return the texts that are not encoded yet, `TEXTS_AT_ONCE` each."""
        new = self._new(names, texts)
        return [new[start : start + TEXTS_AT_ONCE] for start in range(0, len(new), TEXTS_AT_ONCE)]

    def encode(self, names: Sequence[str], texts: Sequence[str]) -> LabelEmbeds:
        """Return the label set of `names` followed by `texts`.

        Args:
            names: Labels; those of the bundle keep its embeddings, others are encoded.
            texts: Always encoded.

        Raises:
            LabelsError: A text is longer than the model's context.
            MissingExtraError: The extra [text] is not installed.
            BundleError: The bundle has no text tower.
        """
        rows = self._encode([*(name for name in names if name not in self._bundle_rows), *texts])
        embeds = [self._bundle_rows[name] if name in self._bundle_rows else rows[name] for name in names]
        return LabelEmbeds((*names, *texts), np.stack([*embeds, *(rows[text] for text in texts)]))

    def _new(self, names: Sequence[str], texts: Sequence[str]) -> list[str]:
        wanted = [*(name for name in names if name not in self._bundle_rows), *texts]
        with self._lock:
            return [text for text in dict.fromkeys(wanted) if text not in self._cached]

    def _encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._cached]
            if new:
                self._cached.update(zip(new, self._model.text_embeds(new), strict=True))
            rows = {text: self._cached[text] for text in texts}
            for text in rows:
                self._cached.move_to_end(text)
            while len(self._cached) > MAX_CACHED_TEXTS:
                self._cached.popitem(last=False)
            return rows
