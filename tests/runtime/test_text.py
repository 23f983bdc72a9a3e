"""Any words: texts to embeddings and logits without PyTorch, against transformers' own model and tokenizers."""

from __future__ import annotations

import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import FramesError, LabelsError, VideoError
from xclip_runtime.reading import Reading
from xclip_runtime.video import Views, read_views


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

    with pytest.raises(ValueError, match="one view"):
        model.features(DEMO_VIDEO, reading=views)
    with pytest.raises(ValueError, match="one view"):
        model.features_each([DEMO_VIDEO], reading=views)
    with pytest.raises(FramesError, match="2 views"):
        model.features(clip)


def test_the_bundles_own_labels_typed_at_run_time_have_the_embeddings_of_the_export(model):
    embeds = model.text_embeds(model.bundle.labels.texts)

    assert embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, model.bundle.text_embeds, atol=1e-5)


def test_other_labels_share_the_graphs_and_leave_the_model_its_own(model):
    names = [expected_label(), "a shape", "nothing at all"]
    other = model.with_labels(names)

    assert other._vision is model._vision
    assert (other.labels, len(model.labels)) == (tuple(names), 70)
    assert other.classify(DEMO_VIDEO).top.label == expected_label()


@pytest.mark.parametrize("shape", [(128,), (2, 64)])
def test_embeddings_of_another_model_are_refused(model, features, shape):
    with pytest.raises(LabelsError, match=r"\(N, 128\)"):
        model.prompt_logits(features, np.zeros(shape, np.float32))
