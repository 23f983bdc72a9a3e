"""Small vision towers of all three patch sizes, and the graphs made of them, to run."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from xclip_export.towers import PromptTower

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = {
    "B/32": {"num_frames": 8, "patch_size": 32, "image_size": 96, "vision_layers": 3, "text_layers": 1},
    "B/16": {"num_frames": 16, "patch_size": 16, "image_size": 64, "vision_layers": 2, "text_layers": 1},
    "L/14": {
        "num_frames": 4,
        "patch_size": 14,
        "image_size": 56,
        "large": True,
        "vision_layers": 2,
        "text_layers": 1,
    },
}


def clips(tower, count, seed=0):
    size = tower.grid * tower.patch_size
    shape = (count, tower.num_frames, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def run(model, pixel_values, *outputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs) or ["video_embeds", "img_features"], {"pixel_values": pixel_values})


@torch.no_grad()
def logits(model, video_embeds, img_features):
    texts = torch.randn(51, video_embeds.shape[1], generator=torch.Generator().manual_seed(2))
    prompt = PromptTower(model).eval()
    return prompt(torch.as_tensor(video_embeds), torch.as_tensor(img_features), texts).numpy()
