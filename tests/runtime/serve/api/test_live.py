"""/v1/live: a camera over a WebSocket."""

from __future__ import annotations

import copy
import gc
import json
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import av
import cv2
import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from helpers.servers import Gate, eventually, in_background, running
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.serve.settings import Limits
from xclip_runtime.serve.websocket import MAX_FRAMES
from xclip_runtime.streaming.windows import StreamWindow


def still():
    """An image of the sample video, uint8 BGR."""
    with av.open(str(DEMO_VIDEO)) as container:
        return next(container.decode(video=0)).to_ndarray(format="bgr24")


@contextmanager
def camera(socket, encoded):
    """Shows the same image for as long as it is needed: however many are dropped, every window holds it alone."""
    stop = threading.Event()

    def run():
        begun = time.monotonic()
        with suppress(ConnectionClosed):
            while not stop.wait(0.02):
                socket.send(message(time.monotonic() - begun, encoded))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def message(seconds, encoded):
    return struct.pack("<d", seconds) + encoded


def live(server, **options):
    return connect(server.address.replace("http", "ws") + "/v1/live", open_timeout=60, **options)


def begin(socket, **options):
    socket.send(json.dumps(options))
    return json.loads(socket.recv(60))


def test_windows_are_answered_as_the_library_answers_them(server, model):
    image = still()
    with live(server) as socket:
        assert begin(socket, window=1, hop=0.5, top_k=3) == {"type": "ready"}
        with camera(socket, cv2.imencode(".png", image)[1].tobytes()):
            answer = json.loads(socket.recv(60))
    here = model.classify(image[None, :, :, ::-1], top_k=3)

    assert answer["type"] == "window"
    assert answer["end"] - answer["start"] == pytest.approx(1)
    assert [s["label"] for s in answer["labels"]] == [s.label for s in here.labels]
    assert [s["logit"] for s in answer["labels"]] == pytest.approx([s.logit for s in here.labels], abs=1e-3)
    assert answer["latency_ms"] > 0
    assert {"dropped_windows", "dropped_frames", "provider", "precision"} <= set(answer)


def test_windows_may_come_from_cached_frames_and_say_so(server):
    with live(server) as socket:
        begin(socket, window=1, hop=0.25, reuse=True, refresh=2)
        with camera(socket, cv2.imencode(".png", still())[1].tobytes()):
            encodings = [json.loads(socket.recv(60))["encoding"] for _ in range(4)]
    shown = httpx.get(f"{server.address}/metrics").text

    assert [e["exact"] for e in encodings[::2]] == [True, True]
    assert all(e["new_frames"] <= 32 and e["frames"] == 32 for e in encodings)
    # Every frame shows the same, so that cached ones are right.
    assert encodings[2]["drift"] < 1e-3
    assert 'xclip_live_windows_total{encoding="exact"}' in shown
    assert "xclip_live_drift_count" in shown


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("end", ["goodbye", "silence", "nonsense"])
def test_a_camera_that_has_left_holds_no_frames_not_even_until_a_garbage_collection(server, end, reuse):
    def held():
        return sum(type(each) is StreamWindow for each in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        with live(server) as socket:
            begin(socket, window=1, hop=0.5, reuse=reuse)
            with camera(socket, cv2.imencode(".png", still())[1].tobytes()):
                socket.recv(60)
                assert held() == before + 1
            if end == "silence":
                socket.socket.close()
            elif end == "nonsense":
                socket.send(b"x")
        eventually(lambda: held() == before)
    finally:
        gc.enable()


def test_labels_can_be_changed_while_it_runs(server):
    with live(server) as socket:
        begin(socket, window=1, hop=0.5, labels=["a cat"])
        with camera(socket, cv2.imencode(".jpg", still())[1].tobytes()):
            assert [s["label"] for s in json.loads(socket.recv(60))["labels"]] == ["a cat"]
            socket.send(json.dumps({"texts": ["a dog", "a bird"]}))
            names = set()
            while names != {"a dog", "a bird"}:
                names = {s["label"] for s in json.loads(socket.recv(60))["labels"]}


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        ({"window": 0}, "window"),
        ({"window": 1e-12, "hop": 1e-12}, "window"),
        ({"window": float("nan")}, "window"),
        ({"window": float("inf")}, "window"),
        ({"window": 1e300}, "window"),
        ({"window": -1}, "window"),
        ({"hop": 0.001}, "hop"),
        ({"hop": float("nan")}, "hop"),
        ({"window": 10, "hop": 0.02}, "the hop is 0.02 s"),
        ({"smooth": float("inf")}, "smooth"),
        ({"top_k": 10**30}, "top_k"),
        ({"texts": ["x"] * 1001}, "1001 labels"),
        ({"nonsense": 1}, "nonsense"),
        ({"reuse": "yes"}, "reuse"),
        ({"reuse": 1}, "reuse"),
        ({"window": "2"}, "window"),
        ({"top_k": True}, "top_k"),
        ({"texts": ["x" * 501]}, "501 characters"),
    ],
)
def test_options_that_make_no_sense_end_the_session_with_a_reason(server, opening, said):
    with live(server) as socket:
        answer = begin(socket, **opening)
        with pytest.raises(ConnectionClosed):
            socket.recv(60)

    assert answer["type"] == "error"
    assert said in answer["message"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (message(0, b"no image"), "not an image"),
        (b"short", "too short"),
        (message(float("nan"), b"x"), "time is nan"),
        (message(float("inf"), b"x"), "time is inf"),
        (message(1e300, b"x"), "time is 1e+300"),
        (message(-1, b"x"), "time is -1"),
        (b"", "too short"),
        (message(0, cv2.imencode(".png", np.zeros((1, 257, 3), np.uint8))[1].tobytes()), "257x1 pixels"),
        (message(0, cv2.imencode(".png", np.zeros((1_000_000, 1, 3), np.uint8))[1].tobytes()), "1x1000000 pixels"),
        ("{", "JSON"),
        ('{"window": 1}', "window"),
        ("x" * (3 << 20), "JSON message exceeds"),
    ],
    ids=[
        "text",
        "short",
        "no time",
        "no end",
        "late",
        "early",
        "nothing",
        "wide",
        "tall",
        "no JSON",
        "no labels",
        "long",
    ],
)
def test_what_is_no_image_ends_the_session_with_a_reason(server, sent, said):
    with live(server) as socket:
        begin(socket)
        socket.send(sent)
        answer = json.loads(socket.recv(60))

    assert answer["type"] == "error"
    assert said in answer["message"]


def test_a_first_message_that_is_binary_is_refused_with_a_reason(server):
    with live(server) as socket:
        socket.send(b"frame")
        answer = json.loads(socket.recv(60))

    assert answer["type"] == "error"
    assert "first message is binary" in answer["message"]


@pytest.mark.parametrize("frame", [b"\x00\x80\0\0\0\0", b"\x89\x80\0\0\0\0"], ids=["fragment", "ping"])
@pytest.mark.parametrize("too_many", [False, True])
def test_frames_of_no_size_are_counted(server, frame, too_many):
    with live(server) as socket:
        begin(socket)
        with suppress(OSError):
            socket.socket.sendall(b"\x02\x80\0\0\0\0" + frame * (MAX_FRAMES - 1 + 2 * too_many) + b"\x80\x81\0\0\0\0x")
        if too_many:
            with pytest.raises(ConnectionClosed):
                socket.recv(60)
        else:
            assert "too short" in json.loads(socket.recv(60))["message"]


def test_a_message_may_come_in_fragments(server):
    with live(server) as socket:
        socket.send(iter("{}" + " " * (MAX_FRAMES // 2)))

        assert json.loads(socket.recv(60)) == {"type": "ready"}


def test_a_request_waits_for_one_window_however_many_cameras_there_are(model):
    gate = Gate(model)
    image = cv2.imencode(".jpg", still())[1].tobytes()
    with running(gate.model) as server, gate.closed(), ExitStack() as cameras:
        for _ in range(4):
            socket = cameras.enter_context(live(server))
            begin(socket, window=0.1, hop=0.1)
            cameras.enter_context(camera(socket, image))
        # The first window runs; those of the others are kept back, the newest of each.
        eventually(lambda: len(server.served.live_windows._waiters or ()) == 3)
        answer = in_background(lambda: server.classify(DEMO_VIDEO))
        eventually(lambda: server.served.batcher.waiting)

        assert server.served.batcher.waiting == 1
        gate.opened.set()
        assert answer().status_code == 200


def test_an_error_that_nobody_expected_is_told_without_its_details(model, monkeypatch):
    async def broken(*_):
        message = "secret detail"
        raise RuntimeError(message)

    with running(model) as server, live(server) as socket:
        monkeypatch.setattr(server.served, "labels", broken)
        answer = begin(socket)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)

    assert answer == {"type": "error", "message": "internal error: see the server's log"}
    assert closed.value.rcvd.code == 1011


def test_a_camera_that_leaves_stops_the_encoding_of_its_labels(model, monkeypatch):
    encoded = []
    slow = copy.copy(model)
    slow.text_embeds = lambda texts: (time.sleep(0.05), encoded.extend(texts), model.text_embeds(["x"] * len(texts)))[2]
    with running(slow) as server:
        with live(server) as socket:
            socket.send(json.dumps({"texts": [f"text {i}" for i in range(1000)]}))
            eventually(lambda: len(encoded) > 0)
        eventually(lambda: server.engine.live == 0)

    assert len(encoded) < 500


def test_an_image_over_the_pixel_limit_is_refused(model):
    large = cv2.imencode(".png", np.zeros((200, 200, 3), np.uint8))[1].tobytes()
    with running(model, limits=Limits(pixels=10_000)) as server, live(server) as socket:
        begin(socket)
        socket.send(message(0, large))
        answer = json.loads(socket.recv(60))

    assert answer["type"] == "error"


def test_a_connection_needs_a_key_where_requests_do_and_cameras_are_counted(model):
    with running(model, api_keys=("secret",), limits=Limits(live_connections=1)) as server:
        with live(server) as socket:
            assert "API key" in begin(socket)["message"]
        for header in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            with live(server, additional_headers=header) as socket:
                assert begin(socket) == {"type": "ready"}
            eventually(lambda: server.engine.live == 0)
        with live(server) as socket:
            assert begin(socket, api_key="secret") == {"type": "ready"}
            with live(server) as second:
                assert "1 are connected" in begin(second, api_key="secret")["message"]


def test_a_server_ends_while_a_camera_skips_centuries(model):
    image = cv2.imencode(".jpg", still())[1].tobytes()
    with running(model) as server:
        socket = live(server).__enter__()
        assert begin(socket, window=0.1, hop=0.01) == {"type": "ready"}
        for seconds in (0, 1e10, 1, 9.9e9):
            socket.send(message(seconds, image))
    with suppress(ConnectionClosed):
        socket.close()


def test_cameras_that_leave_in_the_middle_of_their_images_leave_nothing_behind(server):
    image = message(0, cv2.imencode(".jpg", still())[1].tobytes())
    for _ in range(20):
        with live(server) as socket:
            begin(socket, window=1, hop=0.5)
            for _ in range(3):
                socket.send(image)

    eventually(lambda: server.engine.live == 0)
