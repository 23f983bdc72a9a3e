"""How many threads decode."""

from __future__ import annotations

import pytest

from xclip_runtime.video import threads


@pytest.mark.parametrize(
    ("cpus", "codec", "expected"),
    [
        pytest.param(1, "h264", 1, id="one CPU gains nothing from two"),
        pytest.param(2, "h264", 3, id="one more where a thread waits for another"),
        pytest.param(2, "mpeg4", 2, id="one a CPU where changing threads costs more"),
        pytest.param(2, None, 2, id="one a CPU while the codec is not known"),
        pytest.param(128, "hevc", 16, id="never more than sixteen pictures at once"),
    ],
)
def test_threads_follow_the_cpus_and_the_codec(monkeypatch, cpus, codec, expected):
    monkeypatch.setattr(threads, "available_cpus", lambda: cpus)

    assert threads.decoding_threads(codec) == expected
