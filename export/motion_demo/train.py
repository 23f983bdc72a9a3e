"""Train motion-demo from scratch: ``python -m motion_demo.train --out runs/motion``.

Three phases, each with its own optimiser:

1. single frames: regress position, size and direction of the shape, and classify its colour;
2. clips of 8 frames: contrastive over the texts of the seen pairs and of single colours and motions, and the heads;
3. clips of 32 frames, as the model is used: the same at a lower learning rate.

The auxiliary heads are dropped at the end.

Steps allocate and free hundreds of megabytes. Where memory is slow to allocate, as in virtual machines, let glibc keep
it: ``MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592``.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from torch import nn

from motion_demo.checkpoint import write_checkpoint
from motion_demo.data import Batch, Batches, covered_patches
from motion_demo.labels import COLOUR_TEXTS, COLOURS, LABELS, MOTION_TEXTS, SEEN
from motion_demo.model import (
    MAX_LOGIT_SCALE,
    NUM_FRAMES,
    WIDTH,
    build_model,
    encode_frames,
    encode_texts,
    integrate,
    logits_per_video,
    make_config,
)
from motion_demo.scenes import VALIDATION_SEEDS, render, sample_scene
from motion_demo.tokenizer import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import CLIPTokenizerFast, XCLIPModel


@dataclass(frozen=True)
class Phase:
    """Phase of training.

    Attributes:
        name: For the log.
        steps: Number of batches.
        clips: Clips a batch.
        frames: Frames a clip, a divisor of 32.
        learning_rate: Peak; warmed up linearly, then a cosine to nothing.
        contrastive: Whether clips are compared with texts; otherwise each frame is seen alone.
    """

    name: str
    steps: int
    clips: int
    frames: int
    learning_rate: float
    contrastive: bool


PHASES = (
    Phase("frames", steps=800, clips=64, frames=2, learning_rate=1e-3, contrastive=False),
    Phase("8-frame clips", steps=1000, clips=32, frames=8, learning_rate=1e-3, contrastive=True),
    Phase("32-frame clips", steps=160, clips=16, frames=32, learning_rate=2.5e-4, contrastive=True),
)

# In the order in which `Trainer` splits its logits. No text of a held-out pair is among them: as permanent wrong
# answers they would be pushed away from everything.
TRAINING_TEXTS = (*(label.text for label in SEEN), *COLOUR_TEXTS, *MOTION_TEXTS)

_WARM_UP = 50
_LOG_EVERY = 25
_SAVE_EVERY = 100
_VALIDATE_EVERY = 200
# Clips of one phase have seeds of their own: 2**27 holds any schedule.
_SEEDS_A_PHASE = 2**27


class Heads(nn.Module):
    """Auxiliary heads, for training only: pose and colour from frames, coverage from patches."""

    def __init__(self) -> None:
        super().__init__()
        self.pose = nn.Linear(WIDTH, 5)
        self.colour = nn.Linear(WIDTH, len(COLOURS))
        self.covered = nn.Linear(WIDTH, 2)


class Trainer:
    """Model, optimiser and place in the schedule.

    Args:
        phases: The schedule.
        seed: Seed of the initial weights.
    """

    def __init__(self, phases: Sequence[Phase] = PHASES, seed: int = 0) -> None:
        self.phases = phases
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = write_tokenizer(Path(folder))
        torch.manual_seed(seed)
        self.heads = Heads()
        self.model: XCLIPModel = build_model(make_config(len(tokenizer)), seed).train()
        self.training_ids = _token_ids(tokenizer, TRAINING_TEXTS)
        self.all_ids = _token_ids(tokenizer, [label.text for label in LABELS])
        self.phase, self.step = 0, 0
        self.optimizer = self._make_optimizer()

    def state(self) -> dict[str, Any]:
        """Return the complete training state, for `load`."""
        return {
            "phase": self.phase,
            "step": self.step,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.phase, self.step = state["phase"], state["step"]
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])

    def batches(self, workers: int) -> Iterable[Batch]:
        """Return the batches that remain in the current phase."""
        phase = self.phases[self.phase]
        data = Batches(first_seed=self.phase * _SEEDS_A_PHASE, clips=phase.clips, frames=phase.frames)
        steps = range(self.step, phase.steps)
        return torch.utils.data.DataLoader(data, batch_size=None, sampler=steps, num_workers=workers)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Train on one batch, and advance in the schedule.

        Returns:
            Loss and accuracies, for the log.
        """
        phase = self.phases[self.phase]
        rate = _learning_rate(self.step, phase)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, figures = self._contrastive_loss(batch) if phase.contrastive else self._frame_loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        self.step += 1
        if self.step == phase.steps and self.phase + 1 < len(self.phases):
            self.phase, self.step = self.phase + 1, 0
            self.optimizer = self._make_optimizer()
        return {"loss": loss.item(), **{name: value.item() for name, value in figures.items()}}

    @torch.no_grad()
    def validate(self, clips: torch.Tensor, positions: list[int]) -> dict[str, float]:
        """Classify one clip a label among all labels, seen and held out.

        Args:
            clips: (rounds * labels, T, 224, 224, 3) uint8, in label order.
            positions: The T temporal positions.
        """
        self.model.eval()
        guesses = []
        with torch.autocast("cpu", dtype=torch.bfloat16):
            text_embeds = encode_texts(self.model, self.all_ids)
            for part in torch.split(clips, 32):
                vision = encode_frames(self.model, part)
                video_embeds = integrate(self.model, vision.frame_embeds, positions)
                logits = logits_per_video(self.model, video_embeds, vision.img_features, text_embeds)
                guesses.append(logits.argmax(dim=1))
        self.model.train()
        right = (torch.cat(guesses) == torch.arange(len(clips)) % len(LABELS)).float().view(-1, len(LABELS))
        seen = torch.tensor([label in SEEN for label in LABELS])
        return {"seen": right[:, seen].mean().item(), "held out": right[:, ~seen].mean().item()}

    def _frame_loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        alone = encode_frames(self.model, batch.frames.flatten(0, 1)[:, None])
        clips, frames = batch.frames.shape[:2]
        frame_embeds = alone.frame_embeds.reshape(clips, frames, -1)
        patch_states = alone.patches.reshape(clips, frames, *alone.patches.shape[2:])
        whereabouts, figures = self._whereabouts_loss(frame_embeds, patch_states, batch)
        logits = self.heads.colour(frame_embeds).float().flatten(0, 1)
        colour = nn.functional.cross_entropy(logits, batch.colours.repeat_interleave(frames))
        return whereabouts + colour, {**figures, "colour": colour}

    def _contrastive_loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        vision = encode_frames(self.model, batch.frames)
        video_embeds = integrate(self.model, vision.frame_embeds, batch.positions)
        text_embeds = encode_texts(self.model, self.training_ids)
        logits = logits_per_video(self.model, video_embeds, vision.img_features, text_embeds).float()
        pairs, colours, motions = torch.split(logits, [len(SEEN), len(COLOUR_TEXTS), len(MOTION_TEXTS)], dim=1)
        contrast = nn.functional.cross_entropy(pairs, batch.pairs)
        words = nn.functional.cross_entropy(colours, batch.colours) + nn.functional.cross_entropy(
            motions, batch.motions
        )
        whereabouts, figures = self._whereabouts_loss(vision.frame_embeds, vision.patches, batch)
        return contrast + 0.5 * words + 0.5 * whereabouts, {
            **figures,
            "contrast": contrast,
            "pair": (pairs.argmax(dim=1) == batch.pairs).float().mean(),
            "motion": (motions.argmax(dim=1) == batch.motions).float().mean(),
        }

    def _whereabouts_loss(
        self, frame_embeds: torch.Tensor, patch_states: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the auxiliary losses; without the coverage of patches, position is learned late."""
        poses = self.heads.pose(frame_embeds).float()
        place = nn.functional.smooth_l1_loss(poses[..., :3], batch.poses[..., :3])
        head = nn.functional.smooth_l1_loss(poses[..., 3:], batch.poses[..., 3:])
        covered = self.heads.covered(patch_states).float()
        cover = nn.functional.binary_cross_entropy_with_logits(covered, covered_patches(batch.poses))
        return 20 * place + 40 * head + 6 * cover, {"place": place, "head": head, "cover": cover}

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Make AdamW; the multi-frame integration has twice the learning rate, as it is shallow and comes last."""
        mit = list(self.model.mit.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("mit.")]
        groups = [{"params": [*rest, *self.heads.parameters()], "scale": 1.0}, {"params": mit, "scale": 2.0}]
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)


def _token_ids(tokenizer: CLIPTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    ids: torch.Tensor = tokenizer(list(texts), padding=True, return_tensors="pt").input_ids
    return ids


def _learning_rate(step: int, phase: Phase) -> float:
    warm_up = min(_WARM_UP, phase.steps // 2)
    if step < warm_up:
        return phase.learning_rate * (step + 1) / warm_up
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (phase.steps - warm_up)))


def _validation_clips(positions: list[int], rounds: int) -> torch.Tensor:
    times = (np.array(positions) + 0.5) / NUM_FRAMES
    seeds = iter(VALIDATION_SEEDS)
    clips = [render(sample_scene(next(seeds), label), times) for _ in range(rounds) for label in LABELS]
    return torch.from_numpy(np.stack(clips))


def _save(state: dict[str, Any], path: Path) -> None:
    """Replace the file atomically, so that an interrupt while writing loses nothing."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _averages(rows: Sequence[dict[str, float]]) -> str:
    return "  ".join(f"{name} {sum(row[name] for row in rows) / len(rows):.3f}" for name in rows[-1])


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the last state in that folder.")
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of the network.")
@click.option("--workers", default=1, show_default=True, help="Processes that render clips.")
def main(out: Path, resume: bool, seed: int, threads: int, workers: int) -> None:
    """Train motion-demo and write OUT/checkpoint; less than an hour on two cores."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    trainer = Trainer(seed=seed)
    state = out / "state.pt"
    if resume:
        if not state.is_file():
            message = f"{state} is missing: start without --resume"
            raise click.ClickException(message)
        trainer.load(torch.load(state, weights_only=True))
    run(trainer, state, workers=workers)
    write_checkpoint(trainer.model.state_dict(), out / "checkpoint")
    click.echo(f"wrote {out / 'checkpoint'}")


def run(trainer: Trainer, state: Path, *, workers: int, rounds: int = 2) -> None:
    """Train to the end of the schedule, saving and reporting on the way.

    Args:
        trainer: Where to start from.
        state: The file to save to.
        workers: Processes that render clips; 0 renders in this one.
        rounds: Validation clips a label; 0 leaves validation out.
    """
    positions = list(range(2, NUM_FRAMES, 4))
    validation = _validation_clips(positions, rounds) if rounds else None
    for index in range(trainer.phase, len(trainer.phases)):
        phase = trainer.phases[index]
        recent: deque[dict[str, float]] = deque(maxlen=_LOG_EVERY)
        started, first = time.monotonic(), trainer.step
        for step, batch in enumerate(trainer.batches(workers), start=first + 1):
            recent.append(trainer.train_step(batch))
            last = step == phase.steps
            if last or step % _LOG_EVERY == 0:
                left = (time.monotonic() - started) / (step - first) * (phase.steps - step) / 60
                click.echo(f"{phase.name} {step}/{phase.steps}  {_averages(recent)}  {left:.1f} min left")
            if last or step % _SAVE_EVERY == 0:
                _save(trainer.state(), state)
            if validation is not None and phase.contrastive and (last or step % _VALIDATE_EVERY == 0):
                scores = trainer.validate(validation, positions)
                click.echo("  ".join(f"{name} {score:.1%}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
