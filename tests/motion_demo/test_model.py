import pytest
import torch

from motion_demo.labels import LABELS
from motion_demo.model import (
    PIXEL_MEAN,
    PIXEL_STD,
    build_model,
    encode_frames,
    encode_texts,
    integrate,
    logits_per_video,
    make_config,
)


@pytest.fixture(scope="module")
def model():
    return build_model(make_config(1026), seed=3).eval()


@torch.no_grad()
def test_the_towers_give_what_transformers_gives_on_normalised_pixels(model):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 32, 224, 224, 3), generator=generator, dtype=torch.uint8)
    input_ids = torch.tensor([[1024, 320, 736, 1025], [1024, 320, 1025, 1025]])
    pixel_values = ((frames / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)).movedim(-1, -3)
    expected = model(input_ids=input_ids, pixel_values=pixel_values).logits_per_video

    vision = encode_frames(model, frames)
    video_embeds = integrate(model, vision.frame_embeds, range(32))
    logits = logits_per_video(model, video_embeds, vision.img_features, encode_texts(model, input_ids))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_initial_activations_are_of_order_one(model):
    frames = torch.randint(0, 256, (1, 4, 224, 224, 3), dtype=torch.uint8)
    vision = encode_frames(model, frames)
    for part in vision:
        assert 0.2 < part.std() < 5


def test_equal_seeds_give_equal_weights():
    first, second, other = (build_model(make_config(1026), seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.visual_projection.weight, other.visual_projection.weight)


def test_the_config_names_every_label_in_order():
    config = make_config(1026)
    assert [config.id2label[index] for index in range(len(LABELS))] == [label.text for label in LABELS]
