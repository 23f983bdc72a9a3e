"""Classify or embed many videos on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import BulkError, MissingExtraError, VideoNotFoundError, XClipError
from xclip_runtime.model import XClip
from xclip_runtime.util.addresses import without_passwords
from xclip_runtime.util.paths import VIDEO_SUFFIXES
from xclip_runtime.util.renamed import renamed

try:
    import fsspec
    import ray

    from xclip_runtime.integrations.ray_cluster.shards import CLASSIFICATIONS, EMBEDDINGS, Shards
except ModuleNotFoundError as error:
    feature = f"running on Ray (missing: {error.name})"
    raise MissingExtraError(feature, "ray") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xclip_runtime.results import Classification, VideoFeatures

Task = Literal["classify", "embed"]


@dataclass(frozen=True)
class BulkReport:
    """Counts of a bulk run."""

    done: int
    """Videos that this run read."""
    failed: int
    """Videos that this run could not read; their rows contain the error."""
    skipped: int
    """Videos with a row from an earlier run."""


@renamed(out="output")
def run_bulk(
    videos: str | os.PathLike[str] | Sequence[str],
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    task: Task = "classify",
    top_k: int = 5,
    workers: int | tuple[int, int] = 1,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
    shard_size: int = 64,
    retry_failed: bool = False,
    model_options: Mapping[str, Any] | None = None,
    progress: Callable[[BulkReport], None] = lambda _: None,
) -> BulkReport:
    """Write a Parquet dataset with one row per video; call again to resume an interrupted run.

    Videos are distributed in groups to worker processes with a model each. A group whose worker dies is run again. A
    video that cannot be read gets a row with its error.

    Args:
        videos: A folder, searched recursively, or files; local paths or fsspec addresses.
        bundle: Folder at the same path on every machine.
        output: Folder of the results: a path on a disk that all machines share, or an fsspec address.
        task: "classify" writes labels, probs and logits; "embed" writes unit vectors.
        top_k: Number of labels.
        workers: Number of worker processes, or a minimum and maximum for Ray's autoscaling.
        cpus_per_worker: CPUs that each worker reserves and uses.
        gpus_per_worker: GPUs that each worker reserves.
        shard_size: Videos per group, which is the unit of work and of a Parquet file.
        retry_failed: Read videos that failed in an earlier run again, and replace their rows.
        model_options: Further arguments of `xclip_runtime.XClip`, such as device, precision and batch_size.
        progress: Called after every group.

    Raises:
        BundleError: The bundle cannot be used.
        BulkError: There are no videos, or ``output`` belongs to a run with other settings.
    """
    opened = Bundle.open(bundle)
    names = dict.fromkeys(_listed(videos))
    shards = Shards(os.fspath(output))
    options = dict(model_options or {})
    finished = shards.begin(
        {
            "task": task,
            "top_k": top_k,
            "bundle": opened.digest,
            "precision": options.get("precision"),
            "profile": options.get("profile"),
        },
        retry_failed=retry_failed,
    )
    wanted = [name for name in names if without_passwords(name) not in finished]
    report = BulkReport(0, 0, len(names) - len(wanted))
    if not wanted:
        return report
    groups = [{"videos": wanted[i : i + shard_size]} for i in range(0, len(wanted), shard_size)]
    counts = ray.data.from_items(groups, override_num_blocks=len(groups)).map(
        BulkWorker,
        fn_constructor_args=(str(opened.path.resolve()), shards.url, task, top_k),
        fn_constructor_kwargs={"intra_op_threads": cpus_per_worker, **options},
        concurrency=workers,
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
    )
    for count in counts.iter_rows():
        report = BulkReport(report.done + count["done"], report.failed + count["failed"], report.skipped)
        progress(report)
    return report


class BulkWorker:
    """Ray actor with a model; writes one shard per group of videos."""

    def __init__(self, bundle: str, output: str, task: Task, top_k: int, **model_options: Any) -> None:
        self._model = XClip(bundle, **model_options)
        self._threads = model_options.get("intra_op_threads") or 1
        self._shards = Shards(output)
        self._task = task
        self._top_k = top_k

    def __call__(self, group: Mapping[str, Any]) -> dict[str, int]:
        """Write the shard of a group; return the numbers of videos that were read and that were not."""
        videos = list(group["videos"])
        with tempfile.TemporaryDirectory(prefix="xclip-onnx-") as folder:
            files = _LocalFiles(Path(folder))
            local = map(files.fetch, videos)
            results: Iterator[Classification | VideoFeatures | XClipError]
            if self._task == "classify":
                schema = CLASSIFICATIONS
                results = self._model.classify_each(local, top_k=self._top_k, workers=self._threads)
            else:
                schema = EMBEDDINGS
                results = self._model.features_each(local, workers=self._threads)
            rows = []
            for video, result in zip(videos, results, strict=True):
                rows.append(self._row(video, files.errors.get(video, result)))
                files.drop(video)
        self._shards.write(schema, rows)
        failed = sum(row.get("error_type") is not None for row in rows)
        return {"done": len(rows) - failed, "failed": failed}

    def _row(self, video: str, result: Any) -> dict[str, Any]:
        video = without_passwords(video)
        if isinstance(result, XClipError):
            return {"video": video, "error_type": type(result).__name__, "error": str(result)}
        row = {"video": video, "provider": self._model.provider, "precision": self._model.precision}
        if self._task == "embed":
            return {**row, "embedding": result.unit_embeds.tolist()}
        timings = result.to_dict()["timings_ms"]
        return {
            **row,
            "labels": [label.label for label in result.labels],
            "probs": [label.prob for label in result.labels],
            "logits": [label.logit for label in result.labels],
            "frames_total": result.frames.total,
            **{f"{stage}_ms": ms for stage, ms in timings.items()},
        }


class _LocalFiles:
    """Local paths of videos; remote ones are copied to a temporary folder and dropped after use."""

    def __init__(self, folder: Path) -> None:
        self.errors: dict[str, XClipError] = {}
        self._folder = folder
        self._copies: dict[str, Path] = {}

    def fetch(self, video: str) -> str:
        if not _is_remote(video):
            return video
        # The last part of an address need not be a valid file name; decoders need the suffix alone.
        copy = self._copies[video] = self._folder / f"{len(self._copies)}{Path(video).suffix[:10]}"
        try:
            fs, path = fsspec.core.url_to_fs(video)
            fs.get_file(path, str(copy))
        except Exception as error:  # noqa: BLE001 - every filesystem raises its own classes
            message = f"{video} cannot be fetched ({type(error).__name__}: {error}): check the address"
            self.errors[video] = VideoNotFoundError(without_passwords(message))
        return str(copy)

    def drop(self, video: str) -> None:
        if video in self._copies:
            self._copies[video].unlink(missing_ok=True)


def _listed(videos: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Return the videos of a folder, or the files as given, whose names Parquet can store."""
    if not isinstance(videos, (str, os.PathLike)):
        # Workers run in another working directory.
        names = [name if _is_remote(name) else os.path.abspath(name) for name in videos]  # noqa: PTH100 - keeps links
    else:
        names = _in_folder(os.fspath(videos))
    if not names:
        message = f"no videos in {without_passwords(str(videos))}: give a folder with videos, or files"
        raise BulkError(message)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            message = f"the name {without_passwords(name)!r} is not UTF-8, which Parquet requires: rename the file"
            raise BulkError(message) from None
    return names


def _in_folder(folder: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(folder)
    if not fs.isdir(root):
        message = f"no folder {without_passwords(folder)}: give an existing folder, or a list of files"
        raise BulkError(message)
    found = sorted(path for path in fs.find(root) if path.lower().endswith(VIDEO_SUFFIXES))
    return [fs.unstrip_protocol(path) if _is_remote(folder) else path for path in found]


def _is_remote(name: str) -> bool:
    return "://" in name
