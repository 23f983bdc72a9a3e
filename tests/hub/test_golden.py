"""The published checkpoints, whose answers transformers' conversion script states. Needs the network:

pytest -m hub tests/hub
"""

from __future__ import annotations

import numpy as np
import pytest

from xclip_export import export_bundle
from xclip_runtime import XClip

pytestmark = [pytest.mark.hub, pytest.mark.timeout(3600)]

TEXTS = ["playing sports", "eating spaghetti", "go shopping"]
CLIPS = {8: "eating_spaghetti_8_frames.npy", 16: "eating_spaghetti.npy", 32: "eating_spaghetti_32_frames.npy"}

# Frames and softmax over TEXTS on the spaghetti clip, stated with a tolerance of 1e-3.
GOLDEN = {
    "microsoft/xclip-base-patch16-hmdb-2-shot": (32, [7.1890e-6, 9.9994e-1, 5.6559e-5]),
    "microsoft/xclip-base-patch32": (8, [0.0019, 0.9951, 0.0030]),
    "microsoft/xclip-base-patch16-16-frames": (16, [7.6937e-4, 9.9728e-1, 1.9473e-3]),
    "microsoft/xclip-large-patch14": (8, [0.0062, 0.9864, 0.0075]),
}

# transformers' own integration test of xclip-base-patch32 on the same clip.
BASE_PATCH32_LOGITS = [14.0181, 20.2771, 14.4776]


def spaghetti(num_frames: int) -> np.ndarray:
    """The clip as RGB frames, (T, H, W, 3) uint8."""
    from huggingface_hub import hf_hub_download

    path = hf_hub_download("hf-internal-testing/spaghetti-video", CLIPS[num_frames], repo_type="dataset")
    return np.load(path)


@pytest.fixture(scope="module", params=GOLDEN)
def classified(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    (folder / "labels.txt").write_text("\n".join(TEXTS))
    export_bundle(request.param, folder / "bundle", labels_file=str(folder / "labels.txt"))
    num_frames, probs = GOLDEN[request.param]
    # The stated values were made with transformers' preprocessing.
    result = XClip(folder / "bundle", profile="hf").classify(spaghetti(num_frames), top_k=None)
    by_label = {score.label: score for score in result.labels}
    return request.param, [by_label[text] for text in TEXTS], probs


def test_probabilities_are_those_that_transformers_states(classified):
    _, scores, probs = classified

    np.testing.assert_allclose([s.prob for s in scores], probs, atol=1e-3)


def test_the_gaps_between_logits_agree_far_below_that_tolerance(classified):
    _, scores, probs = classified
    gaps = [scores[0].logit - scores[1].logit, scores[2].logit - scores[1].logit]

    # The stated probabilities have two to five digits.
    np.testing.assert_allclose(gaps, np.log([probs[0] / probs[1], probs[2] / probs[1]]), atol=0.05)


def test_base_patch32_gives_the_logits_of_transformers_integration_test(classified):
    name, scores, _ = classified
    if name == "microsoft/xclip-base-patch32":
        np.testing.assert_allclose([s.logit for s in scores], BASE_PATCH32_LOGITS, atol=0.05)
