"""An evaluation is the published protocol: the same numbers as a few lines of torch and transformers."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPTokenizerFast, XCLIPModel

from motion_demo.checkpoint import CHECKPOINT
from motion_demo.labels import LABELS
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.evaluation.datasets import find_samples, with_labels_of
from xclip_runtime.evaluation.report import accuracy, comparison
from xclip_runtime.evaluation.runner import evaluate

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def fp32():
    return XClip(DEMO_BUNDLE, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def int8():
    return XClip(DEMO_BUNDLE, device="cpu", precision="int8")


@pytest.fixture(scope="module")
def samples(miniature, fp32):
    return with_labels_of(find_samples(miniature), fp32.labels)


@torch.no_grad()
def ranked_by_transformers(video):
    """All label texts, best first: PyAV, VideoX's validation pipeline and transformers' own forward."""
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    clip = []
    for i in range(32):
        frame = frames[(2 * i + 1) * len(frames) // 64]
        factor = 256 / min(frame.shape[:2])
        width, height = (int(side * factor + 0.5) for side in frame.shape[1::-1])
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = (height - 224) // 2, (width - 224) // 2
        clip.append((frame[top : top + 224, left : left + 224] / 255 - MEAN) / STD)
    pixel_values = torch.tensor(np.stack(clip), dtype=torch.float32).permute(0, 3, 1, 2)[None]
    tokenizer = CLIPTokenizerFast.from_pretrained(CHECKPOINT)
    input_ids = tokenizer([label.text for label in LABELS], padding=True, return_tensors="pt").input_ids
    logits = (
        XCLIPModel.from_pretrained(CHECKPOINT).eval()(input_ids=input_ids, pixel_values=pixel_values).logits_per_video
    )
    return [LABELS[i].text for i in logits[0].argsort(descending=True)]


def test_the_numbers_are_those_of_torch_and_transformers(miniature, fp32, samples):
    outcomes = list(evaluate([fp32], samples))
    report = accuracy(outcomes, "fp32")
    truths, ranked = [], []
    for folder in sorted(path for path in miniature.iterdir() if path.name.startswith("a_")):
        for video in sorted(folder.iterdir()):
            if video.name not in ("decoy.avi", "unused.avi"):
                truths.append(folder.name.replace("_", " "))
                ranked.append(ranked_by_transformers(str(video)))

    assert report["n"] == len(truths) == 9
    assert report["top1"] == np.mean([truth == answers[0] for truth, answers in zip(truths, ranked, strict=True)])
    assert report["top5"] == np.mean([truth in answers[:5] for truth, answers in zip(truths, ranked, strict=True)])
    assert 0 < report["top1"] < 1
    assert [outcome.answers["fp32"].labels for outcome in outcomes] == [tuple(answers[:5]) for answers in ranked]


def test_two_precisions_see_the_same_frames_and_are_read_once(fp32, int8, samples, monkeypatch):
    from xclip_runtime.video import processes

    read = []
    original = processes.read_video
    monkeypatch.setattr(processes, "read_video", lambda video, *rest: read.append(video) or original(video, *rest))
    both = list(evaluate([fp32, int8], samples[:4], workers=1))

    assert sorted(read) == sorted(sample.video for sample in samples[:4])
    alone = [o.answers["int8"] for o in evaluate([int8], samples[:4])]
    assert [outcome.answers["int8"] for outcome in both] == alone
    assert all(0 < outcome.logit_error < 2 for outcome in both)
    assert comparison(both, "fp32", "int8")["n"] == 4


def test_a_video_that_cannot_be_read_has_an_error_in_its_place(fp32, samples, miniature):
    from xclip_runtime.evaluation.datasets import Sample

    broken = Sample(str(miniature / "a_red_shape_moving_left/decoy.avi"), samples[0].label)
    first, second = evaluate([fp32], [broken, samples[0]])

    assert first.error["type"] == "VideoDecodeError"
    assert second.answers["fp32"].rank == 1
