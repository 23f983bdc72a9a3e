"""Memory limits are those of the machine and of its container."""

from __future__ import annotations

import pytest

from xclip_runtime.util import memory


@pytest.mark.parametrize(
    ("name", "content", "limit"),
    [
        ("memory.max", "max", None),
        ("memory.max", "2147483648", 2**31),
        ("memory/memory.limit_in_bytes", "9223372036854771712", None),
        ("memory/memory.limit_in_bytes", "1073741824", 2**30),
    ],
)
def test_a_containers_memory_limit_is_read(tmp_path, name, content, limit):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)

    assert memory.memory_limit(tmp_path) == limit


def test_new_processes_may_take_what_is_left_but_no_more_than_the_limit(monkeypatch):
    left = memory.available_memory()

    assert 0 < left <= memory.memory_mb() * 1e6 + 1e6

    monkeypatch.setattr(memory, "memory_limit", lambda: 1000)
    assert memory.available_memory() == 1000
