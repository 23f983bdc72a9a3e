"""Claim of a run on its folder of results, so that each video gets one row however many runs are started.

A file names the run. Its driver rewrites the file as a sign of life, and its workers read it before they write rows:
whoever lost the folder, by a pause or a cut network, writes nothing more.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xclip_runtime.errors import BulkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.integrations.ray_cluster.store import ResultStore

CLAIM = "_run.json"
_BEAT_S = 15.0
_STALE_S = 120.0
# A worker of a run that lost the folder may have looked just before that, and be writing.
_LAST_WRITES_S = 5.0


@contextmanager
def claimed(store: ResultStore) -> Iterator[str]:
    """Hold the folder while the block runs; yield the run's identifier.

    Raises:
        BulkError: Another run holds it, and gave a sign of life in the last two minutes.
    """
    run = uuid4().hex
    content = json.dumps({"run": run, "process": os.getpid(), "host": socket.gethostname()}).encode()
    _take(store, content)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(store, run, content, ended), daemon=True)
    beating.start()
    try:
        yield run
    finally:
        ended.set()
        beating.join()
        with suppress(Exception):  # Do not hide the error of the run; a claim that is left expires.
            check(store, run)
            store.remove(CLAIM)


def check(store: ResultStore, run: str) -> None:
    """Raise a BulkError unless the run holds the folder."""
    holder = _holder(store)
    if not holder:
        message = f"{store.url} does not hold the claim of this run: give a folder that all machines share, and keep it"
        raise BulkError(message)
    if holder.get("run") != run:
        message = f"{store.url} was taken over by {_named(holder)}, as this run gave no sign of life: wait for that run"
        raise BulkError(message)


def _take(store: ResultStore, content: bytes) -> None:
    if store.create(CLAIM, content):
        return
    holder = _holder(store)
    try:
        age = store.age(CLAIM)
    except FileNotFoundError:  # Its run has ended in between.
        age = _STALE_S
    except NotImplementedError:
        age = 0.0
    if age >= _STALE_S:
        store.remove(CLAIM)
        if store.create(CLAIM, content):
            time.sleep(_LAST_WRITES_S)
            return
        holder, age = _holder(store), 0.0
    message = (
        f"{store.url} is being written by {_named(holder)}, which gave a sign of life {max(age, 0):.0f} s ago: wait for"
        f" it; if it was killed, start again {_STALE_S:.0f} s after that or remove {CLAIM}"
    )
    raise BulkError(message)


def _beat(store: ResultStore, run: str, content: bytes, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        try:
            check(store, run)
            store.put(CLAIM, content)
        except BulkError:
            return
        except Exception:  # noqa: BLE001, S112 - the store may be away for a while; every one raises its own classes
            continue


def _holder(store: ResultStore) -> dict[str, Any]:
    try:
        holder: dict[str, Any] = json.loads(store.get(CLAIM))
    except FileNotFoundError:
        return {}
    except ValueError:  # It is being created.
        return {"run": "unknown"}
    return holder


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder['process']} on {holder['host']}" if "process" in holder else "another run"
