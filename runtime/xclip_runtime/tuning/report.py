"""Report of a tuning: a row for each candidate, with its errors relative to fp32 on the CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.tuning.measurement import Measurement

CHECKPOINT = "golden logits of the checkpoint"
"""Reference where the bundle has no fp32 graph for the CPU."""


@dataclass(frozen=True)
class Row:
    """Results of a candidate; all but the first four are None if it has a problem."""

    device: str
    precision: str
    threads: int | None
    graph: str
    provider: str | None = None
    runs: int = 0
    seconds: float | None = None
    """Median time of a clip."""
    clips_per_second: float | None = None
    memory_mb: float | None = None
    """Peak resident memory of its process after the first clip, MB of 10**6 bytes."""
    load_seconds: float | None = None
    p50_abs_logit: float | None = None
    max_abs_logit: float | None = None
    top1_agreement: float | None = None
    """Share of the clips whose best label is that of the reference."""
    peak_gflops: float | None = None
    """Rate of one large product by this engine, GFLOP/s."""
    share_of_peak: float | None = None
    """Rate of the vision tower's products, relative to that."""
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row of the ``--json`` document."""
        return asdict(self)


def rows_of(
    measurements: Sequence[Measurement], golden: Sequence[float], gflop: float | None
) -> tuple[tuple[Row, ...], str]:
    """Make the rows, fastest first, and name the reference of their errors.

    The reference is fp32 on the CPU, with the most threads; without it ``golden``, the leading logits of clip 0.
    """
    fp32 = next((m for m in measurements if _is_fp32_on_cpu(m) and m.problem is None), None)
    name = str(fp32.candidate) if fp32 else CHECKPOINT
    logits = fp32.logits if fp32 else {0: np.array(golden, np.float64)}
    rows = [_row(m, logits, gflop) for m in measurements]
    return tuple(sorted(rows, key=lambda row: (row.seconds is None, row.seconds))), name


def _is_fp32_on_cpu(measurement: Measurement) -> bool:
    return (measurement.candidate.device, measurement.candidate.precision) == ("cpu", "fp32")


def _row(measurement: Measurement, reference: Mapping[int, NDArray[np.float64]], gflop: float | None) -> Row:
    candidate, facts = measurement.candidate, measurement.facts
    named = candidate.device, candidate.precision, candidate.threads, candidate.graph.name
    common = sorted(measurement.logits.keys() & reference.keys())
    problem = measurement.problem
    if problem is None and not common:
        problem = "no clip in common with the reference: give a larger --budget"
    if problem is not None:
        return Row(*named, problem=problem)
    pairs = [(measurement.logits[clip][: len(reference[clip])], reference[clip]) for clip in common]
    errors = np.concatenate([np.abs(own - other) for own, other in pairs])
    seconds, peak = measurement.median, facts["peak_gflops"]
    return Row(
        *named,
        provider=facts["provider"],
        runs=len(measurement.seconds),
        seconds=seconds,
        clips_per_second=1 / seconds,
        memory_mb=facts["peak_rss_mb"],
        load_seconds=facts["load_seconds"],
        p50_abs_logit=float(np.median(errors)),
        max_abs_logit=float(errors.max()),
        top1_agreement=float(np.mean([own.argmax() == other.argmax() for own, other in pairs])),
        peak_gflops=peak,
        share_of_peak=gflop / seconds / peak if gflop and peak else None,
    )
