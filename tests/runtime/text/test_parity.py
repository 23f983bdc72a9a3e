"""Every number that comes from text equals the one that transformers computes from the same words and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xclip_export.checkpoint import load_checkpoint
from xclip_export.parity import Outputs, TorchReference
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.video import read_clip

CHECKPOINT = Path(__file__).parents[3] / "export/motion_demo/checkpoint"
TEMPLATES = ("{}", "a video of {}", "{}, seen from above")
NAMES = ("a red shape moving left", "an orange shape circling", "nothing", "Üñí 😀 &amp;", "a " * 70)


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def frames(model):
    return read_clip(DEMO_VIDEO, num_frames=32, transform=model.transform).frames


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(str(CHECKPOINT))


@torch.no_grad()
def torch_embeds(checkpoint, texts):
    tokens = checkpoint.tokenizer(
        list(texts), return_tensors="pt", padding="max_length", truncation=True, max_length=77
    )
    return checkpoint.model.get_text_features(**tokens)


@torch.no_grad()
def torch_logits(checkpoint, frames, text_embeds):
    """Logits of given text embeddings, by the checkpoint's own prompt generator; (N,)."""
    reference = TorchReference(checkpoint, ["a"])
    seen = reference(frames)
    return reference.logits(Outputs(seen.video_embeds, seen.img_features, text_embeds, seen.logits_per_video))[0]


def torch_ensemble(embeds):
    """CLIP's zero-shot weights at the mean length of the embeddings (K, N, D) that went in."""
    mean = torch.nn.functional.normalize(embeds, dim=-1).mean(dim=0)
    return torch.nn.functional.normalize(mean, dim=-1) * embeds.norm(dim=-1, keepdim=True).mean(dim=0)


def logits_by_label(result):
    return {score.label: score.logit for score in result.labels}


def test_embeddings_are_those_of_get_text_features(model, checkpoint):
    texts = [*NAMES, "", "a " * 75]

    np.testing.assert_allclose(model.text_embeds(texts), torch_embeds(checkpoint, texts), atol=1e-5)


def test_a_text_that_is_cut_has_the_embedding_that_transformers_gives_it(model, checkpoint):
    texts = ["a red shape " * 60, "moving left " * 90]

    np.testing.assert_allclose(model.text_embeds(texts, truncate=True), torch_embeds(checkpoint, texts), atol=1e-5)


def test_typed_labels_have_the_logits_of_the_whole_model_in_transformers(model, checkpoint, frames):
    expected = TorchReference(checkpoint, NAMES)(frames).logits_per_video[0]

    result = model.with_labels(NAMES).classify(DEMO_VIDEO, top_k=None)

    assert logits_by_label(result) == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-3)


def test_scores_are_the_cosines_and_logits_of_the_whole_model_in_transformers(model, checkpoint, frames):
    expected = TorchReference(checkpoint, NAMES)(frames).logits_per_video[0]

    scores = model.score(DEMO_VIDEO, NAMES)

    assert [score.text for score in scores.texts] == list(NAMES)
    np.testing.assert_allclose([score.logit for score in scores.texts], expected, atol=1e-3)
    scale = checkpoint.model.logit_scale.exp().item()
    np.testing.assert_allclose([score.cosine for score in scores.texts], expected / scale, atol=1e-4)
    np.testing.assert_allclose([score.prob for score in scores.texts], torch.tensor(expected).softmax(0), atol=1e-4)


def test_an_ensemble_is_averaged_as_clip_does_it_and_the_prompts_come_from_the_average(model, checkpoint, frames):
    names = NAMES[:-1]
    each = torch.stack([torch_embeds(checkpoint, [t.replace("{}", n) for n in names]) for t in TEMPLATES])
    expected = torch_logits(checkpoint, frames, torch_ensemble(each).numpy())

    result = model.with_labels(names, TEMPLATES).classify(DEMO_VIDEO, top_k=None)

    assert logits_by_label(result) == pytest.approx(dict(zip(names, expected.tolist(), strict=True)), abs=1e-3)


def test_features_kept_as_float16_score_almost_as_exactly(model, checkpoint, frames):
    features = model.features(DEMO_VIDEO)
    expected = TorchReference(checkpoint, model.labels)(frames).logits_per_video[0]
    stored = type(features)(features.unit_embeds, features.img_features.astype(np.float16))

    logits = model.prompt_logits(stored, model.text_embeds(model.labels))

    np.testing.assert_allclose(logits, expected, atol=0.005)
