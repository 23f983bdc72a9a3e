"""Classify or embed many videos on a Ray cluster."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import BulkError, MissingExtraError, XClipError
from xclip_runtime.util.addresses import is_address, without_passwords
from xclip_runtime.util.paths import VIDEO_SUFFIXES
from xclip_runtime.util.renamed import renamed
from xclip_runtime.util.system_errors import explain

try:
    import fsspec
    import ray
    import ray.data
    from ray.exceptions import RayError

    from xclip_runtime.integrations.ray_cluster.claim import check, claimed
    from xclip_runtime.integrations.ray_cluster.shards import Shards
    from xclip_runtime.integrations.ray_cluster.store import ResultStore
    from xclip_runtime.integrations.ray_cluster.worker import BulkWorker, Task, is_fault_of_video
except ModuleNotFoundError as error:
    feature = f"running on Ray (missing: {error.name})"
    raise MissingExtraError(feature, "ray") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    _Group = dict[str, Any]


# Workers that die with a group before it is split, and groups per machine that fail in a row before a run ends.
_TRIES = 3


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

    Videos are distributed in groups to worker processes with a model each. A group whose worker dies is run again, and
    one whose machine is in trouble, such as a full disk, goes to another machine. A video that cannot be read gets a
    row with its error. The folder of results is written by one run at a time.

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
        BulkError: There are no videos, ``output`` cannot be used, belongs to a run with other settings or is being
            written by another run, or no machine can go on.
    """
    opened = Bundle.open(bundle)
    names = dict.fromkeys(_listed(videos))
    options = {"threads": cpus_per_worker, **(model_options or {})}
    settings = {
        "task": task,
        "top_k": top_k,
        "bundle": opened.digest,
        "precision": options.get("precision"),
        "profile": options.get("profile"),
    }
    with ExitStack() as stack:
        with _usable(os.fspath(output)):
            store = ResultStore(os.fspath(output))
            run = stack.enter_context(claimed(store))
            finished = Shards(store, run).begin(settings, retry_failed=retry_failed)
        wanted = [name for name in names if without_passwords(name) not in finished]
        report = BulkReport(0, 0, len(names) - len(wanted))
        arguments = (str(opened.path.resolve()), store.url, run, task, top_k)
        pool = _Pool(workers, cpus_per_worker, gpus_per_worker, arguments, options)

        def check_claim() -> None:
            with _usable(store.url):
                check(store, run)

        for answer in _answers(_grouped(wanted, shard_size), pool, check_claim):
            report = replace(report, done=report.done + answer["done"], failed=report.failed + answer["failed"])
            progress(report)
    return report


def _answers(groups: list[_Group], pool: _Pool, check_claim: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Run groups until all videos have a row; those that a machine could not finish go to machines without trouble."""
    troubles: dict[str, str] = {}
    in_a_row = 0
    while groups:
        again = []
        lost = dict(enumerate(groups))
        for answer in pool.map(groups, troubles.keys()):
            lost.pop(answer["number"], None)
            group, unreached = groups[answer["number"]], list(filter(None, answer["unreached"].split("\0")))
            reasons = {video: _fault_of_machine(video) for video in unreached}
            trouble = answer["trouble"] or next(filter(None, reasons.values()), None)
            if trouble:
                check_claim()
                troubles[answer["node"]] = f"{answer['machine']}: {trouble}"
                in_a_row += 1
                machines = pool.machines()
                if in_a_row >= _TRIES * len(machines) and machines <= troubles.keys():
                    raise _at_an_end(troubles)
            else:
                troubles.pop(answer["node"], None)
                in_a_row = 0
            if answer["trouble"]:
                again.append(group)
            again += _grouped([video for video in unreached if reasons[video]], len(group["videos"]))
            again += _grouped([video for video in unreached if not reasons[video]], len(group["videos"]), sure=True)
            yield answer
        if len(lost) == len(groups) == sum(len(group["videos"]) for group in groups):
            raise _fatal(groups)
        again += [alone for group in lost.values() for alone in _grouped(group["videos"], 1, sure=group["sure"])]
        groups = again
        if groups and troubles and pool.machines() <= troubles.keys():
            raise _at_an_end(troubles)


def _at_an_end(troubles: Mapping[str, str]) -> BulkError:
    return BulkError(f"no machine can go on, call again to resume; {'; '.join(sorted(troubles.values())[:3])}")


def _fatal(groups: Sequence[_Group]) -> BulkError:
    names = ", ".join(without_passwords(group["videos"][0]) for group in groups[:3])
    return BulkError(
        f"workers die whenever they read {names}: look for the kernel's OOM killer on their machines, or take the"
        " videos away; call again to resume"
    )


class _Pool:
    """Workers on the machines of the cluster."""

    def __init__(
        self, workers: int | tuple[int, int], cpus: int, gpus: float, arguments: Sequence[Any], options: dict[str, Any]
    ) -> None:
        self._least, self._most = (workers, workers) if isinstance(workers, int) else workers
        self._needs = {"CPU": cpus, "GPU": gpus}
        self._arguments, self._options = arguments, options

    def machines(self) -> set[str]:
        """List the nodes of the cluster on which a worker fits."""
        return {
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0) >= need for name, need in self._needs.items())
        }

    def map(self, groups: list[_Group], without: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield the answers of workers on nodes other than some, none for groups that kill their workers."""
        excluded = ",".join(without)
        elsewhere = {"label_selector": {"ray.io/node-id": f"!in({excluded})"}} if excluded else {}
        items = [{**group, "number": number} for number, group in enumerate(groups)]
        given = ray.data.from_items(items, override_num_blocks=len(items))
        given.context.max_errored_blocks = -1
        answers = given.map(
            BulkWorker,
            fn_constructor_args=self._arguments,
            fn_constructor_kwargs=self._options,
            compute=ray.data.ActorPoolStrategy(min_size=1 if excluded else self._least, max_size=self._most),
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_task_retries=_TRIES - 1,
            **elsewhere,
        )
        try:
            yield from answers.iter_rows()
        except RayError as error:
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
            message = f"Ray cannot run the workers ({cause}): check that every machine has the same packages"
            raise BulkError(message) from error


def _grouped(videos: list[str], size: int, *, sure: bool = False) -> list[_Group]:
    return [{"videos": videos[i : i + size], "sure": sure} for i in range(0, len(videos), size)]


def _fault_of_machine(video: str) -> str | None:
    """Look from here at a video that a machine does not reach; return that machine's trouble, None if there is none."""
    try:
        if is_address(video):
            fs, path = fsspec.core.url_to_fs(video)
            fs.info(path)
        else:
            with open(video, "rb"):  # noqa: PTH123 - a name, not a path
                pass
    except Exception as error:  # noqa: BLE001 - every filesystem raises its own classes
        if is_fault_of_video(error) or isinstance(error, PermissionError):
            return None
        return f"{without_passwords(video)} is not reached ({type(error).__name__}): check the network"
    return f"{without_passwords(video)} is not reached from there, but from here: mount its disk, or give access to it"


@contextmanager
def _usable(output: str) -> Iterator[None]:
    try:
        yield
    except XClipError:
        raise
    except Exception as error:
        cause = explain(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        message = f"{output} cannot hold results: {cause}"
        raise BulkError(without_passwords(message)) from error


def _listed(videos: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Return the videos of a folder, or the files as given, whose names Parquet can store."""
    if not isinstance(videos, (str, os.PathLike)):
        # Workers run in another working directory.
        names = [name if is_address(name) else os.path.abspath(name) for name in videos]  # noqa: PTH100 - keeps links
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
    return [fs.unstrip_protocol(path) if is_address(folder) else path for path in found]
