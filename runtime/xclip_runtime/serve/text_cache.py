"""Labels and texts of requests: within limits, and encoded once."""

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

TEXTS_KEPT = 10_000
"""Texts whose embeddings are kept, so that editing a label costs one text and not all of them."""


class LabelEmbeds(NamedTuple):
    """Labels and what they are scored with."""

    names: tuple[str, ...]
    embeds: NDArray[np.float32]
    """float32 (N, D)."""


class Words:
    """What a model scores videos with. To be used from any thread.

    Args:
        model: Whose tokenizer and text graph encode.
        limits: How many words, and how long.
    """

    def __init__(self, model: XClip, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self.own = LabelEmbeds(model.bundle.labels.names, model.bundle.text_embeds)
        """The labels that the bundle was exported with."""
        self._own_rows = dict(reversed(list(zip(*self.own, strict=True))))
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, texts: Sequence[str]) -> None:
        """Refuse what is over the limits.

        Raises:
            LabelsError: There are too many, one is empty, or one is too long.
        """
        if len(texts) > self._limits.labels:
            message = f"{len(texts)} labels are too many: this server takes {self._limits.labels}"
            raise LabelsError(message)
        if any(not text.strip() for text in texts):
            message = "a label is empty: remove or name it"
            raise LabelsError(message)
        longest = max(map(len, texts), default=0)
        if longest > self._limits.text_length:
            message = f"a label has {longest} characters, this server takes {self._limits.text_length}: shorten it"
            raise LabelsError(message)

    def encode(self, names: Sequence[str], texts: Sequence[str]) -> LabelEmbeds:
        """Embeddings of labels and texts, in this order.

        Args:
            names: Those of the bundle keep its embeddings, others are encoded as they are.
            texts: Always encoded as they are.

        Raises:
            LabelsError: One has more tokens than the model reads.
            MissingExtraError: The extra [text] is not installed.
            BundleError: The bundle has no text tower.
        """
        foreign = [name for name in names if name not in self._own_rows]
        rows = self._rows([*foreign, *texts])
        embeds = [self._own_rows[name] if name in self._own_rows else rows[name] for name in names]
        return LabelEmbeds((*names, *texts), np.stack([*embeds, *(rows[text] for text in texts)]))

    def _rows(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            if new:
                self._kept.update(zip(new, self._model.text_embeds(new), strict=True))
            rows = {text: self._kept[text] for text in texts}
            for text in rows:
                self._kept.move_to_end(text)
            while len(self._kept) > TEXTS_KEPT:
                self._kept.popitem(last=False)
            return rows
