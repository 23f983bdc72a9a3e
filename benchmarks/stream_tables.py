"""Tables of windows from cached frames, for docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from formatting import read, table, where

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def stream_cache(results: Path) -> Iterator[str]:
    """Agreement and accuracy of cached windows, by precision, policy and number of new frames."""
    result = read(results / "stream-cache.json")
    header = (
        *("precision", "new frames", "policy", "windows", "same top-1", "inside one clip", "logit error p50", "p99"),
        *("max", "top-1 exact", "cached", "McNemar p", "s to detection, exact", "cached"),
    )
    rows = [
        [precision, new, policy, *_cells(found)]
        for precision, policies in result["accuracy"].items()
        for new in next(iter(policies.values()))
        for policy, by_new in policies.items()
        for found in [by_new[new]]
    ]
    yield table(header, rows)
    yield f"{result['clips']} clips of unseen seeds in one encoded file. {where(result)}"


def _cells(found: dict[str, Any]) -> Iterator[str]:
    labelled = found["labelled"]
    yield str(found["windows"])
    for share in (found["agreement"], labelled["agreement_inside"]):
        yield f"{share['value']:.1%}"
    for quantile in ("p50", "p99", "max"):
        yield f"{found['abs_logit'][quantile]:.3f}"
    for key in ("accuracy_exact", "accuracy_cached"):
        yield f"{labelled[key]['value']:.1%}"
    yield f"{labelled['mcnemar_p']:.3f}"
    for key in ("detection_s_exact", "detection_s_cached"):
        yield f"{labelled[key]['mean']:.2f}"


def stream_cuts(results: Path) -> Iterator[str]:
    """Difference of neighbouring frames by which a scene cut is known."""
    result = read(results / "stream-cuts.json")
    quantiles = ("min", "p50", "p99", "max")
    rows = [
        [name.replace("_", " "), str(found["n"]), *(f"{found[quantile]:.3f}" for quantile in quantiles)]
        for name, found in result["cuts"].items()
    ]
    yield table(("neighbouring frames", "pairs", *quantiles), rows)
    yield f"{result['clips']} clips of unseen seeds in one encoded file, 12.5 frames a second. {where(result)}"


def stream_latency(results: Path) -> Iterator[str]:
    """Time from prepared frames to logits, of exact and of cached windows."""
    result = read(results / "stream-latency.json")
    found = result["latency"]
    rows = [
        [arm, f"{ms:.0f}", f"{found['share_of_exact'][arm]:.3f}", f"{found['windows_a_second'][arm]:.2f}"]
        for arm, ms in found["ms"].items()
    ]
    yield table(("window", "ms", "share of exact", "windows a second"), rows)
    yield (
        f"Seeded ViT-B/16, {found['precision']}, {found['threads']} threads; a stream holds "
        f"{found['cache_mb_a_stream']:.1f} MB. {where(result)}"
    )
