"""Parquet files of a bulk run: one per group of videos, written atomically.

The name of a shard is derived from its videos, so a group that runs again after its worker died replaces its own file.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclip_runtime.errors import BulkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Readers of Parquet datasets ignore names that begin with an underscore or a dot.
SETTINGS = "_settings.json"
_UNFINISHED = "_unfinished-"

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
    """Folder of shards, local or an fsspec address."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self.url = url

    def begin(self, settings: Mapping[str, Any], *, retry_failed: bool = False) -> set[str]:
        """Create the folder, or check that it belongs to a run with the same settings; return the videos with a row.

        To retry those that could not be read, remove their rows.
        """
        self._fs.makedirs(self._root, exist_ok=True)
        path = f"{self._root}/{SETTINGS}"
        shards = self._list()
        if not self._fs.exists(path):
            if shards:
                message = f"{self.url} contains Parquet files but no {SETTINGS}: choose another folder"
                raise BulkError(message)
            self._fs.pipe_file(path, json.dumps(settings, indent=2).encode())
            return set()
        written = json.loads(self._fs.cat_file(path))
        others = [name for name in settings if written.get(name) != settings[name]]
        if others:
            message = f"{self.url} belongs to a run with other settings ({', '.join(others)}): choose another folder"
            raise BulkError(message)
        if retry_failed:
            for shard in shards:
                self._drop_failed(shard)
        found: set[str] = set()
        for shard in self._list():
            with self._fs.open(shard, "rb") as file:
                found.update(pq.read_table(file, columns=["video"]).column("video").to_pylist())
        return found

    def write(self, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one shard."""
        names = "\n".join(row["video"] for row in rows)
        name = f"part-{hashlib.sha256(names.encode()).hexdigest()[:20]}.parquet"
        self._put(f"{self._root}/{name}", pa.Table.from_pylist(list(rows), schema=schema))

    def _list(self) -> list[str]:
        return list(self._fs.glob(f"{self._root}/part-*.parquet"))

    def _put(self, shard: str, table: pa.Table) -> None:
        unfinished = f"{self._root}/{_UNFINISHED}{uuid4().hex}"
        with self._fs.open(unfinished, "wb") as file:
            pq.write_table(table, file)
        self._fs.mv(unfinished, shard)

    def _drop_failed(self, shard: str) -> None:
        with self._fs.open(shard, "rb") as file:
            table = pq.read_table(file)
        read = table.filter(pc.is_null(table["error_type"]))
        if len(read) == 0:
            self._fs.rm_file(shard)
        elif len(read) < len(table):
            # The name can stay, as no group will consist of the same videos again.
            self._put(shard, read)
