"""Videos to frames: sampling, decoding and preprocessing."""

from xclip_runtime.bundle import Profile
from xclip_runtime.video.frame_reader import Clip
from xclip_runtime.video.options import Decoder, ReadOptions
from xclip_runtime.video.read import read_clip, read_views
from xclip_runtime.video.sampling import Sampling, uniform_indices
from xclip_runtime.video.transforms import FrameTransform, prepare_frames
from xclip_runtime.video.views import Views

__all__ = [
    "Clip",
    "Decoder",
    "FrameTransform",
    "Profile",
    "ReadOptions",
    "Sampling",
    "Views",
    "prepare_frames",
    "read_clip",
    "read_views",
    "uniform_indices",
]
