"""Parquet files of a bulk run: one per group of videos.

The name of a shard is derived from its group, so a group that runs again after its worker died replaces its own file.
"""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclip_runtime.errors import BulkError
from xclip_runtime.integrations.ray_cluster.claim import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xclip_runtime.integrations.ray_cluster.store import ResultStore

SETTINGS = "_settings.json"
_PARTS = "part-*.parquet"
_READERS = 16

_COMMON = (
    pa.field("video", pa.string(), nullable=False),
    pa.field("error_type", pa.string()),
    pa.field("error", pa.string()),
    pa.field("provider", pa.string()),
    pa.field("precision", pa.string()),
)
CLASSIFICATIONS = pa.schema(
    [
        *_COMMON,
        pa.field("labels", pa.list_(pa.string())),
        pa.field("probs", pa.list_(pa.float32())),
        pa.field("logits", pa.list_(pa.float32())),
        pa.field("frames_total", pa.int64()),
        *(pa.field(f"{stage}_ms", pa.float32()) for stage in ("decode", "prepare", "vision", "prompt", "total")),
    ]
)
EMBEDDINGS = pa.schema([*_COMMON, pa.field("embedding", pa.list_(pa.float32()))])


class Shards:
    """Shards in a folder, written by the run that holds its claim."""

    def __init__(self, store: ResultStore, run: str) -> None:
        self._store, self._run = store, run

    def begin(self, settings: Mapping[str, Any], *, retry_failed: bool = False) -> set[str]:
        """Check that the folder is new or belongs to runs with the same settings; return the videos with a row.

        Remove what killed processes left and, to retry them, the rows of videos that could not be read.
        """
        shards = self._store.names(_PARTS)
        if not self._store.names(SETTINGS):
            if shards:
                message = f"{self._store.url} contains Parquet files but no {SETTINGS}: choose another folder"
                raise BulkError(message)
            self._store.put(SETTINGS, json.dumps(settings, indent=2).encode())
            return set()
        written = json.loads(self._store.get(SETTINGS))
        others = [name for name in settings if written.get(name) != settings[name]]
        if others:
            which = ", ".join(others)
            message = f"{self._store.url} belongs to a run with other settings ({which}): choose another folder"
            raise BulkError(message)
        self._store.sweep()
        with ThreadPoolExecutor(_READERS) as readers:
            if retry_failed:
                list(readers.map(self._drop_failed, shards))
                shards = self._store.names(_PARTS)
            return set().union(*readers.map(self._videos, shards))

    def write(self, schema: pa.Schema, group: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of a group of videos, some of which may have none."""
        name = f"part-{hashlib.sha256(chr(10).join(group).encode()).hexdigest()[:20]}.parquet"
        content = _parquet(pa.Table.from_pylist(list(rows), schema=schema))
        check(self._store, self._run)
        self._store.put(name, content)

    def _table(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(io.BytesIO(self._store.get(shard)), columns=columns)

    def _videos(self, shard: str) -> list[str]:
        videos: list[str] = self._table(shard, ["video"]).column("video").to_pylist()
        return videos

    def _drop_failed(self, shard: str) -> None:
        table = self._table(shard)
        read = table.filter(pc.is_null(table["error_type"]))
        if len(read) == 0:
            self._store.remove(shard)
        elif len(read) < len(table):
            # The name can stay, as no group will consist of the same videos again.
            self._store.put(shard, _parquet(read))


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()
