"""PNG plots of an evaluation, with matplotlib (extra [bench])."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.errors import MissingExtraError

try:
    # Without pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure
except ImportError as error:
    feature = "plotting"
    raise MissingExtraError(feature, "bench") from error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DPI = 130


def plot_confusion(path: Path, labels: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Plot a confusion matrix: a row for each true label, a column for each answer, shaded by the share of the row."""
    n = len(labels)
    side = max(4.0, 0.21 * n + 0.06 * max(map(len, labels), default=0) + 1.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if n <= 30 else 6.5
    axes.set_xticks(range(n), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.set_xlabel("answered")
    axes.set_ylabel("shown")
    axes.set_title(f"{int(np.trace(counts))} of {int(counts.sum())} right")
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size - 2, color=colour)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the row")
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the CSV has the names.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, dpi=DPI)
