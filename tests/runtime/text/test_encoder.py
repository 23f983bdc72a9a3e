"""Any words, without PyTorch: features, labels and scores. test_text_parity.py compares them with transformers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from helpers.bundles import copy_bundle, flip_byte
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import BundleCorruptError, FramesError, LabelsError, MissingExtraError, VideoError
from xclip_runtime.video import Views, read_views
from xclip_runtime.video.load import Reading


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def features(model):
    return model.features(DEMO_VIDEO)


def logits_by_label(result):
    return {score.label: score.logit for score in result.labels}


def test_features_hold_what_embed_gives_and_what_classify_needs(model, features):
    assert (features.video_embeds.dtype, features.video_embeds.shape) == (np.float32, (128,))
    assert (features.img_features.dtype, features.img_features.shape) == (np.float32, (49, 128))
    np.testing.assert_array_equal(features.unit_embeds, model.embed(DEMO_VIDEO))

    logits = model.prompt_logits(features, model.bundle.text_embeds)

    assert dict(zip(model.labels, logits.tolist(), strict=True)) == logits_by_label(
        model.classify(DEMO_VIDEO, top_k=None)
    )


def test_features_of_each_video_come_in_order_with_errors_in_their_place(model, features, tmp_path):
    first, missing, last = model.features_each([DEMO_VIDEO, tmp_path / "nothing.mp4", str(DEMO_VIDEO)], workers=2)

    np.testing.assert_array_equal(first.img_features, features.img_features)
    np.testing.assert_array_equal(last.video_embeds, features.video_embeds)
    assert isinstance(missing, VideoError)


def test_features_are_of_one_view(model):
    views = Reading(views=Views(2, 1))
    clip = read_views(DEMO_VIDEO, num_frames=32, transform=model.transform, views=Views(2, 1))

    with pytest.raises(ValueError, match="single view; got 2"):
        model.features(DEMO_VIDEO, reading=views)
    with pytest.raises(ValueError, match="single view; got 2"):
        model.features_each([DEMO_VIDEO], reading=views)
    with pytest.raises(FramesError, match="single view; got 2"):
        model.features(clip)


def test_the_bundles_own_labels_typed_at_run_time_have_the_embeddings_of_the_export(model):
    embeds = model.text_embeds(model.bundle.labels.texts)

    assert embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, model.bundle.text_embeds, atol=1e-5)


def test_other_labels_share_the_graphs_and_leave_the_model_its_own(model):
    names = [expected_label(), "a shape", "nothing at all"]
    other = model.with_labels(names)

    assert other._loaded is model._loaded
    assert (other.labels, len(model.labels)) == (tuple(names), 70)
    assert other.classify(DEMO_VIDEO).top.label == expected_label()


@pytest.mark.parametrize("shape", [(128,), (2, 64)])
def test_embeddings_of_another_model_are_refused(model, features, shape):
    with pytest.raises(LabelsError, match=r"\(N, 128\)"):
        model.prompt_logits(features, np.zeros(shape, np.float32))


# Pieces


class Spy:
    """A session that remembers how much it was given at a time."""

    def __init__(self, session, name):
        self.session, self.name, self.sizes = session, name, []

    def run(self, feeds):
        self.sizes.append(feeds[self.name].shape)
        return self.session.run(feeds)


@pytest.fixture(scope="module")
def many(model):
    texts = [f"{colour} label {number}" for number in range(100) for colour in ("a red", "one very pale green", "no")]
    return texts, model.text_embeds(texts)


@pytest.mark.parametrize("at_once", [1, 7, 299])
def test_logits_do_not_depend_on_how_labels_are_cut_into_pieces(model, features, many, monkeypatch, at_once):
    whole = model.prompt_logits(features, many[1])
    spy = Spy(model._loaded.prompt, "text_embeds")
    monkeypatch.setattr(model._bound, "_prompt", spy)
    monkeypatch.setattr("xclip_runtime.inference.bound_model.LABELS_AT_ONCE", at_once)

    np.testing.assert_allclose(model.prompt_logits(features, many[1]), whole, atol=1e-4)
    assert max(rows for rows, _ in spy.sizes) == at_once
    assert sum(rows for rows, _ in spy.sizes) == 300


def test_logits_do_not_depend_on_the_order_of_labels(model, features, many):
    order = np.random.default_rng(0).permutation(300)

    np.testing.assert_allclose(
        model.prompt_logits(features, many[1][order]), model.prompt_logits(features, many[1])[order], atol=1e-4
    )


@pytest.mark.parametrize("at_once", [1, 50])
def test_embeddings_do_not_depend_on_what_else_is_encoded(model, many, monkeypatch, at_once):
    texts, embeds = many
    spy = Spy(model._text_encoder._session, "input_ids")
    monkeypatch.setattr(model._text_encoder, "_session", spy)
    monkeypatch.setattr("xclip_runtime.text.encoder.TOKENS_AT_ONCE", at_once)

    np.testing.assert_allclose(model.text_embeds(texts[::-1])[::-1], embeds, atol=1e-5)
    assert all(rows == 1 or rows * length <= at_once for rows, length in spy.sizes)


def test_no_text_gives_no_embedding_and_no_logit(model, features):
    assert model.text_embeds([]).shape == (0, 128)
    assert model.prompt_logits(features, model.text_embeds([])).shape == (0,)


# Labels


def test_labels_given_twice_are_kept_with_equal_scores_and_said(model, caplog):
    result = model.with_labels(["a red shape", "a shape", "a red shape"]).classify(DEMO_VIDEO, top_k=None)

    assert sorted(score.label for score in result.labels) == ["a red shape", "a red shape", "a shape"]
    first, second = (score.logit for score in result.labels if score.label == "a red shape")
    assert first == pytest.approx(second, abs=1e-4)
    assert [record.getMessage() for record in caplog.records] == [
        "labels given more than once are kept and share their probability: 'a red shape'"
    ]


def test_one_template_gives_the_embedding_of_its_text_as_it_is(model):
    other = model.with_labels(["red", "blue"], ["a {} shape"])

    np.testing.assert_array_equal(other._texts.embeds, model.text_embeds(["a red shape", "a blue shape"]))


def test_a_template_twice_is_an_ensemble_that_changes_nothing(model):
    once, twice = (model.with_labels(["red", "blue"], ["a {} shape"] * count) for count in (1, 2))

    np.testing.assert_allclose(twice._texts.embeds, once._texts.embeds, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "is empty"),
        (["a", ""], {}, "label 2 of 2 is empty"),
        (["a"], {"template": []}, "no template"),
        (["a"], {"template": ["{}", "a video"]}, "has no {}"),
        (["a " * 90], {}, "has 92 tokens, the model reads at most 77"),
    ],
)
def test_labels_that_cannot_be_encoded_are_refused(model, labels, options, message):
    with pytest.raises(LabelsError, match=message):
        model.with_labels(labels, **options)


def test_labels_that_are_too_long_are_cut_on_request(model):
    other = model.with_labels(["a " * 90, "a " * 80], truncate=True)

    np.testing.assert_array_equal(*other._texts.embeds)


def test_scores_average_over_views_as_classify_does(model):
    reading = Reading(views=Views(2, 1))
    texts = [expected_label(), "a shape"]

    scores = model.score(DEMO_VIDEO, texts, reading=reading)
    result = model.with_labels(texts).classify(DEMO_VIDEO, reading=reading)

    assert {s.text: (s.prob, s.logit) for s in scores.texts} == {s.label: (s.prob, s.logit) for s in result.labels}
    assert len(scores.frames.indices) == 64


def test_without_the_tokenizers_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'xclip-onnx\[text\]'"):
        XClip(DEMO_BUNDLE, device="cpu").score(DEMO_VIDEO, ["a shape"])


def test_a_tokenizer_that_was_changed_is_refused(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    flip_byte(bundle / "tokenizer.json")

    with pytest.raises(BundleCorruptError, match="SHA-256"):
        XClip(bundle, device="cpu").text_embeds(["a shape"])
