"""Live and long videos: real streams on loopback, slow consumers, an hour in seconds."""

from __future__ import annotations

import itertools
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.cameras import FPS, SyntheticSource, jpeg_camera, rtsp_camera, serving, transport_camera, transport_stream
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import VideoDecodeError, VideoError, VideoNotFoundError
from xclip_runtime.inference.scoring import softmax
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import Backoff, StreamClock, open_source
from xclip_runtime.video.read import read_clip

QUICKLY = Backoff(first=0.05, longest=0.1, reconnect_timeout=1.0, timeout=1.0)


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture
def seen(model, monkeypatch):
    """The model is replaced by one that takes no time; what it was shown is collected, as brightness."""
    shown = []

    def logits_batch(clips):
        shown.extend(clips[:, :, 112, 112, 0].astype(int))
        return np.zeros((len(clips), len(model.labels)), np.float32)

    monkeypatch.setattr(model, "logits_batch", logits_batch)
    return shown


def until_it_is_gone(iterator, found):
    """Collect from a live source until it is given up."""
    with pytest.raises(VideoError, match="has sent nothing"):
        found.extend(iterator)


def spans(results):
    return [(pytest.approx(r.start, abs=1e-6), pytest.approx(r.end, abs=1e-6)) for r in results]


def test_a_window_as_long_as_the_video_gives_the_answer_of_the_video(model):
    (result,) = model.stream(DEMO_VIDEO, window=3.0, top_k=None)

    assert (result.start, result.end) == (0, 3)
    assert result.labels == model.classify(DEMO_VIDEO, top_k=None).labels


def test_a_file_ends_cleanly_with_every_part_of_it_seen(model, seen):
    results = list(model.stream(DEMO_VIDEO, window=1.0, hop=0.5))

    assert [(r.start, r.end) for r in results] == spans(results)
    assert [r.start for r in results] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert results[-1].end == pytest.approx(3)
    assert all(r.dropped_windows == r.dropped_frames == 0 and r.gap is None for r in results)


def test_frames_that_a_user_feeds_give_the_same_windows(model):
    clip = read_clip(DEMO_VIDEO, num_frames=75, transform=model.transform)
    hf = XClip(DEMO_BUNDLE, device="cpu", profile="hf").windows(1.0, 0.5, fps=25)

    # 224 pixels in, 224 pixels out: the hf profile leaves such frames as they are.
    pushed = [w for number, frame in enumerate(clip.frames) for w in hf.push(frame, number / 25)]
    pushed += hf.flush()

    results = model.stream(DEMO_VIDEO, window=1.0, hop=0.5, top_k=None)
    for window, result in zip(pushed, results, strict=False):
        probs = dict(zip(model.labels, softmax(model.logits(window.frames)), strict=True))
        assert {s.label: s.prob for s in result.labels} == pytest.approx(probs, abs=1e-9)
    assert len(pushed) == 5


def test_smoothing_is_that_of_the_probabilities_over_time(model):
    plain = list(model.stream(DEMO_VIDEO, window=1.0, hop=0.5, top_k=None))
    smooth = list(model.stream(DEMO_VIDEO, window=1.0, hop=0.5, top_k=None, smooth=2.0))

    before, now = ({s.label: s.prob for s in r.labels} for r in plain[:2])
    expected = {label: before[label] + (1 - np.exp(-0.25)) * (now[label] - before[label]) for label in now}
    assert {s.label: s.prob for s in smooth[1].labels} == pytest.approx(expected)
    assert {s.label: s.logit for s in smooth[1].labels} == {s.label: s.logit for s in plain[1].labels}


@pytest.mark.parametrize(
    "cameras",
    [
        pytest.param(lambda plan: serving(transport_camera(plan)), id="MPEG-TS over HTTP"),
        pytest.param(rtsp_camera, id="H.264 over RTSP"),
    ],
)
def test_a_stream_that_is_cut_off_and_restored_goes_on_and_reports_the_gap(model, seen, cameras):
    results = []
    with cameras([60, 51]) as camera:
        source = open_source(camera.address, backoff=QUICKLY)
        assert source.live
        until_it_is_gone(model.stream(source, window=1.0, hop=0.5, newest_wins=False), results)

    before, after = results[:3], results[3:]
    assert camera.connections == 2
    # By the clock of the stream: it was sent at more than twice its rate.
    assert [(r.start, r.end) for r in before] == [(0, 1), (0.5, 1.5), (1, 2)]
    assert [r.gap is None for r in results] == [True, True, True, False, *[True] * (len(after) - 1)]
    gap = after[0].gap
    assert gap.start == pytest.approx(59 / FPS)
    assert gap.end > gap.start + QUICKLY.first
    assert [r.start for r in after] == pytest.approx(gap.end + np.arange(len(after)) * 0.5)
    assert len(after) == 3
    # Each window shows the frames of its own second: a frame's brightness is its number and about 19.
    for shown, first in zip(seen, [0, 12.5, 25, 0, 12.5, 25], strict=True):
        assert np.abs(shown - (19.5 + first + (np.arange(32) + 0.5) * FPS / 32)).max() < 4


@pytest.mark.parametrize(
    ("clock", "runs"),
    [
        pytest.param([0, 0.04, 0.08, 0.12], True, id="from zero"),
        pytest.param([5, 5.04, 5.08, 5.12], True, id="from another time"),
        pytest.param([math.nan, 5.04, 5.08, 5.12], True, id="the first time unknown, as in RTSP"),
        pytest.param([math.nan, math.nan, 5.08, 5.12], True, id="the first two unknown"),
        pytest.param([5, math.nan, 5.08, 5.12], True, id="one in between unknown"),
        pytest.param([0, 0, 0, 0], False, id="always the same"),
        pytest.param([3, 2, 1, 0], False, id="backwards"),
    ],
)
def test_a_clock_that_does_not_run_is_told_from_one_that_begins_unknown(clock, runs):
    source = StreamClock(10.0, 100.0, 0.04, trusted=True)

    times = [source.read(t, 100 + number) for number, t in enumerate(clock)]

    assert times == pytest.approx([10, 10.04, 10.08, 10.12] if runs else [10, 11, 12, 13])


def test_a_source_without_any_times_is_timed_by_arrival():
    source = StreamClock(10.0, 100.0, 0.04, trusted=True)

    times = [source.read(math.nan, 100 + number) for number in range(20)]

    assert times[-1] == pytest.approx(29)


def test_a_camera_that_falls_silent_is_left_and_sought_again(model, seen):
    results = []
    with serving(transport_camera([-40, 40], interval=1 / FPS)) as camera:
        source = open_source(camera.address, backoff=QUICKLY)
        until_it_is_gone(model.stream(source, window=1.0, newest_wins=False), results)

    assert camera.connections == 2
    (gap,) = (r.gap for r in results if r.gap)
    # Frames that the decoder holds back come when the connection has broken; the clock goes on all the same.
    assert gap.end - gap.start >= QUICKLY.timeout / 2


def test_jpegs_without_times_are_timed_by_their_arrival():
    times, start = [], time.monotonic()
    with serving(jpeg_camera([75])) as camera:
        source = open_source(camera.address, backoff=QUICKLY)
        until_it_is_gone((times.append(m.time) for m in source), [])
        spent = time.monotonic() - start - QUICKLY.reconnect_timeout

    assert len(times) == 75
    # At 25 frames a second, which FFmpeg assumes, it would be three seconds.
    assert times[-1] == pytest.approx(min(spent, 75 * 0.02), abs=0.6)
    assert times == sorted(times)


def test_an_address_with_no_camera_is_an_error_at_once():
    with serving(transport_camera([1])) as camera:
        address = camera.address
    with pytest.raises(VideoDecodeError, match="127"):
        open_source(address)


def test_a_live_source_can_be_closed_while_it_waits_to_reconnect():
    with serving(transport_camera([30])) as camera:
        source = open_source(camera.address, backoff=Backoff(first=60))
        times = []
        thread = threading.Thread(target=lambda: times.extend(m.time for m in source))
        thread.start()
        while len(times) == 0 and camera.connections == 0:
            time.sleep(0.01)
        time.sleep(1)

        source.close()
        thread.join(timeout=5)

    assert not thread.is_alive()


class SlowModel:
    """Takes its time for each window."""

    def __init__(self, seconds):
        self.seconds = seconds

    def take(self, feed):
        taken = []
        for window in feed:
            time.sleep(self.seconds)
            taken.append(window)
        return taken


def test_of_a_live_source_the_newest_window_wins_and_every_other_is_counted(model):
    source = SyntheticSource(600, live=True, interval=0.002)
    feed = WindowFeed(source, model.windows(1.0, 0.5, fps=30), model.transform, newest_wins=True)

    taken = SlowModel(0.15).take(feed)

    whole = 39
    assert sum(t.dropped_windows for t in taken) > 0
    assert len(taken) + sum(t.dropped_windows for t in taken) == whole
    starts = [t.window.start for t in taken]
    assert starts == sorted(set(starts))
    assert taken[-1].window.end == pytest.approx(20)
    unseen = set(range(600)).difference(*(t.window.numbers for t in taken))
    # The last frames of a window, after its last sampled one, are in none.
    assert sum(t.dropped_frames for t in taken) == pytest.approx(len(unseen), abs=len(taken) + 1)


def test_a_file_waits_for_the_model_and_drops_nothing(model):
    source = SyntheticSource(300)
    feed = WindowFeed(source, model.windows(1.0, 0.5, fps=30), model.transform, newest_wins=False)
    given = []
    taken = [given.append(source.given) or time.sleep(0.02) or t for t in feed]

    assert len(taken) == 19
    assert all(t.dropped_windows == t.dropped_frames == 0 for t in taken)
    # One window waits and one is being offered, so the source is at most three windows ahead.
    assert all(g <= 30 + 15 * (number + 3) for number, g in enumerate(given))


def test_a_gap_is_reported_even_if_its_window_is_dropped(model):
    class Holed(SyntheticSource):
        def __iter__(self):
            for number, frame in enumerate(super().__iter__()):
                yield frame._replace(time=frame.time + 100 * (number >= 60))

    source = Holed(240, live=True, interval=0.001)
    feed = WindowFeed(source, model.windows(1.0, 0.5, fps=30), model.transform, newest_wins=True)

    taken = SlowModel(0.15).take(feed)

    assert sum(t.dropped_windows for t in taken) > 0
    assert [t.window.gap.end for t in taken if t.window.gap] == [102]


def test_an_error_of_the_source_is_raised_after_its_last_window(model, seen):
    class Failing(SyntheticSource):
        def __iter__(self):
            yield from super().__iter__()
            message = "the lens fell off"
            raise VideoDecodeError(message)

    results = model.stream(Failing(60), window=1.0, hop=1.0)

    next(results)
    with pytest.raises(VideoDecodeError, match="lens"):
        list(results)


def test_leaving_the_loop_ends_the_thread_and_closes_the_source(model, seen):
    source = SyntheticSource(10**9, live=True, interval=0.001)
    results = model.stream(source, window=1.0)
    next(results)

    results.close()

    assert "xclip-stream" not in [t.name for t in threading.enumerate()]


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells the resident memory in /proc")
def test_an_hour_of_video_needs_no_more_memory_than_a_minute(model, seen):
    source = SyntheticSource(3600 * 30)

    resident = [resident_mb() for _ in model.stream(source, window=16.0, hop=8.0)]

    windows = 3600 // 8 - 1
    assert len(resident) == windows
    minute = 10
    # The frames kept for the last window are 19 MB.
    assert max(resident[minute:]) - max(resident[:minute]) < 30
    # 16 new frames every 8 seconds, and the one at a window's start; not the 240 that come.
    assert source.converted <= 17 * (windows + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 0}, "window"), ({"hop": 0.01}, "hop"), ({"smooth": -1}, "smoothing"), ({"top_k": 0}, "top_k")],
)
def test_options_that_make_no_sense_are_refused_at_once(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.stream(SyntheticSource(10), **options)


def test_a_file_that_is_not_there_is_an_error_at_once(model, tmp_path):
    with pytest.raises(VideoNotFoundError, match=r"no\.mp4"):
        model.stream(tmp_path / "no.mp4")


@pytest.mark.parametrize("content", [b"", b"this is a text file\n" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_video_is_an_error(model, tmp_path, content):
    (tmp_path / "no.ts").write_bytes(content)

    with pytest.raises(VideoDecodeError, match=r"no\.ts"):
        list(model.stream(tmp_path / "no.ts"))


def test_a_file_keeps_its_own_times(tmp_path):
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(transport_stream(30)))

    times = [m.time for m in open_source(path)]

    assert times == pytest.approx(np.arange(30) / FPS)


def test_a_file_that_only_pyav_can_decode_is_read_with_it(tmp_path):
    from helpers.numbered_clips import Recipe

    path = Recipe("av1.mp4", "libsvtav1", frames=20, options={"svtav1-params": "preset=12"}).encode(tmp_path)

    frames = [(frame.time, frame.to_rgb().shape) for frame in itertools.islice(open_source(path), 20)]

    assert len(frames) == 20
    assert frames[0] == (0, (128, 160, 3))
