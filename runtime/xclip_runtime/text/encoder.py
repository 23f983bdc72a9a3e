"""Text encoder: the bundle's tokenizer and text graph, without transformers (extra [text])."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.bundle import TOKENIZER
from xclip_runtime.bundle.manifest import damaged, read_json
from xclip_runtime.errors import LabelsError, MissingExtraError
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session
from xclip_runtime.text.labels import SHOWN, as_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from xclip_runtime.bundle import Bundle

DEFAULT_CONTEXT_LENGTH = 77
"""Context length of CLIP, which transformers takes where config.json has none."""

TOKENS_AT_ONCE = 4096
"""Tokens per run of the text graph, so that its memory does not grow with the number of texts."""


class TextEncoder:
    """The text tower of a bundle, loaded on first use, with threads and goal of the vision session's options.

    It always runs on the CPU: texts are encoded once, not for every video.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions | None = None) -> None:
        options = options or SessionOptions()
        self._bundle = bundle
        self._options = SessionOptions("cpu", options.threads, options.optimize_for)

    @property
    def sha256(self) -> str:
        """Digest of the text tower, see `xclip_runtime.bundle.Bundle.text_tower_sha256`."""
        return self._bundle.text_tower_sha256

    @cached_property
    def context_length(self) -> int:
        """Largest number of tokens of a text, with start and end of text."""
        path = self._bundle.checked("config.json")
        config = read_json(path)
        try:
            text = {**(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
            return int(text.get("max_position_embeddings", DEFAULT_CONTEXT_LENGTH))
        except (TypeError, ValueError) as error:
            raise damaged(path, "its text_config is not one of X-CLIP") from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        _ = self._bundle.text_graph  # without one, no extra would help
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - optional
        except ImportError as error:
            feature = "encoding text"
            raise MissingExtraError(feature, "text") from error
        path = self._bundle.checked(TOKENIZER)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare exceptions
            raise damaged(path, "not a tokenizer") from error
        # Length settings in tokenizer.json depend on the tool that saved it; the context length decides.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _session(self) -> Session:
        return Session(self._bundle.checked_graph(self._bundle.text_graph), self._options)

    def check_files(self) -> None:
        """Check the files of the text tower, which downloads them if the bundle is on a model hub.

        Raises:
            BundleError: The bundle has no text tower, or a file is missing or changed.
            HubError: A file cannot be downloaded.
        """
        for name in ("config.json", TOKENIZER):
            self._bundle.checked(name)
        self._bundle.checked_graph(self._bundle.text_graph)

    def token_ids(self, texts: Iterable[str], *, truncate: bool = False) -> list[list[int]]:
        """Tokenize texts, with start and end of text, as transformers' CLIPTokenizerFast does.

        ``truncate`` cuts texts that are longer than the context but keeps the end of text, as CLIP does on request.

        Raises:
            LabelsError: ``texts`` is a string, or a text is longer than the context and ``truncate`` is off, or is not
                valid Unicode.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        texts = as_texts(texts, "texts")
        for text in texts:
            _check_unicode(text)
        limit = self.context_length
        rows = [list(row.ids) for row in self._tokenizer.encode_batch(texts)]
        long = [i for i, row in enumerate(rows) if len(row) > limit]
        if long and not truncate:
            message = (
                f"the text {_quote(texts[long[0]])} has {len(rows[long[0]])} tokens, the model reads at most {limit}: "
                "shorten it, or ask for it to be cut (truncate, --truncate)"
            )
            raise LabelsError(message)
        for i in long:
            rows[i] = [*rows[i][: limit - 1], rows[i][-1]]
        return rows

    def encode(self, texts: Iterable[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """Encode texts to float32 (N, D), not normalised; ``truncate`` and errors are those of `token_ids`.

        Raises:
            BundleError: The bundle's tokenizer or text graph is missing or changed.
        """
        rows = self.token_ids(texts, truncate=truncate)
        embeds = np.empty((len(rows), self._bundle.projection_dim), np.float32)
        for chosen in _batches([len(row) for row in rows]):
            ids = np.array([rows[i] for i in chosen], np.int64)
            embeds[chosen] = self._session.run({"input_ids": ids})["text_embeds"]
        return embeds


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group the indices of texts of equal length, so that none is padded."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    for length, indices in by_length.items():
        size = max(1, TOKENS_AT_ONCE // length)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"the text {text[:SHOWN]!a} is not valid Unicode: save it as UTF-8"
        raise LabelsError(message) from error


def _quote(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
