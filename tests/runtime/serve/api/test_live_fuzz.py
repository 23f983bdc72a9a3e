"""Messages of a camera's client, in any order: bounded work, bounded memory, and an end when it leaves."""

from __future__ import annotations

import asyncio
import json
import struct
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import WebSocketDisconnect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xclip_runtime.errors import FramesError, XClipError
from xclip_runtime.serve.api.live import MAX_TIME, Connection
from xclip_runtime.serve.api.schemas import MAX_OVERLAP, LiveOptions
from xclip_runtime.serve.text_cache import LabelEmbeds
from xclip_runtime.streaming.windows import StreamWindow
from xclip_runtime.video import FrameTransform

NUM_FRAMES, SIZE = 8, 16
MOST_BYTES = 16 << 20

times = st.floats() | st.floats(0, MAX_TIME) | st.floats(0, 5) | st.sampled_from([1e300, 1e16, MAX_TIME, 1e-300, -1.0])
frames = st.builds(
    lambda seconds, image: struct.pack("<d", seconds) + image, times, st.sampled_from([b"image"] * 9 + [b"x"])
)
garbage = (
    st.binary(max_size=40) | st.text(max_size=40) | st.sampled_from(['{"labels": ["a cat"]}', "{}", "[]", '{"x": NaN}'])
)
messages = st.lists(st.one_of(frames, frames, frames, garbage), max_size=40)
numbers = st.floats() | st.floats(0, 60) | st.sampled_from([1e-12, 1e300, 0.1, 0.01, 60, 0])


class Client:
    """A WebSocket whose client sends the messages, takes what it is sent, and leaves."""

    def __init__(self, sent):
        self.sent, self.received = list(sent), []

    async def receive(self):
        # Long enough for most frames to be cut into windows.
        await asyncio.sleep(0.001)
        if not self.sent:
            return {"type": "websocket.disconnect", "code": 1000}
        message = self.sent.pop(0)
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send_json(self, document):
        self.received.append(json.loads(json.dumps(document)))


class SmallModel:
    """Cuts real windows; counts them, and classifies nothing."""

    def __init__(self):
        self.windows_of_a_frame = [0]

    def windows(self, window, hop, *, reuse, **options):
        cutter = StreamWindow(window, hop, num_frames=NUM_FRAMES, transform=FrameTransform("videox", SIZE), **options)
        push = cutter.push

        def counted(frame, t):
            found = push(frame, t)
            self.windows_of_a_frame.append(len(found))
            return found

        return SimpleNamespace(push=counted)


def server_of(model):
    async def image(encoded, name):
        if encoded != b"image":
            raise FramesError(name)
        return np.zeros((20, 30, 3), np.uint8)

    async def labels(names, texts):
        return LabelEmbeds(("a cat",), np.zeros((1, 4), np.float32))

    async def never(*_):
        await asyncio.Event().wait()

    engine = SimpleNamespace(pool=SimpleNamespace(image=image), live_frames=asyncio.Semaphore(1))
    windows = asyncio.Semaphore(1)
    return engine, SimpleNamespace(model=model, labels=labels, encode_frames=never, live_windows=windows)


def serve(sent, **options):
    """Serve a client until it leaves or is refused; return the model and why it ended."""
    model, client = SmallModel(), Client(sent)

    async def run():
        connection = Connection(*server_of(model), client, LiveOptions(**options))
        with pytest.raises((WebSocketDisconnect, XClipError, ValidationError)) as ended:
            await asyncio.wait_for(connection.run(), 60)
        return ended.value

    tracemalloc.start()
    try:
        ended = asyncio.run(run())
        return model, ended, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


fuzz = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@fuzz
@given(sent=messages)
def test_any_messages_end_with_the_client_or_with_a_reason(sent):
    model, ended, peak = serve(sent)

    assert max(model.windows_of_a_frame) <= MAX_OVERLAP + 1
    assert peak < MOST_BYTES
    assert isinstance(ended, WebSocketDisconnect) or str(ended)


@fuzz
@given(sent=st.lists(frames, max_size=30), window=numbers, hop=numbers, smooth=numbers)
def test_any_windows_are_refused_or_cut_within_bounds(sent, window, hop, smooth):
    try:
        model, _, peak = serve(sent, window=window, hop=hop, smooth=smooth)
    except (ValidationError, FramesError):
        return
    assert max(model.windows_of_a_frame) <= MAX_OVERLAP + 1
    assert peak < MOST_BYTES


@fuzz
@given(
    times=st.lists(st.floats(0, MAX_TIME) | st.floats(0, 20), max_size=60),
    window=st.floats(0.1, 60),
    overlap=st.floats(0.01, NUM_FRAMES),
)
def test_the_windows_of_any_allowed_times_are_few(times, window, overlap):
    """A gap of time is skipped, whatever its length."""
    cutter = StreamWindow(window, window / overlap, num_frames=NUM_FRAMES, transform=FrameTransform("videox", SIZE))
    frame = np.zeros((20, 30, 3), np.uint8)

    assert all(len(cutter.push(frame, t)) <= MAX_OVERLAP + 1 for t in times)
    assert len(cutter.flush()) <= MAX_OVERLAP + 1


@pytest.mark.parametrize("first", [1e300, -1e300, 1e11, -1.0, float("inf"), float("nan")])
def test_a_time_that_no_clock_shows_is_refused(first):
    _, ended, _ = serve([struct.pack("<d", 0.0) + b"image", struct.pack("<d", first) + b"image"])

    assert isinstance(ended, FramesError)
    assert "seconds from 0 to 1e+10" in str(ended)
