"""Tune a bundle for this machine: measure, report, and save for device "auto"."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import DeviceError
from xclip_runtime.inference.auto import MAX_LOGIT_ERROR, check_max_logit_error
from xclip_runtime.inference.tuning_file import Setting, Tuning, machine_key, save_tuning
from xclip_runtime.tuning.candidates import candidates, installed_devices
from xclip_runtime.tuning.clips import calibration_clips
from xclip_runtime.tuning.engine import EngineError, EngineProcess
from xclip_runtime.tuning.measurement import Rounds, measure
from xclip_runtime.tuning.report import Row, rows_of
from xclip_runtime.tuning.roofline import clip_gflop
from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.util.memory import available_memory
from xclip_runtime.util.system_errors import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xclip_runtime.tuning.candidates import Candidate
    from xclip_runtime.tuning.measurement import Runner

SCHEMA = 1
BUDGET = 120.0
"""Default time budget, in seconds."""
ROUNDS = 10


@dataclass(frozen=True)
class TuningReport:
    """Result of a tuning."""

    bundle: str
    rows: tuple[Row, ...]
    """One for each candidate, fastest first, those with a problem last."""
    reference: str
    """Setting that the errors are relative to."""
    gflop_per_clip: float | None
    rounds: Rounds
    date: str
    machine: dict[str, Any]
    """Key of the tuning: what it depends on."""
    max_logit_error: float
    chosen: Setting | None
    """The setting that device "auto" takes from now on for ``max_logit_error``; None for the default."""
    saved: str | None
    """File of the tuning; None if it could not be saved."""
    not_saved: str | None
    """Reason for that."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``--json`` document."""
        chosen = self.chosen
        return {
            "tune_schema": SCHEMA,
            "bundle": self.bundle,
            "date": self.date,
            "machine": self.machine,
            "reference": self.reference,
            "gflop_per_clip": self.gflop_per_clip,
            "rounds": self.rounds.done,
            "rounds_planned": self.rounds.planned,
            "budget_cut_rounds": self.rounds.cut,
            "seconds": self.rounds.seconds,
            "candidates": [row.to_dict() for row in self.rows],
            "max_logit_error": self.max_logit_error,
            "chosen": None
            if chosen is None
            else {
                "device": chosen.device,
                "precision": chosen.precision,
                "threads": chosen.threads,
            },
            "saved": self.saved,
            "not_saved": self.not_saved,
        }


def tune(
    bundle: str | os.PathLike[str],
    *,
    videos: Sequence[str] = (),
    budget: float = BUDGET,
    max_logit_error: float = MAX_LOGIT_ERROR,
    progress: Callable[[str], object] = lambda _: None,
) -> TuningReport:
    """Measure every engine, precision and thread setting that this machine and a bundle have, and save the result.

    Args:
        bundle: As for `xclip_runtime.XClip`.
        videos: Files to calibrate with, beside the built-in clips.
        budget: Time for the measurement, in seconds.
        max_logit_error: Largest |Δlogit| to fp32 of the setting that is reported as chosen.
        progress: Called with a line before each turn.

    Raises:
        BundleError: The bundle cannot be used.
        DeviceError: No candidate fits into memory, or none can be measured.
        VideoError: A video cannot be read.
    """
    check_max_logit_error(max_logit_error)
    progress("reading the calibration clips")
    opened = Bundle.open(bundle)
    devices = installed_devices()
    found = candidates(opened, devices, available_cpus())
    if not found:
        message = f"{opened.path} has no vision graph for the devices that are here ({', '.join(devices)}): see info"
        raise DeviceError(message)
    clips = calibration_clips(opened, videos)
    if opened.repository is not None:
        graphs = {graph.name: graph for graph in (opened.graph("prompt", "fp32"), *(each.graph for each in found))}
        for graph in graphs.values():
            opened.checked_graph(graph)  # a download is not load time
    with tempfile.TemporaryDirectory(prefix="xclip-onnx-tune-") as folder:
        file = Path(folder) / "clips.npy"
        np.save(file, clips)
        rounds = _measure(found, os.fspath(bundle), str(file), len(clips), budget=budget, progress=progress)
    gflop = clip_gflop(opened)
    rows, reference = rows_of(rounds.measurements, opened.manifest["golden_logits"], gflop)
    settings = [setting for setting in map(_setting, rows) if setting is not None]
    if not settings:
        message = f"nothing could be measured, the first reason is: {rows[0].problem}"
        raise DeviceError(message)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    saved, not_saved = None, None
    try:
        saved = str(save_tuning(opened, date, settings))
    except OSError as error:
        not_saved = explain(error)
    except DeviceError as error:
        not_saved = str(error)
    chosen = Tuning(date, tuple(settings)).fastest(max_logit_error)
    name, key = str(opened.path), machine_key(opened)
    return TuningReport(name, rows, reference, gflop, rounds, date, key, max_logit_error, chosen, saved, not_saved)


def _measure(
    found: Sequence[Candidate],
    bundle: str,
    clips: str,
    count: int,
    *,
    budget: float,
    progress: Callable[[str], object],
) -> Rounds:
    memory = available_memory()
    fitting = [candidate.memory for candidate in found if memory is None or candidate.memory <= memory]
    if not fitting:
        least = min(candidate.memory for candidate in found)
        message = (
            f"no engine fits: the smallest needs about {least / 1e6:.0f} MB, {(memory or 0) / 1e6:.0f} MB are left: "
            "free memory, or raise the container's limit"
        )
        raise DeviceError(message)
    return measure(
        found,
        partial(_start, bundle, clips, memory),
        clips=count,
        rounds=max(ROUNDS, count),
        budget=budget,
        together=memory is None or sum(fitting) <= memory,
        progress=progress,
    )


def _start(bundle: str, clips: str, memory: int | None, candidate: Candidate, seconds: float) -> Runner:
    if memory is not None and candidate.memory > memory:
        message = (
            f"it needs about {candidate.memory / 1e6:.0f} MB, {memory / 1e6:.0f} MB are left: "
            "free memory, or raise the container's limit"
        )
        raise EngineError(message)
    arguments = {
        "bundle": bundle,
        "device": candidate.device,
        "precision": candidate.precision,
        "threads": candidate.threads,
    }
    return EngineProcess(arguments, clips, seconds)


def _setting(row: Row) -> Setting | None:
    if row.seconds is None or row.max_abs_logit is None:
        return None
    return Setting(row.device, row.precision, row.threads, row.seconds, row.max_abs_logit)  # type: ignore[arg-type]
