"""Folders of results: held by one run, refused where rows would be lost, and swept."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest

from helpers.servers import finished
from xclip_runtime.errors import BulkError

pytest.importorskip("ray", reason="Ray is large, and not in the extra [dev]: pip install 'xclip-onnx[ray]'")

from xclip_runtime.integrations.ray_cluster import claim, worker
from xclip_runtime.integrations.ray_cluster.claim import CLAIM, check, claimed
from xclip_runtime.integrations.ray_cluster.shards import EMBEDDINGS, Shards
from xclip_runtime.integrations.ray_cluster.store import ResultStore

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path):
    return ResultStore(str(tmp_path / "out"))


@pytest.mark.parametrize("url", ["memory://out", "dir::memory://out"])
def test_memory_is_refused_as_rows_would_be_lost(url):
    with pytest.raises(BulkError, match="memory of one process"):
        ResultStore(url)


def test_a_folder_is_held_by_one_run_and_free_after_it(store):
    held = rf"process {os.getpid()} on .* sign of life 0 s ago"
    with claimed(store), pytest.raises(BulkError, match=held) as refused, claimed(store):
        pass
    with claimed(store):
        pass

    assert "\n" not in str(refused.value)
    assert store.names("*") == []


def test_a_claim_without_signs_of_life_is_taken_over_and_its_run_writes_no_more(store, monkeypatch, tmp_path):
    monkeypatch.setattr(claim, "_LAST_WRITES_S", 0.0)
    with claimed(store) as first:
        hours_ago = time.time() - 7200
        os.utime(tmp_path / "out" / CLAIM, (hours_ago, hours_ago))
        with claimed(store) as second:
            check(store, second)
            with pytest.raises(BulkError, match="taken over"):
                Shards(store, first).write(EMBEDDINGS, ["a.mp4"], [{"video": "a.mp4"}])

    assert store.names("part-*") == []


def test_a_run_gives_signs_of_life(store, monkeypatch):
    monkeypatch.setattr(claim, "_BEAT_S", 0.05)
    with claimed(store):
        written = store.get(CLAIM)
        time.sleep(0.5)

        assert store.age(CLAIM) < 0.4
        assert store.get(CLAIM) == written


def test_two_that_create_a_file_at_once_do_not_both_succeed(store):
    assert [store.create("name", b"1"), store.create("name", b"2")] == [True, False]
    assert store.get("name") == b"1"


def test_what_killed_runs_left_is_swept(store, tmp_path):
    (tmp_path / "out" / "_unfinished-1").write_bytes(b"half a shard")
    with claimed(store) as run:
        Shards(store, run).begin({"task": "embed"})
        Shards(store, run).begin({"task": "embed"})

    assert store.names("_unfinished-*") == []


def test_temporary_folders_of_killed_workers_are_swept_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(worker, "_UNLOCKED_S", -1.0)
    left = tmp_path / "xclip-onnx-bulk-left"
    left.mkdir()
    (left / "0.mp4").touch()

    with worker._temporary_folder() as first, worker._temporary_folder() as second:
        there = set(tmp_path.iterdir())

    assert there == {first, second}
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr(store._fs, "mv", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match=re.escape("No space left")):
        store.put("part-1.parquet", b"rows")
    assert store.names("*") == []


def test_a_machine_without_memory_is_told_from_a_video_that_asks_for_much():
    code = (
        "import resource\n"
        "from xclip_runtime.integrations.ray_cluster.worker import _check_room\n"
        "_check_room()\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (20 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "try: _check_room()\n"
        "except MemoryError: print('short')"
    )

    assert finished([sys.executable, "-c", code]).stdout == "short\n"
