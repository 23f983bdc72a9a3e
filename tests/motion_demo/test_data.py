import numpy as np
import pytest
import torch

from motion_demo.data import Batches, covered_patches, degrade, make_batch, sample_positions
from motion_demo.model import NUM_FRAMES
from motion_demo.scenes import VALIDATION_SEEDS


def test_a_step_always_gives_the_same_batch():
    first, second = (Batches(first_seed=5, clips=2, frames=2)[9] for _ in range(2))
    assert first.positions == second.positions
    for one, other in zip(first[:-1], second[:-1], strict=True):
        assert torch.equal(one, other)


def test_steps_share_no_clip():
    data = Batches(first_seed=0, clips=2, frames=1)
    assert not torch.equal(data[0].frames, data[1].frames)


def test_a_batch_knows_shape_and_pose_of_every_frame():
    batch = make_batch([1, 2, 3], positions=[0, 31])
    assert batch.frames.shape == (3, 2, 224, 224, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.poses.shape == (3, 2, 5)
    # The head sits 0.6 radii from the centre, whichever way it points.
    radius = batch.poses[..., 2].exp() * 36 / 112
    torch.testing.assert_close(torch.hypot(batch.poses[..., 3], batch.poses[..., 4]), 0.6 * radius)


def test_poses_say_where_the_coloured_pixels_are():
    batch = make_batch(range(20), positions=[16])
    for frame, pose in zip(batch.frames[:, 0], batch.poses[:, 0].tolist(), strict=True):
        # Blurring and tone may take the edge off the colours, so the most coloured pixels have to do.
        chroma = np.ptp(frame.numpy().astype(int), axis=-1)
        y, x = np.argwhere(chroma >= np.quantile(chroma, 0.995)).mean(axis=0)
        assert np.hypot(x / 112 - 1 - pose[0], y / 112 - 1 - pose[1]) < 0.25


def test_seeds_kept_for_validation_are_refused():
    with pytest.raises(ValueError, match="smaller first_seed"):
        make_batch([VALIDATION_SEEDS.start], positions=[0])


@pytest.mark.parametrize("num_frames", [1, 2, 4, 8, 16, 32])
def test_positions_take_one_of_each_equal_part(num_frames):
    positions = sample_positions(np.random.default_rng(0), num_frames)
    assert [position * num_frames // NUM_FRAMES for position in positions] == list(range(num_frames))


def test_a_small_shape_in_the_first_corner_covers_the_first_patch_alone():
    covered = covered_patches(torch.tensor([-6 / 7, -6 / 7, np.log(0.4), 0.0, 0.0]))
    assert covered[:, 0].tolist() == [1.0] + [0.0] * 48


def test_patches_run_by_row_and_tell_shape_from_head():
    covered = covered_patches(torch.tensor([4 / 7, 0.0, np.log(0.8), 2 / 7, 2 / 7]))
    assert covered[:, 0].nonzero().flatten().tolist() == [3 * 7 + 5]
    assert covered[:, 1].nonzero().flatten().tolist() == [4 * 7 + 6]


def test_degrading_changes_clips_but_not_beyond_recognition():
    frames = np.random.default_rng(0).integers(60, 200, (3, 28, 28, 3)).astype(np.uint8)
    frames = np.kron(frames, np.ones((1, 8, 8, 1), np.uint8))
    degraded = [degrade(np.random.default_rng(seed), frames) for seed in range(30)]
    assert any((clip != frames).any() for clip in degraded)
    for clip in degraded:
        assert clip.shape == frames.shape
        assert clip.dtype == np.uint8
        assert np.corrcoef(clip.ravel(), frames.ravel())[0, 1] > 0.9
