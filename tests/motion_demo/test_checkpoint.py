import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizerFast, VideoMAEImageProcessor, XCLIPModel

from motion_demo.checkpoint import CHECKPOINT, write_checkpoint
from motion_demo.labels import HELD_OUT, LABELS, MOTIONS, SEEN
from motion_demo.model import NUM_FRAMES, build_model, make_config
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene


@pytest.fixture(scope="module")
def model():
    return XCLIPModel.from_pretrained(CHECKPOINT).eval()


@torch.no_grad()
def classify(model, clips):
    """Logits (B, N) of transformers' own forward over all labels, from (B, T, H, W, 3) uint8 clips."""
    tokenizer = CLIPTokenizerFast.from_pretrained(CHECKPOINT)
    processor = VideoMAEImageProcessor.from_pretrained(CHECKPOINT)
    input_ids = tokenizer([label.text for label in LABELS], padding=True, return_tensors="pt").input_ids
    pixel_values = processor([list(clip) for clip in clips], return_tensors="pt").pixel_values
    return model(input_ids=input_ids, pixel_values=pixel_values).logits_per_video


def render_each(labels, first_seed):
    times = frame_times(NUM_FRAMES)
    return np.stack([render(sample_scene(first_seed + k, label), times) for k, label in enumerate(labels)])


def test_the_config_is_that_of_a_full_xclip_and_names_the_labels(model):
    config = json.loads((CHECKPOINT / "config.json").read_text("utf-8"))
    assert config["model_type"] == "xclip"
    assert config["vision_config"]["num_frames"] == NUM_FRAMES
    assert [model.config.id2label[index] for index in range(len(LABELS))] == [label.text for label in LABELS]


def test_weights_are_fp16_and_small():
    weights = load_file(CHECKPOINT / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 5_000_000


def test_the_scale_of_the_logits_stays_within_clips(model):
    assert 1 < model.logit_scale.exp() <= 100.1


def test_fresh_clips_of_every_motion_are_recognised(model):
    labels = [next(label for label in SEEN[k:] if label.motion == motion) for k, motion in enumerate(MOTIONS)]
    guesses = classify(model, render_each(labels, EVALUATION_SEEDS.start)).argmax(dim=1)
    right = sum(LABELS[guess] == label for guess, label in zip(guesses, labels, strict=True))
    assert right >= 9


def test_pairs_that_were_never_trained_are_recognised(model):
    guesses = classify(model, render_each(HELD_OUT, EVALUATION_SEEDS.start)).argmax(dim=1)
    right = sum(LABELS[guess] == label for guess, label in zip(guesses, HELD_OUT, strict=True))
    # One in seventy would be chance.
    assert right >= 7


def test_frames_in_reverse_turn_left_into_right(model):
    left, right = (next(label for label in SEEN if label.motion == motion) for motion in ("left", "right"))
    clip = render_each([left], EVALUATION_SEEDS.start)
    backwards = LABELS[classify(model, clip[:, ::-1])[0].argmax()]
    assert (backwards.colour, backwards.motion) == (left.colour, right.motion)


def test_writing_keeps_weights_to_half_precision(tmp_path):
    written = build_model(make_config(1026), seed=0)
    write_checkpoint(written.state_dict(), tmp_path)
    read = XCLIPModel.from_pretrained(tmp_path)
    for (name, expected), actual in zip(written.state_dict().items(), read.state_dict().values(), strict=True):
        torch.testing.assert_close(actual, expected.half().float(), rtol=0, atol=0, msg=name)
