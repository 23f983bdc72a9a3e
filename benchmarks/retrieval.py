"""Measure the recall of a shortlist, the size of an index on disk, and the quality of text-to-video retrieval.

    python benchmarks/retrieval.py --each 20 --work runs/retrieval --out benchmarks/results/retrieval.json

Clips of motion-demo's 70 labels are rendered from seeds unseen in training and added to an index in fp16 and to one in
fp32. Queries are the 70 labels, the 7 colours and the 10 motions. Recall at 10 is the share of the ten best hits of an
exact search that are on the shortlist; it is computed for smaller collections as well, since a fixed shortlist misses
more of a larger one. For the default shortlist, it is also counted from searches of the index.

Times are measured with --times 100000, on an otherwise idle machine. A second run with the same --work reuses clips and
indexes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import record
from rich.console import Console
from rich.progress import track

from motion_demo.dataset import write_clip
from motion_demo.labels import COLOUR_TEXTS, LABELS, MOTION_TEXTS
from motion_demo.scenes import EVALUATION_SEEDS
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.results import VideoFeatures
from xclip_runtime.search import VideoIndex
from xclip_runtime.search.captions import Caption
from xclip_runtime.search.identity import ModelIdentity
from xclip_runtime.search.retrieval import evaluate, score_pairs
from xclip_runtime.search.store import IndexDescription, Store
from xclip_runtime.search.video_index import SHORTLIST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FIRST_SEED = EVALUATION_SEEDS.start + 10**6
SHORTLISTS = (10, 20, 50, 100, 200, 400, 800)
QUERIES = [label.text for label in LABELS] + [*COLOUR_TEXTS, *MOTION_TEXTS]
K = 10


def render(folder: Path, each: int) -> list[Caption]:
    """Render clips, cycling through the labels, so that every prefix of the list is balanced."""
    captions = []
    for number in progress(range(each * len(LABELS)), "rendering"):
        label = LABELS[number % len(LABELS)]
        there = next(folder.glob(f"{number:05}.*"), None)
        clip = there or write_clip(folder / f"{number:05}", FIRST_SEED + number, label)
        captions.append(Caption(str(clip), label.text))
    return captions


def make_index(folder: Path, model: XClip, videos: list[str], features: Any) -> tuple[VideoIndex, float]:
    """Build an index of the videos, and return it with its bytes on disk per video."""
    with VideoIndex.create(folder, model, features=features) as index:
        failed = [one.error for one in progress(index.add(videos), f"adding, {features}", len(videos)) if one.error]
        assert not failed, failed
    index = VideoIndex.open(folder, model)
    return index, index.store.bytes_on_disk / len(videos)


def recall(logits: NDArray[np.float32], cosines: NDArray[np.float32], shortlist: int) -> float:
    """Compute the share of each query's ten best by logit that are among the nearest by cosine."""
    best, nearest = (np.argsort(-scores, axis=1) for scores in (logits, cosines))
    return statistics.fmean(
        len(set(b) & set(n)) / K for b, n in zip(best[:, :K].tolist(), nearest[:, :shortlist].tolist(), strict=True)
    )


def recall_of_searches(index: VideoIndex) -> float:
    """Compute the same share from searches of the index with the default shortlist."""
    shares = []
    for query in QUERIES:
        exact, quick = ({hit.video for hit in index.search(query, K, exact=e).hits} for e in (True, False))
        shares.append(len(exact & quick) / K)
    return statistics.fmean(shares)


def median_ms(index: VideoIndex) -> dict[str, float]:
    """Measure the median milliseconds of a search, with the default shortlist and exact."""
    quick, exact = ([index.search(q, K, exact=e).timings_ms["total"] for q in QUERIES] for e in (False, True))
    return {"shortlist": statistics.median(quick), "exact": statistics.median(exact)}


def scan(folder: Path, windows: int, dimension: int) -> dict[str, Any]:
    """Measure the median milliseconds of a scan of many random embeddings of X-CLIP's width, without features."""
    rng = np.random.default_rng(0)
    identity = ModelIdentity("random", "", "", "", "fp32", "videox", dimension)
    with Store.create(folder, IndexDescription(identity, "fp16")) as store:
        rows = rng.standard_normal((windows, dimension), np.float32)
        # One transaction for all; an index has one a window.
        store._connection.execute("BEGIN")  # noqa: SLF001
        for number, row in enumerate(rows):
            unit = VideoFeatures(row, rows[:1]).unit_embeds
            store._connection.execute("INSERT INTO embeds VALUES (?, ?)", (number, unit.tobytes()))  # noqa: SLF001
        store._connection.execute("COMMIT")  # noqa: SLF001
        times = []
        for row in rows[:9]:
            start = time.perf_counter()
            store.nearest(row, SHORTLIST)
            times.append(1000 * (time.perf_counter() - start))
    return {"windows": windows, "projection_dim": dimension, "nearest_ms": statistics.median(times)}


def progress(items: Iterable[Any], name: str, total: int | None = None) -> Iterable[Any]:
    """Show a progress bar on standard error."""
    return track(items, total=total, description=name, console=Console(stderr=True))


def measure(folder: Path, each: int, windows: int) -> dict[str, Any]:
    """Measure everything as one JSON document."""
    model = XClip(DEMO_BUNDLE, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        captions = render(folder / "clips", each)
        videos = [caption.video for caption in captions]
        index, half_bytes = make_index(folder / "fp16", model, videos, "fp16")
        full, full_bytes = make_index(folder / "fp32", model, videos, "fp32")
        logits, cosines = score_pairs(index, QUERIES, videos)
        full_logits, _ = score_pairs(full, QUERIES, videos)
        sizes = [len(videos) // part for part in (8, 4, 2, 1)]
        document = {
            **record(),
            "model": {**model.info, "bundle": DEMO_BUNDLE.name},
            "videos": len(videos),
            "queries": len(QUERIES),
            "default_shortlist": SHORTLIST,
            "recall_at_10": {
                str(size): {str(s): recall(logits[:, :size], cosines[:, :size], s) for s in SHORTLISTS if s <= size}
                for size in sizes
            },
            "recall_at_10_of_searches": recall_of_searches(index),
            "bytes_per_video": {"fp16": half_bytes, "fp32": full_bytes},
            "fp16_max_abs_logit": float(np.abs(logits - full_logits).max()),
            "retrieval": asdict(evaluate(index, captions)),
        }
        if windows:
            document["search_ms"] = median_ms(index)
            document["scan"] = scan(Path(scratch) / "scan", windows, 512)
        index.close()
        full.close()
    return document


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--each", type=int, default=20, help="clips of each of the 70 labels")
    parser.add_argument("--times", type=int, default=0, help="measure times as well, scanning this many embeddings")
    parser.add_argument("--work", type=Path, required=True, help="folder to keep clips and indexes")
    parser.add_argument("--out", type=Path, help="write the JSON to this file")
    options = parser.parse_args()
    # The index stores absolute paths.
    document = json.dumps(measure(options.work.resolve(), options.each, options.times), indent=2, allow_nan=False)
    print(document)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(document + "\n")


if __name__ == "__main__":
    main()
