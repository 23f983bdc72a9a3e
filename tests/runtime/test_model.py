"""XClip classifies what it is given, and says what it did."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import copy_bundle, reseal
from xclip_runtime import Bundle, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import (
    DeviceError,
    FramesError,
    LabelsError,
    PrecisionUnavailableError,
    VideoError,
    VideoTypeError,
    XClipError,
)
from xclip_runtime.inference.graphs import select_vision_graph
from xclip_runtime.inference.scoring import softmax
from xclip_runtime.text.encoder import TextEncoder
from xclip_runtime.text.label_embeddings import encode_labels
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


@pytest.mark.parametrize("top_k", [0, -1, "3", 2.5])
def test_top_k_that_is_no_count_is_refused(model, top_k):
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
    one, many = (XClip(DEMO_BUNDLE, device="cpu", batch_size=size) for size in (1, batch))

    for alone, together in zip(one.classify_each(videos), many.classify_each(videos), strict=True):
        if isinstance(alone, XClipError):
            assert str(together) == str(alone)
        else:
            assert [score.label for score in together.labels] == [score.label for score in alone.labels]
            np.testing.assert_allclose(together.top.logit, alone.top.logit, atol=1e-4)


def test_views_of_a_batch_go_to_their_own_videos():
    reading = Reading(Views(2, 1))
    model = XClip(DEMO_BUNDLE, device="cpu", batch_size=3)
    videos = [DEMO_VIDEO, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)]

    for video, together in zip(videos, model.classify_each(videos, reading=reading), strict=True):
        np.testing.assert_allclose(together.top.prob, model.classify(video, reading=reading).top.prob, atol=1e-5)


def test_warm_up_is_timed_and_reported_and_the_cpu_pays_for_none_unasked():
    assert XClip(DEMO_BUNDLE, device="cpu").info["warmup_ms"] is None
    assert XClip(DEMO_BUNDLE, device="cpu", warmup=True).info["warmup_ms"] > 0


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"batch_size": "2"}, {"threads": 0}, {"threads": "2"}, {"max_logit_error": "x"}],
    ids=str,
)
def test_numbers_that_are_none_or_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is .*: give"):
        XClip(DEMO_BUNDLE, **wrong)


def test_the_old_name_of_the_batch_size_is_accepted_with_a_warning():
    with pytest.warns(DeprecationWarning, match="batch is now called batch_size"):
        assert XClip(DEMO_BUNDLE, device="cpu", batch=2).info["batch_size"] == 2


def test_motion_demo_is_the_name_of_the_embedded_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert XClip("motion-demo", device="cpu").bundle.path == DEMO_BUNDLE


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
        ("openvino:npu", None, "vision_model"),
        ("plugin:webgpu", None, "vision_model"),
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


INT8 = {"vision_model_int8": "cpu", "vision_model_qdq": "any"}


def int8_bundle(*names):
    return Bundle(
        Path("b"),
        {
            "graphs": {
                name: {"file": name, "tower": "vision", "precision": "int8", "target": INT8[name], "parity": {}}
                for name in names
            }
        },
    )


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu", "vision_model_int8"),
        ("openvino", "vision_model_qdq"),
        ("openvino:gpu", "vision_model_qdq"),
        ("plugin:webgpu", "vision_model_qdq"),
        ("other", "vision_model_qdq"),
    ],
)
def test_int8_has_a_graph_for_the_cpu_and_one_for_other_engines(device, name):
    assert select_vision_graph(int8_bundle(*INT8), device, "int8").name == name


@pytest.mark.parametrize(("device", "held"), [("openvino", "vision_model_int8"), ("cpu", "vision_model_qdq")])
def test_an_int8_graph_for_other_devices_is_refused_with_the_fix(device, held):
    with pytest.raises(
        PrecisionUnavailableError, match=rf"not for {device}: choose .*export it again with --precision int8"
    ):
        select_vision_graph(int8_bundle(held), device, "int8")


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_bundle_without_int8_says_how_to_get_it(device):
    with pytest.raises(PrecisionUnavailableError, match="--precision int8"):
        select_vision_graph(int8_bundle(), device, "int8")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_int8_is_refused_where_nothing_computes_it(device):
    with pytest.raises(PrecisionUnavailableError, match="choose fp16"):
        select_vision_graph(int8_bundle(*INT8), device, "int8")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_is_refused_where_nothing_computes_in_it(device):
    with pytest.raises(PrecisionUnavailableError, match="openvino"):
        select_vision_graph(Bundle(Path(), {"graphs": {}}), device, "bf16")


# The grid: classify, features, embed and score, each of one video and of many

READING = Reading(start=1.0, end=2.0)
TEXTS = [expected_label(), "a shape"]


def test_embed_reads_the_part_of_the_video_that_is_asked_for(model):
    np.testing.assert_array_equal(
        model.embed(DEMO_VIDEO, reading=READING), model.features(DEMO_VIDEO, reading=READING).unit_embeds
    )
    assert not np.array_equal(model.embed(DEMO_VIDEO, reading=READING), model.embed(DEMO_VIDEO))


def test_embed_each_gives_the_embedding_of_each_with_errors_in_their_place(model, tmp_path):
    first, missing, last = model.embed_each([DEMO_VIDEO, tmp_path / "nothing.mp4", DEMO_VIDEO], reading=READING)

    np.testing.assert_array_equal(first, model.embed(DEMO_VIDEO, reading=READING))
    np.testing.assert_array_equal(last, first)
    assert isinstance(missing, VideoError)


def test_score_each_gives_the_scores_of_each_with_errors_in_their_place(model, tmp_path):
    videos = [DEMO_VIDEO, tmp_path / "nothing.mp4", str(DEMO_VIDEO)]

    first, missing, last = model.score_each(videos, TEXTS, reading=READING, workers=2)

    alone = model.score(DEMO_VIDEO, TEXTS, reading=READING)
    assert first.texts == last.texts == alone.texts
    assert (first.video, last.video) == (str(DEMO_VIDEO), str(DEMO_VIDEO))
    assert isinstance(missing, VideoError)


def test_texts_that_are_encoded_already_are_scored_as_they_are(model):
    encoded = encode_labels(TextEncoder(model.bundle), TEXTS)

    assert model.score(DEMO_VIDEO, encoded).texts == model.score(DEMO_VIDEO, TEXTS).texts


def test_features_and_embeddings_are_batched_without_a_change(model):
    videos = [np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8) for i in range(3)]

    together = XClip(DEMO_BUNDLE, device="cpu", batch_size=2).embed_each(videos)

    np.testing.assert_allclose(list(together), [model.embed(video) for video in videos], atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.features(DEMO_VIDEO, reading=Reading(Views(2, 1))),
        lambda model: model.embed(DEMO_VIDEO, reading=Reading(Views(2, 1))),
        lambda model: model.features_each([DEMO_VIDEO], reading=Reading(Views(2, 1))),
        lambda model: model.embed_each([DEMO_VIDEO], reading=Reading(Views(2, 1))),
    ],
    ids=["features", "embed", "features_each", "embed_each"],
)
def test_features_and_embeddings_of_several_views_are_refused_at_once(model, call):
    with pytest.raises(FramesError, match="require a single view; got 2"):
        call(model)


# Inputs


def test_a_video_in_memory_gives_the_answer_of_its_file(model, frames):
    content, answer = DEMO_VIDEO.read_bytes(), model.classify(DEMO_VIDEO)

    in_memory = model.classify(io.BytesIO(content))
    together = model.classify([content, io.BytesIO(content)])

    assert [result.labels for result in (in_memory, *together)] == [answer.labels] * 3
    assert in_memory.video is None


def test_a_list_of_images_is_one_video_and_a_list_of_such_lists_is_several(model, frames):
    answer = model.classify(frames)

    assert model.classify(list(frames)).labels == answer.labels
    assert [result.labels for result in model.classify([list(frames), frames])] == [answer.labels] * 2


@pytest.mark.parametrize("video", [None, 3, {}], ids=repr)
def test_anything_else_gets_one_line_of_what_goes_in(model, video):
    with pytest.raises(VideoTypeError, match="give a path"):
        model.classify(video)


@pytest.mark.parametrize("name", ["classify_each", "features_each", "embed_each"])
def test_one_path_where_several_are_wanted_is_refused_at_once(model, name):
    with pytest.raises(VideoTypeError, match="put it into a list"):
        getattr(model, name)(str(DEMO_VIDEO))


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.with_labels("orange"),
        lambda model: model.with_labels(b"orange"),
        lambda model: model.with_labels(None),
        lambda model: model.with_labels(["orange"], template=None),
        lambda model: model.score(DEMO_VIDEO, "orange"),
        lambda model: model.score_each([DEMO_VIDEO], "orange"),
        lambda model: model.text_embeds("orange"),
    ],
)
def test_a_string_where_a_list_is_wanted_is_refused(model, call):
    with pytest.raises(LabelsError, match="not a list: give a list of strings, such as") as caught:
        call(model)

    assert "\n" not in str(caught.value)


def test_a_label_that_is_not_a_string_is_refused_by_its_place(model):
    with pytest.raises(LabelsError, match="item 2 of labels is the int 7, not a string"):
        model.with_labels(["orange", 7])


def test_labels_may_come_from_any_iterable(model):
    assert model.with_labels(name for name in ("red", "blue")).labels == ("red", "blue")


# Copies


def test_a_deep_copy_shares_the_sessions_and_keeps_its_own_labels(model):
    other = copy.deepcopy(model)

    assert other is not model
    assert other.classify(DEMO_VIDEO).labels == model.classify(DEMO_VIDEO).labels
    assert other._loaded is model._loaded
    assert other.with_labels(["red"]).labels != model.labels == other.labels


def test_pickling_says_to_send_the_path_of_the_bundle(model):
    with pytest.raises(TypeError, match="cannot be pickled: send the bundle's path"):
        pickle.dumps(model)


# ONNX Runtime's own options


def test_a_list_of_providers_takes_the_place_of_the_device(model):
    mine = XClip(DEMO_BUNDLE, providers=["CPUExecutionProvider"])

    assert mine.provider == "CPUExecutionProvider"
    assert mine.classify(DEMO_VIDEO).labels == model.classify(DEMO_VIDEO).labels


def test_a_provider_that_runs_nothing_is_never_named_as_the_one_that_ran():
    with pytest.raises(DeviceError, match="Azure"):
        XClip(DEMO_BUNDLE, providers=["AzureExecutionProvider"])


def test_session_options_reach_both_sessions():
    mine = XClip(DEMO_BUNDLE, device="cpu", session_options={"session.intra_op.allow_spinning": "1", "mine": "x"})

    for session in (mine._loaded.vision, mine._loaded.prompt):
        assert session._session.get_session_options().get_session_config_entry("mine") == "x"


def test_an_unknown_provider_option_is_passed_on_with_a_warning(caplog):
    XClip(DEMO_BUNDLE, device="cpu", provider_options={"brand_new": "1"})

    assert "brand_new is passed to CPUExecutionProvider unchecked" in caplog.text
