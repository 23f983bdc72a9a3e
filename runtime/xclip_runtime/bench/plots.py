"""PNG plots of a report, with matplotlib (extra [bench])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import MissingExtraError

try:
    # Without pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter
except ImportError as error:
    feature = "plotting"
    raise MissingExtraError(feature, "bench") from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

DPI = 130
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Palette of Okabe and Ito, safe for colour-blind readers."""
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")


def plot_latencies(path: Path, latencies_ms: Mapping[str, Sequence[float]]) -> None:
    """Plot the cumulative latency distribution of each scenario."""
    figure, axes = _figure("Latency distribution", "latency, ms", "share of queries answered")
    for place, (name, values) in enumerate(latencies_ms.items()):
        axes.ecdf(values, color=COLOURS[place], label=f"{name}, n = {len(values)}")
    axes.axhline(0.9, color="0.6", linewidth=0.8, linestyle=":")
    axes.text(1.005, 0.9, "p90", transform=axes.get_yaxis_transform(), va="center", fontsize=8, color="0.4")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.xaxis.set_minor_formatter(_PLAIN)
    axes.tick_params(axis="x", which="minor", labelsize=7)
    figure.legend(loc="outside lower center", ncols=len(latencies_ms), frameon=False)
    figure.savefig(path, dpi=DPI)


def plot_load(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Plot latency over arrival rate, from the points of the "rate" sweep."""
    figure, axes = _figure(
        "Latency under load (random arrivals, counted from the intended start)",
        "arriving clips/s; small, in per cent of a closed loop's rate",
        "latency, ms",
    )
    for name, colour in (("p50", COLOURS[0]), ("p90", COLOURS[1])):
        known = [(p["rate"], p["latency_ms"][name]) for p in points if p["latency_ms"][name] is not None]
        axes.plot(*zip(*known, strict=True) if known else ((), ()), "o-", color=colour, label=name)
    for point in points:
        if point["latency_ms"]["p50"] is not None:
            at = (point["rate"], point["latency_ms"]["p50"])
            axes.annotate(
                f"{point['load']:.0%}", at, (0, -12), textcoords="offset points", ha="center", fontsize=7, color="0.4"
            )
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=DPI)


def plot_stages(path: Path, stages_ms: Mapping[str, float], cold_start_ms: Mapping[str, float]) -> None:
    """Plot the medians of the stages as stacked bars, of a warm video and of a cold start, if measured."""
    bars = [("one video, warm", stages_ms), *([("first answer, cold", cold_start_ms)] if cold_start_ms else [])]
    figure = Figure(figsize=(7.5, 1.0 + 1.15 * len(bars)), layout="constrained")
    for place, (title, stages) in enumerate(bars):
        axes = figure.add_subplot(len(bars), 1, place + 1)
        total, left = sum(stages.values()), 0.0
        for colour, (name, value) in zip(COLOURS, stages.items(), strict=False):
            axes.barh(0, value, left=left, color=colour, label=f"{name} {value:.3g}")
            left += value
        axes.set_title(f"{title}: {total:.4g} ms, sum of the stages' medians", loc="left", fontsize=10)
        axes.set_yticks([])
        axes.set_xlim(0, total)
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.legend(ncols=5, loc="upper left", bbox_to_anchor=(0, -0.3), frameon=False, fontsize=8, handlelength=1)
    figure.savefig(path, dpi=DPI)


def plot_sweeps(path: Path, sweeps: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Plot throughput over batch size, threads and concurrency, side by side on one scale."""
    figure = Figure(figsize=(3.0 * len(sweeps) + 0.6, 3.0), layout="constrained")
    first = None
    for place, (name, points) in enumerate(sweeps.items()):
        axes = figure.add_subplot(1, len(sweeps), place + 1, sharey=first)
        first = first or axes
        positions = range(len(points))
        axes.bar(positions, [point["samples_per_second"] for point in points], color=COLOURS[place], width=0.6)
        axes.set_xticks(positions, [str(point[name]) for point in points])
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.bar_label(axes.containers[0], fmt="%.3g", fontsize=8)  # type: ignore[arg-type]
    if first is not None:
        first.set_ylabel("clips/s")
    figure.savefig(path, dpi=DPI)


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
