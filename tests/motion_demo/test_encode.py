from fractions import Fraction

import av
import numpy as np
import pytest

from motion_demo.encode import write_video
from motion_demo.labels import SEEN, Label
from motion_demo.sample import SAMPLE_LABEL, write_sample
from motion_demo.scenes import frame_times, render, sample_scene


@pytest.fixture(scope="module")
def clip():
    return render(sample_scene(0, Label("red", "left")), frame_times(12), size=(128, 192), scale=0.5)


def test_a_video_holds_the_frames_it_was_given(tmp_path, clip):
    write_video(tmp_path / "clip.mp4", clip, Fraction(30000, 1001))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == Fraction(30000, 1001)
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == clip.shape
    assert np.abs(decoded.astype(int) - clip).mean() < 6


def test_a_lower_rate_factor_keeps_more(tmp_path, clip):
    for crf in (10, 40):
        write_video(tmp_path / f"{crf}.mp4", clip, 25, crf=crf)
    assert (tmp_path / "10.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size


def test_other_codecs_and_containers_work(tmp_path, clip):
    write_video(tmp_path / "clip.avi", clip, 25, codec="mpeg4")
    with av.open(str(tmp_path / "clip.avi")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="pass uint8"):
        write_video(tmp_path / "clip.mp4", frames, 25)


def test_the_sample_is_small_and_of_a_seen_pair(tmp_path):
    write_sample(tmp_path / "sample.mp4")
    assert (tmp_path / "sample.mp4").stat().st_size < 300_000
    assert SAMPLE_LABEL in SEEN
