"""Each tower equals the part of transformers' X-CLIP that it replaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xclip_export.checkpoint import Checkpoint
from xclip_export.parity import TorchReference
from xclip_export.seeded import outlier_twin, seeded_config, seeded_model
from xclip_export.towers import PromptTower, TextTower, VisionTower

TEXTS = ["brush hair", "ride bike", "flic flac", "a"]

SHAPES = {
    "B/32, 8 frames": {"num_frames": 8, "patch_size": 32, "vision_layers": 3, "text_layers": 2},
    "B/16, 16 frames": {"num_frames": 16, "patch_size": 16, "vision_layers": 2, "text_layers": 1},
    "L/14, 336 pixels": {
        "num_frames": 8,
        "patch_size": 14,
        "image_size": 336,
        "large": True,
        "vision_layers": 2,
        "text_layers": 1,
    },
}


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def reference(request, small):
    model = seeded_model(seeded_config(**request.param))
    checkpoint = Checkpoint(**{**vars(small), "model": model, "config": model.config})
    return TorchReference(checkpoint, TEXTS), checkpoint


@torch.no_grad()
def test_the_towers_together_give_transformers_logits(reference):
    torch_model, checkpoint = reference
    clip = noise((checkpoint.num_frames, checkpoint.image_size, checkpoint.image_size, 3))
    expected = torch_model(clip)

    video, features = VisionTower(checkpoint.model, checkpoint.mean, checkpoint.std).eval()(
        torch.from_numpy(clip[None])
    )
    text = TextTower(checkpoint.model).eval()(checkpoint.tokenize(TEXTS))
    logits = PromptTower(checkpoint.model).eval()(video, features, text)

    np.testing.assert_allclose(video.numpy(), expected.video_embeds, atol=1e-4)
    np.testing.assert_allclose(features.numpy(), expected.img_features, atol=1e-4)
    np.testing.assert_allclose(text.numpy(), expected.text_embeds, atol=1e-4)
    np.testing.assert_allclose(logits.numpy(), expected.logits_per_video, atol=1e-3)


@pytest.fixture(scope="module")
def tower(small):
    return VisionTower(small.model, small.mean, small.std).eval()


@torch.no_grad()
def test_a_batch_gives_what_its_clips_give_alone(tower):
    clips = torch.from_numpy(noise((3, 8, 224, 224, 3)))
    together = tower(clips)

    for i, clip in enumerate(clips):
        for whole, alone in zip(together, tower(clip[None]), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_img_features_do_not_depend_on_the_order_of_frames_but_video_embeds_do(tower):
    clip = torch.from_numpy(noise((1, 8, 224, 224, 3)))
    video, features = tower(clip)
    reversed_video, reversed_features = tower(clip.flip(1))

    torch.testing.assert_close(features, reversed_features, atol=1e-5, rtol=1e-5)
    assert (video - reversed_video).abs().max() > 1e-3


@torch.no_grad()
def test_every_frame_reaches_the_output(tower):
    clip = torch.from_numpy(noise((1, 8, 224, 224, 3)))
    video, _ = tower(clip)

    for frame in range(8):
        changed = clip.clone()
        changed[0, frame] = 255 - changed[0, frame]
        assert (tower(changed)[0] - video).abs().max() > 1e-4, frame


@torch.no_grad()
def test_padding_does_not_change_a_text(small):
    text = TextTower(small.model).eval()

    short = text(small.tokenize(TEXTS))
    padded = text(small.tokenize(TEXTS, pad_to_context=True))

    torch.testing.assert_close(short, padded, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_label_does_not_see_the_other_labels(small):
    prompt = PromptTower(small.model).eval()
    generator = torch.Generator().manual_seed(0)
    video, features, text = (torch.randn(s, generator=generator) for s in ((2, 512), (2, 49, 512), (5, 512)))

    everything = prompt(video, features, text)

    torch.testing.assert_close(prompt(video, features, text[[3, 1]]), everything[:, [3, 1]], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_building_a_tower_leaves_the_checkpoint_as_it_was(small):
    before = {name: p.clone() for name, p in small.model.named_parameters()}
    VisionTower(small.model, small.mean, small.std)
    PromptTower(small.model)
    TextTower(small.model)

    assert all(torch.equal(before[name], p) for name, p in small.model.named_parameters())


@torch.no_grad()
def test_an_outlier_twin_is_the_same_function_with_larger_activations():
    config = seeded_config(num_frames=8, patch_size=32, vision_layers=2, text_layers=1)
    model, twin = seeded_model(config), outlier_twin(seeded_model(config))
    pixels = torch.randn((8, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    peaks = []
    for m in (model, twin):
        hook = m.vision_model.encoder.layers[1].layer_norm2.register_forward_hook(
            lambda _, __, out: peaks.append(out.abs().max())
        )
        m.vision_model(pixels)
        hook.remove()

    torch.testing.assert_close(
        twin.vision_model(pixels).pooler_output, model.vision_model(pixels).pooler_output, atol=1e-3, rtol=1e-3
    )
    assert peaks[1] > 5 * peaks[0]
