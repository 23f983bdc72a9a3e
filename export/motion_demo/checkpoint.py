"""The trained model as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import XCLIPModel

from motion_demo.model import PIXEL_MEAN, PIXEL_STD, make_config
from motion_demo.tokenizer import write_tokenizer
from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

# The trained model in this tree.
CHECKPOINT = Path(__file__).parent / "checkpoint"

# As in the published X-CLIP checkpoints.
_PREPROCESSOR = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": PIXEL_MEAN,
    "image_std": PIXEL_STD,
    "resample": 2,
    "size": 224,
}


def write_checkpoint(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write config, fp16 weights, tokenizer and preprocessor.

    Args:
        weights: The model's state dict.
        folder: Made if missing; files in it are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    model = XCLIPModel(make_config(len(tokenizer)))
    model.load_state_dict(weights)
    model.half().save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
