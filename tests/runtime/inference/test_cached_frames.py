"""Windows from cached frames: what is computed, when all is computed anew, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from xclip_runtime import Reuse, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import PrecisionUnavailableError
from xclip_runtime.inference.cached_frames import (
    CachedPart,
    CachedTower,
    FrameCache,
    WindowEncoder,
    difference,
    encode_windows,
    hop_on_grid,
)
from xclip_runtime.inference.session import TensorInfo
from xclip_runtime.results import VideoFeatures
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import open_source

FRAMES = 8


@dataclass(frozen=True)
class SampledWindow:
    sampled: tuple[int, ...]
    gap: object | None = None
    brightness: object = lambda number: number % 7

    @property
    def prepared(self):
        return tuple(np.full((16, 16, 3), self.brightness(number), np.uint8) for number in self.sampled)


class CountingTower:
    """Stands for the graphs: counts the frames that it computes; features drift by one a cached window."""

    frames = FRAMES

    def __init__(self):
        self.computed = []

    def cache(self):
        return FrameCache(((2, 3), 4, (5, 4)), FRAMES)

    def encode(self, parts):
        return [self._encode(part) for part in parts]

    def _encode(self, part):
        _, new = part.cache.place(part.numbers)
        self.computed.append([part.numbers[position] for position in new])
        error = 0.0 if len(new) == FRAMES else 1.0
        return VideoFeatures(np.full(4, error, np.float32), np.zeros((5, 4), np.float32)), len(new)


def encoder(**policy):
    tower = CountingTower()
    return tower, WindowEncoder(tower, lambda features: features.video_embeds, Reuse(**{"refresh": 0, **policy}))


def sliding(count, step=2, **options):
    return [SampledWindow(tuple(range(k * step, k * step + FRAMES)), **options) for k in range(count)]


def test_a_window_computes_its_new_frames_only():
    tower, encode = encoder()
    encodings = [encode.encode(window)[1] for window in sliding(4)]

    assert tower.computed == [[*range(8)], [8, 9], [10, 11], [12, 13]]
    assert [e.exact for e in encodings] == [True, False, False, False]
    assert [str(e) for e in encodings[:2]] == ["exact", "cached, 2 of 8 new, drift not measured yet"]


def test_a_frame_in_several_slots_is_cached_for_each():
    tower, encode = encoder()
    encode.encode(SampledWindow((0, 0, 1, 1, 2, 3, 4, 5)))
    encode.encode(SampledWindow((1, 1, 2, 3, 4, 5, 5, 6)))
    encode.encode(SampledWindow((1, 1, 2, 3, 4, 5, 5, 6)))

    assert tower.computed[1:] == [[5, 6], []]


def test_dropped_windows_make_more_frames_new():
    tower, encode = encoder()
    for number in (0, 1, 3, 20):
        window = sliding(21)[number]
        encode.encode(window)

    assert [len(new) for new in tower.computed] == [8, 2, 4, 8]


def test_behind_a_gap_everything_is_computed():
    tower, encode = encoder()
    one, two = sliding(2)
    encode.encode(one)
    _, encoding = encode.encode(SampledWindow(two.sampled, gap=object()))

    assert encoding.exact
    assert tower.computed[1] == list(two.sampled)


def test_a_scene_cut_refreshes_at_once():
    cut_at = 12
    _tower, encode = encoder(cut=0.2)
    windows = sliding(5, brightness=lambda number: 20 if number < cut_at else 200)

    exact = [encode.encode(window)[1].exact for window in windows]

    # Frame 12 is new in the fourth window.
    assert exact == [True, False, False, True, False]


def test_motion_and_a_little_light_are_no_cut_and_other_colours_are():
    random = np.random.default_rng(0)
    frame = np.kron(random.integers(0, 250, (14, 14, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    night = np.full_like(frame, 20)

    assert difference(frame, frame.copy()) == 0
    assert difference(frame, np.roll(frame, 40, axis=1)) < 0.01
    assert difference(frame, frame + 5) < 0.15
    assert difference(night, night + 5) < 0.15
    assert difference(frame, frame[..., ::-1] // 2) > 0.15
    assert difference(night, np.full_like(frame, 200)) == 1


def test_a_refresh_measures_the_drift_and_begins_anew():
    _tower, encode = encoder(refresh=3, max_drift=2.0)
    encodings, refreshed = [], []
    for window in sliding(7):
        encodings.append(encode.encode(window)[1])
        refreshed.append(encode.refreshed)

    assert [e.exact for e in encodings] == [True, False, False, True, False, False, True]
    assert refreshed == [False, False, False, True, False, False, True]
    assert [e.drift for e in encodings] == [None, None, None, 1.0, 1.0, 1.0, 1.0]
    assert str(encodings[3]) == "exact, drift 1"
    assert str(encodings[4]) == "cached, 2 of 8 new, drift 1"


def test_a_large_drift_has_the_next_window_computed_too():
    _, encode = encoder(refresh=3, max_drift=0.5)

    assert [encode.encode(window)[1].exact for window in sliding(6)] == [True, False, False, True, True, True]


def test_streams_that_began_together_are_refreshed_in_turn():
    tower = CountingTower()
    encoders = [WindowEncoder(tower, lambda f: f.video_embeds, Reuse(refresh=3, max_drift=2.0)) for _ in range(3)]
    exact = [
        [encoding.exact for _, encoding in encode_windows([(encoder, window) for encoder in encoders])]
        for window in sliding(9)
    ]

    assert exact[0] == [True] * 3
    assert [sum(windows) for windows in exact[1:]] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [row.index(True) for row in exact[3:]] == [0, 1, 2, 0, 1, 2]


def test_windows_of_one_stream_or_of_two_models_are_not_computed_together():
    (tower, one), (_, other) = encoder(), encoder()
    own = WindowEncoder(tower, lambda features: features.video_embeds, Reuse())
    window = sliding(1)[0]

    assert encode_windows([]) == []
    for pair in ([(one, window), (one, window)], [(own, window), (other, window)]):
        with pytest.raises(ValueError, match="different streams of one model"):
            encode_windows(pair)


class StreamGraph:
    """Stands for the session of a stream graph; what it computes of a frame is the frame's first pixel."""

    outputs = (TensorInfo("class_tokens", "float", (2, "new", 3)), TensorInfo("patch_features", "float", ("new", 5, 4)))

    def __init__(self):
        self.runs = []

    def run(self, feeds):
        frames = feeds["pixel_values"]
        self.runs.append((len(frames), feeds["cached_tokens"].shape[1]))
        of_frames = frames[:, 0, 0, :1].astype(np.float32)
        return {
            "class_tokens": np.broadcast_to(of_frames, (2, len(frames), 3)),
            "frame_embeds": np.broadcast_to(of_frames, (len(frames), 4)),
            "patch_features": np.broadcast_to(of_frames[..., None], (len(frames), 5, 4)),
        }


class Head:
    def run(self, feeds):
        return {"video_embeds": feeds["frame_embeds"].mean(1), "img_features": feeds["patch_features"].sum(1)}


def test_new_frames_of_several_streams_run_together_no_more_than_a_window_at_once():
    graph = StreamGraph()
    tower = CachedTower(graph, Head(), FRAMES)
    caches = [tower.cache() for _ in range(4)]

    def encode(caches, starts):
        windows = [SampledWindow(tuple(range(start, start + FRAMES))) for start in starts]
        return tower.encode([CachedPart(c, w.sampled, w.prepared) for c, w in zip(caches, windows, strict=True)])

    encode(caches[:3], [0, 0, 0])
    caches[3] = tower.cache()
    caches[3].numbers, caches[3].class_tokens = list(caches[2].numbers), caches[2].class_tokens.copy()
    found = encode(caches, [4, 2, 2, 1])

    assert graph.runs == [(8, 0)] * 3 + [(8, 4 + 6 + 6), (1, 7)]
    assert [new for _, new in found] == [4, 2, 2, 1]
    for (features, _), start in zip(found[:3], [4, 2, 2], strict=True):
        np.testing.assert_allclose(
            features.video_embeds, np.mean([n % 7 for n in range(start, start + FRAMES)]), rtol=1e-6
        )


@pytest.mark.parametrize("policy", [{"refresh": -1}, {"max_drift": math.nan}, {"cut": -0.1}])
def test_a_policy_that_makes_no_sense_is_refused(policy):
    with pytest.raises(ValueError, match="refresh"):
        Reuse(**policy)


@pytest.mark.parametrize(("hop", "steps"), [(0.01, 1), (0.5, 4), (0.51, 4), (0.7, 6), (10, 80)])
def test_a_hop_on_the_grid_is_a_multiple_of_a_slot(hop, steps):
    assert hop_on_grid(1.0, hop, 8) == steps / 8


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request):
    return XClip(DEMO_BUNDLE, device="cpu", precision=request.param)


def test_a_stream_from_cached_frames_is_near_the_exact_one_and_says_what_it_is(model):
    options = {"window": 1.0, "hop": 0.25, "top_k": None}
    exact = list(model.stream(DEMO_VIDEO, **options))
    cached = list(model.stream(DEMO_VIDEO, **options, reuse=Reuse(refresh=4)))

    assert [(w.start, w.end) for w in cached] == [(w.start, w.end) for w in exact]
    assert {str(w.encoding) for w in exact} == {"exact"}
    assert [w.encoding.exact for w in cached] == [k % 4 == 0 for k in range(len(cached))]
    for one, other in zip(exact, cached, strict=True):
        logits, wanted = ({s.label: s.logit for s in w.labels} for w in (other, one))
        tolerance = 1e-3 if other.encoding.exact else 1.0
        assert max(abs(logits[label] - wanted[label]) for label in wanted) < tolerance
        assert other.encoding.new_frames == (32 if other.encoding.exact else 8)
    assert 0 < cached[-1].encoding.drift < 1.0


def test_the_default_hop_of_reused_frames_is_an_eighth_of_a_window(model):
    assert model.windows(2.0, reuse=True).hop == 0.25
    assert model.windows(2.0).hop == 1.0


def test_many_streams_share_the_graphs_and_hold_a_cache_each(model):
    one, two = model.window_encoder(), model.window_encoder()

    assert one.tower is two.tower
    # 3 layers of 128 class tokens, an embedding of 128 and 49 patches of 128, for 32 frames.
    assert one.nbytes == 4 * 32 * 128 * (3 + 1 + 49)


def test_sixteen_cameras_together_are_what_each_is_alone(model):
    windows = [taken.window for taken in feed_of(model)]
    own = [windows[camera % 8 : camera % 8 + 4] for camera in range(16)]
    encoders = [model.window_encoder(Reuse(refresh=0)) for _ in own]

    together = [encode_windows(list(zip(encoders, row, strict=True))) for row in zip(*own, strict=True)]

    for camera in range(8):
        alone = model.window_encoder(Reuse(refresh=0))
        for row, window in zip(together, own[camera], strict=True):
            features, encoding = alone.encode(window)
            for found, said in (row[camera], row[camera + 8]):
                assert said == encoding
                np.testing.assert_allclose(model.label_logits(found), model.label_logits(features), atol=1e-4)


def feed_of(model):
    source = open_source(DEMO_VIDEO)
    windows = model.windows(1.0, 0.0625, fps=source.fps, reuse=True)
    return WindowFeed(source, windows, model.transform, newest_wins=False)


def test_a_bundle_without_stream_graphs_says_how_to_get_them(tmp_path):
    import json

    from helpers.bundles import copy_bundle

    folder = copy_bundle(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"] = {k: v for k, v in manifest["graphs"].items() if v["tower"] not in ("stream", "head")}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(PrecisionUnavailableError, match="--stream"):
        XClip(folder, device="cpu").stream(DEMO_VIDEO, reuse=True)
