from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from motion_demo.train import PHASES, Trainer, main, run

TINY = tuple(replace(phase, steps=2, clips=2, frames=2) for phase in PHASES[:2])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(tmp_path, stop):
    whole, stopped, resumed = Trainer(TINY), Trainer(TINY), Trainer(TINY, seed=1)
    run(whole, tmp_path / "whole.pt", workers=0, rounds=0)

    steps = 0
    while steps < stop:
        stopped.train_step(next(iter(stopped.batches(workers=0))))
        steps += 1
    torch.save(stopped.state(), tmp_path / "stopped.pt")
    resumed.load(torch.load(tmp_path / "stopped.pt", weights_only=True))
    run(resumed, tmp_path / "stopped.pt", workers=0, rounds=0)

    for (name, expected), actual in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, actual), name


def test_training_lowers_the_loss_on_a_batch_seen_again():
    trainer = Trainer((replace(PHASES[0], steps=40, clips=4, frames=2),))
    batch = next(iter(trainer.batches(workers=0)))
    losses = [trainer.train_step(batch)["loss"] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_resuming_nothing_is_refused_with_the_fix(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path), "--resume"])
    assert result.exit_code == 1
    assert "start without --resume" in result.output
