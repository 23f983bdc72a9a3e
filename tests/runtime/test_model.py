"""XClip classifies what it is given, and says what it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import copy_bundle, reseal
from xclip_runtime import Bundle, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import DeviceError, FramesError, PrecisionUnavailableError, VideoError, XClipError
from xclip_runtime.inference.graphs import select_vision_graph
from xclip_runtime.inference.scoring import softmax
from xclip_runtime.video import Views, read_clip, read_views
from xclip_runtime.video.load import Reading


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def frames(model):
    """The sample's sampled frames, already of the model's size, so that preparing them changes nothing."""
    return read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform).frames


def logits_by_label(result):
    return {score.label: score.logit for score in result.labels}


def test_the_sample_shows_what_it_was_rendered_to_show(model):
    assert model.classify(DEMO_VIDEO).top.label == expected_label()


def test_a_result_says_which_frames_provider_and_precision_it_came_from(model):
    result = model.classify(DEMO_VIDEO)

    assert len(result.frames.indices) == 32
    assert list(result.frames.indices) == sorted(result.frames.indices)
    assert max(result.frames.indices) < result.frames.total
    assert (result.provider, result.precision) == ("CPUExecutionProvider", "fp32")
    assert result.timings_ms.vision > 0
    assert result.timings_ms.total >= result.timings_ms.vision + result.timings_ms.decode


def test_labels_come_best_first_and_their_probabilities_sum_to_one(model):
    labels = model.classify(DEMO_VIDEO, top_k=None).labels

    assert len(labels) == len(model.labels)
    assert [s.prob for s in labels] == sorted((s.prob for s in labels), reverse=True)
    assert sum(s.prob for s in labels) == pytest.approx(1, abs=1e-9)


def test_top_k_cuts_the_same_list(model):
    everything = model.classify(DEMO_VIDEO, top_k=None).labels

    assert model.classify(DEMO_VIDEO, top_k=3).labels == everything[:3]


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(model, top_k):
    with pytest.raises(ValueError, match="at least 1"):
        model.classify(DEMO_VIDEO, top_k=top_k)


def test_one_in_gives_one_out_and_a_list_gives_a_list(model):
    one = model.classify(DEMO_VIDEO)
    many = model.classify([DEMO_VIDEO, str(DEMO_VIDEO)])

    assert [r.labels for r in many] == [one.labels, one.labels]
    assert model.classify([]) == []


def test_a_bad_video_in_a_list_raises_as_it_does_alone(model, tmp_path):
    with pytest.raises(VideoError, match=r"nothing\.mp4"):
        model.classify([DEMO_VIDEO, tmp_path / "nothing.mp4", DEMO_VIDEO])


def test_each_gives_an_error_in_its_place_and_goes_on(model, tmp_path, frames):
    videos = [DEMO_VIDEO, tmp_path / "nothing.mp4", frames, frames[:, :, :, 0], str(DEMO_VIDEO)]

    first, missing, array, wrong, last = model.classify_each(videos, workers=2)

    assert first.labels == last.labels == model.classify(DEMO_VIDEO).labels
    assert isinstance(missing, VideoError)
    assert (array.video, array.labels) == (None, model.classify(frames).labels)
    assert isinstance(wrong, FramesError)


@pytest.mark.parametrize("options", [{"workers": 0}, {"top_k": 0}])
def test_each_refuses_wrong_options_at_once(model, options):
    with pytest.raises(ValueError, match="at least 1"):
        model.classify_each([DEMO_VIDEO], **options)


def test_a_clip_that_is_read_already_gives_the_answer_of_its_video(model):
    clip = read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform)

    assert model.classify(clip).labels == model.classify(DEMO_VIDEO).labels
    assert model.classify([clip, clip])[1].frames == model.classify(DEMO_VIDEO).frames


def test_clips_that_run_together_have_the_features_that_they_have_alone(model, frames):
    together = model.features_batch(np.stack([frames, 255 - frames]))

    for features, clip in zip(together, (frames, 255 - frames), strict=True):
        alone = model.features_batch(clip[None])[0]
        np.testing.assert_allclose(features.video_embeds, alone.video_embeds, atol=1e-5)
        np.testing.assert_allclose(features.img_features, alone.img_features, atol=1e-5)


def test_views_average_the_probabilities_of_their_clips(model):
    views = read_views(DEMO_VIDEO, num_frames=32, transform=model.transform, views=Views(2, 3))
    alone = [softmax(model.logits(frames)) for frames in views.frames]

    result = model.classify(DEMO_VIDEO, top_k=None, reading=Reading(views=Views(2, 3)))

    assert {s.label: s.prob for s in result.labels} == pytest.approx(
        dict(zip(model.labels, np.mean(alone, axis=0), strict=True)), abs=1e-7
    )
    assert len(result.frames.indices) == 64
    assert sum(s.prob for s in result.labels) == pytest.approx(1, abs=1e-9)


def test_a_part_of_a_video_is_read_from_start_to_end(model):
    result = model.classify(DEMO_VIDEO, reading=Reading(start=1.0, end=2.0))

    assert (min(result.frames.indices), max(result.frames.indices)) == (25, 49)
    assert result.frames.total == 25


def test_str_and_path_agree(model):
    assert model.classify(str(DEMO_VIDEO)).labels == model.classify(Path(DEMO_VIDEO)).labels


def test_prepared_frames_give_the_same_embedding_as_their_video(model, frames):
    hf = XClip(DEMO_BUNDLE, device="cpu", profile="hf")

    # 224 pixels in, 224 pixels out: the hf profile leaves such frames as they are.
    np.testing.assert_array_equal(hf.embed(frames), model.embed(DEMO_VIDEO))


def test_an_embedding_is_a_unit_vector(model):
    embedding = model.embed(DEMO_VIDEO)

    assert embedding.dtype == np.float32
    assert embedding.ndim == 1
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_a_frame_that_repeats_is_a_video_too(model, frames):
    still = model.classify(frames[:1])

    assert still.frames.total == 1
    assert still.frames.indices == (0,) * 32


def test_the_order_of_frames_matters_to_the_model(model, frames):
    forward, backward = model.embed(frames), model.embed(frames[::-1].copy())

    assert not np.allclose(forward, backward, atol=1e-3)


def test_the_order_of_labels_does_not_matter(model, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    labels = json.loads((bundle / "labels.json").read_text())
    order = np.random.default_rng(0).permutation(len(labels["names"]))
    embeds = np.load(bundle / "text_embeds.npy")
    np.save(bundle / "text_embeds.npy", embeds[order])
    (bundle / "labels.json").write_text(json.dumps({k: [v[i] for i in order] for k, v in labels.items()}))
    reseal(bundle)

    shuffled = logits_by_label(XClip(bundle, device="cpu").classify(DEMO_VIDEO, top_k=None))

    assert shuffled == pytest.approx(logits_by_label(model.classify(DEMO_VIDEO, top_k=None)), abs=1e-4)


def test_an_earlier_result_is_not_overwritten_by_a_later_call(model, frames):
    first = model.embed(frames)
    kept = first.copy()
    model.embed(255 - frames)

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((32, 224, 224, 3), np.float32),
        np.zeros((32, 224, 224), np.uint8),
        np.zeros((32, 3, 224, 224), np.uint8),
        np.zeros((32, 224, 224, 4), np.uint8),
        np.zeros((0, 224, 224, 3), np.uint8),
        np.zeros((4, 0, 224, 3), np.uint8),
    ],
    ids=["float", "3-D", "channels first", "RGBA", "no frame", "no row"],
)
def test_other_arrays_are_refused_with_what_is_wanted(model, bad):
    with pytest.raises(FramesError, match=r"uint8 RGB of shape \(T, H, W, 3\)"):
        model.classify(bad)


def test_a_missing_video_is_a_video_error(model, tmp_path):
    with pytest.raises(VideoError, match=r"nothing\.mp4"):
        model.classify(tmp_path / "nothing.mp4")


def test_a_precision_that_the_bundle_lacks_is_refused():
    with pytest.raises(PrecisionUnavailableError, match="--precision fp16"):
        XClip(DEMO_BUNDLE, device="cpu", precision="fp16")


def test_info_tells_what_was_loaded(model):
    info = model.info

    assert info["provider"] == "CPUExecutionProvider"
    assert info["precision"] == "fp32"
    assert (DEMO_BUNDLE / info["vision_graph"]).is_file()
    assert info["num_frames"] == 32


@pytest.mark.parametrize("batch", [2, 3])
def test_batching_changes_no_answer(batch, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 224, 224, 3), dtype=np.uint8)
    videos = [*frames[:3], tmp_path / "missing.mp4", *frames[3:]]
    one, many = (XClip(DEMO_BUNDLE, device="cpu", batch=size) for size in (1, batch))

    for alone, together in zip(one.classify_each(videos), many.classify_each(videos), strict=True):
        if isinstance(alone, XClipError):
            assert str(together) == str(alone)
        else:
            assert [score.label for score in together.labels] == [score.label for score in alone.labels]
            np.testing.assert_allclose(together.top.logit, alone.top.logit, atol=1e-4)


def test_views_of_a_batch_go_to_their_own_videos():
    reading = Reading(Views(2, 1))
    model = XClip(DEMO_BUNDLE, device="cpu", batch=3)
    videos = [DEMO_VIDEO, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)]

    for video, together in zip(videos, model.classify_each(videos, reading=reading), strict=True):
        np.testing.assert_allclose(together.top.prob, model.classify(video, reading=reading).top.prob, atol=1e-5)


def test_warm_up_is_timed_and_reported_and_the_cpu_pays_for_none_unasked():
    assert XClip(DEMO_BUNDLE, device="cpu").info["warmup_ms"] is None
    assert XClip(DEMO_BUNDLE, device="cpu", warmup=True).info["warmup_ms"] > 0


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        XClip(DEMO_BUNDLE, batch=0)


def test_provider_options_need_a_named_device():
    with pytest.raises(DeviceError, match="name the device"):
        XClip(DEMO_BUNDLE, provider_options={"gpu_mem_limit": "1"})


@pytest.mark.parametrize(
    ("device", "precision", "file"),
    [
        ("cuda", None, "vision_model_fp16"),
        ("cuda", "fp32", "vision_model"),
        ("tensorrt", None, "vision_model"),
        ("tensorrt", "fp16", "vision_model"),
        ("openvino", "bf16", "vision_model"),
        ("cpu", None, "vision_model_cpu"),
    ],
)
def test_each_device_gets_the_graph_that_was_written_for_it(device, precision, file):
    graphs = [
        ("vision_model", "fp32", "any"),
        ("vision_model_cpu", "fp32", "cpu"),
        ("vision_model_fp16", "fp16", "cuda"),
    ]
    entries = {
        name: {"file": name, "tower": "vision", "precision": kind, "target": target, "parity": {}}
        for name, kind, target in graphs
    }

    assert select_vision_graph(Bundle(Path(), {"graphs": entries}), device, precision).name == file


@pytest.mark.parametrize("device", ["tensorrt", "openvino"])
def test_int8_is_refused_where_its_kernels_are_not(device):
    with pytest.raises(PrecisionUnavailableError, match="choose device cpu"):
        select_vision_graph(Bundle(Path(), {"graphs": {}}), device, "int8")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_is_refused_where_nothing_computes_in_it(device):
    with pytest.raises(PrecisionUnavailableError, match="openvino"):
        select_vision_graph(Bundle(Path(), {"graphs": {}}), device, "bf16")
