"""Save graphs, whose equal weights they share."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Weights of larger graphs go into a file of their own, which ONNX Runtime maps into memory: half the load time and a
# third less memory than protobuf (measured on ViT-B/16), and protobuf itself ends at 2 GiB.
EXTERNAL_DATA_THRESHOLD = 100_000_000
ALIGNMENT = 64
"""Multiple in bytes at which a weight begins: a line of the cache."""
_SMALLEST_SHARED = 1024


class _Place(NamedTuple):
    """Place of a tensor's bytes."""

    file: Path
    offset: int
    length: int


class WrittenWeights:
    """Index of the weights that a saved graph holds, by content, for a graph in the same folder that shares them.

    A place is a stretch of a weight file, or of an .onnx file that holds its own weights.
    """

    def __init__(self, path: Path) -> None:
        self._places: dict[bytes, _Place] = {}
        content, at = path.read_bytes(), 0
        for weight in onnx.load(path, load_external_data=False).graph.initializer:
            if weight.external_data:
                place = _place_of(weight, path)
                self._places.setdefault(_digest_at(place), place)
            elif len(weight.raw_data) >= _SMALLEST_SHARED:
                at = content.index(weight.raw_data, at)
                place = _Place(path, at, len(weight.raw_data))
                self._places.setdefault(sha256(weight.raw_data).digest(), place)

    def share(self, model: onnx.ModelProto) -> tuple[Path, ...]:
        """Let a graph of this folder read weights from where they are; change ``model``, and return the files."""
        files: set[Path] = set()
        for weight in model.graph.initializer:
            place = self._places.get(sha256(weight.raw_data).digest())
            if place is None:
                continue
            _move(weight, place)
            files.add(place.file)
        return tuple(sorted(files))


def share_weights(graphs: Sequence[Path], shared: Path) -> tuple[Path, ...]:
    """Move the weights that several graphs have in files beside them, and have in common, to one file.

    What is not in common stays in a file of each graph, so that one graph can be copied without the others' weights.

    Returns:
        The file, or nothing if there is nothing in common.
    """
    models = {path: onnx.load(path, load_external_data=False) for path in graphs}
    weights = {path: [w for w in model.graph.initializer if w.external_data] for path, model in models.items()}
    digests = {path: [_digest_at(_place_of(weight, path)) for weight in held] for path, held in weights.items()}
    common = set.intersection(*map(set, digests.values())) if len(graphs) > 1 else set()
    if not common:
        return ()
    moved: dict[bytes, _Place] = {}
    for path, held in weights.items():
        own = path.with_name(f"{path.name}_data")
        old = own.rename(own.with_suffix(".old"))
        with shared.open("ab") as together, own.open("wb") as alone:
            for weight, digest in zip(held, digests[path], strict=True):
                content = _read(_place_of(weight, path)._replace(file=old))
                if digest in common:
                    place = moved.get(digest) or _append(together, shared, content)
                    moved[digest] = place
                else:
                    place = _append(alone, own, content)
                _move(weight, place)
        old.unlink()
        path.write_bytes(models[path].SerializeToString())
    return (shared,)


def _append(file: BinaryIO, path: Path, content: bytes) -> _Place:
    file.write(bytes(-file.tell() % ALIGNMENT))
    place = _Place(path, file.tell(), len(content))
    file.write(content)
    return place


def _place_of(weight: onnx.TensorProto, graph: Path) -> _Place:
    facts = {entry.key: entry.value for entry in weight.external_data}
    return _Place(graph.with_name(facts["location"]), int(facts["offset"]), int(facts["length"]))


def _move(weight: onnx.TensorProto, place: _Place) -> None:
    facts = {"location": place.file.name, "offset": place.offset, "length": place.length}
    weight.ClearField("raw_data")
    weight.ClearField("external_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in facts.items())


def _read(place: _Place) -> bytes:
    with place.file.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.length)


def _digest_at(place: _Place) -> bytes:
    return sha256(_read(place)).digest()


def save_graph(
    model: onnx.ModelProto, path: Path, facts: Mapping[str, str], written: WrittenWeights | None = None
) -> tuple[Path, ...]:
    """Save a graph with key facts in its metadata_props, by which a single file can be identified.

    Args:
        model: The graph.
        path: The .onnx file to write.
        facts: Metadata, such as the source checkpoint and the precision.
        written: Weights that are written already, to be shared.

    Returns:
        Files beside it that hold its weights; empty for small graphs of their own.
    """
    onnx.helper.set_model_props(model, dict(facts))
    model.producer_name = "xclip-onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    shared = written.share(model) if written else ()
    external = sum(len(weight.raw_data) for weight in model.graph.initializer) > EXTERNAL_DATA_THRESHOLD
    data = path.with_name(f"{path.name}_data")
    if not external:
        path.write_bytes(model.SerializeToString())
        return shared
    onnx.save(model, path, save_as_external_data=True, location=data.name)
    # onnx makes it readable only for its owner, and a server often runs as another user.
    data.chmod(path.stat().st_mode)
    return (*shared, data)
