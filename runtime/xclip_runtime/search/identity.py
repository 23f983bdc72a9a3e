"""Identity of the model that an index was made with; features of one model mean nothing to another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xclip_runtime.errors import VideoIndexError, VideoIndexMismatchError

if TYPE_CHECKING:
    from xclip_runtime.bundle import Bundle, GraphEntry
    from xclip_runtime.model import XClip


@dataclass(frozen=True)
class ModelIdentity:
    """Graphs that computed the features of an index and that score texts against them."""

    checkpoint: str
    """Checkpoint of the bundle, for messages."""
    vision: str
    """SHA-256 of the vision graph with its weights."""
    prompt: str
    """SHA-256 of the prompt graph with its weights."""
    text: str
    """Digest of the text tower, see `xclip_runtime.bundle.Bundle.text_tower_sha256`."""
    precision: str
    """Precision of the vision graph."""
    profile: str
    """Preprocessing profile of the frames."""
    projection_dim: int
    """D, the length of an embedding."""

    @classmethod
    def of(cls, model: XClip) -> ModelIdentity:
        """Identify a loaded model, whose bundle needs a text tower."""
        bundle = model.bundle
        if not bundle.graphs_of("text"):
            message = f"{bundle.path} has no text tower; text search needs one: take a bundle with it, or export again"
            raise VideoIndexError(message)
        return cls(
            checkpoint=str(bundle.manifest["source"]["checkpoint"]),
            vision=graph_sha256(bundle, model.graph),
            prompt=graph_sha256(bundle, bundle.graph("prompt", "fp32")),
            text=bundle.text_tower_sha256,
            precision=model.precision,
            profile=model.transform.profile,
            projection_dim=bundle.projection_dim,
        )

    def check_search(self, model: XClip, place: str) -> None:
        """Refuse a model that cannot score texts against these features.

        The digest of the text tower is not enough, since several published checkpoints share it: the vision graph must
        be one of the bundle, whichever this machine loads.
        """
        own, bundle = ModelIdentity.of(model), model.bundle
        held = {graph_sha256(bundle, graph) for graph in bundle.graphs_of("vision")}
        if (own.text, own.prompt) != (self.text, self.prompt) or self.vision not in held:
            message = (
                f"{place} was made with another model ({self.checkpoint}, vision graph {self.vision[:12]}, text tower "
                f"{self.text[:12]}) than {bundle.path}: pass the bundle it was made with, or make a new index"
            )
            raise VideoIndexMismatchError(message)

    def check_add(self, model: XClip, place: str) -> None:
        """Refuse a model whose features cannot be compared with these: another one, precision or profile."""
        self.check_search(model, place)
        if (model.precision, model.transform.profile) != (self.precision, self.profile):
            message = (
                f"{place} holds features of precision {self.precision} and profile {self.profile}, not of "
                f"{model.precision} and {model.transform.profile}: pass --precision {self.precision} "
                f"--profile {self.profile}, or make a new index"
            )
            raise VideoIndexMismatchError(message)


def graph_sha256(bundle: Bundle, graph: GraphEntry) -> str:
    """Combine the SHA-256 of a graph's file and of its weight files, taken from the manifest."""
    digests = {entry.path: entry.sha256 for entry in bundle.files}
    own = digests[graph.file]
    if not graph.data_files:
        return own
    return hashlib.sha256("".join([own, *(digests[name] for name in graph.data_files)]).encode()).hexdigest()
