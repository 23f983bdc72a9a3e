"""Command ``xclip-onnx eval``."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from xclip_runtime.bundle import Precision
from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.output import print_error, print_json
from xclip_runtime.cli.results_file import ResultsFile
from xclip_runtime.errors import DatasetError, MissingExtraError
from xclip_runtime.evaluation.datasets import Format
from xclip_runtime.util.atomic import write_json
from xclip_runtime.util.locks import locked
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xclip_runtime.evaluation.datasets import Sample
    from xclip_runtime.evaluation.runner import Outcome
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading

SETTINGS, OUTCOMES = "settings.json", "outcomes.jsonl"
SPLITS = (1, 2, 3)


def _splits(_: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[int, ...]:
    """Parse ``1``, ``1,3``, repeated numbers, or ``all``."""
    names = [name.strip() for value in values for name in value.split(",")]
    if names == ["all"]:
        return SPLITS
    try:
        splits = tuple(sorted({int(name) for name in names}))
    except ValueError:
        splits = ()
    if not splits or not set(splits) <= set(SPLITS):
        message = f"{','.join(names)!r}: give 1, 2 or 3, a list such as 1,2, or all"
        raise click.BadParameter(message, param=param)
    return splits


@click.command("eval")
@click.argument("data", type=click.Path())
@opt.bundle_option
@opt.option(
    "--format",
    "layout",
    type=click.Choice(get_args(Format)),
    default="auto",
    help="Layout of DATA; auto is hmdb51 or ucf101 where their split files are found.",
)
@opt.option(
    "--split",
    "splits",
    metavar="N",
    multiple=True,
    default=["1"],
    callback=_splits,
    help="Official split of HMDB-51 or UCF-101: 1, 2 or 3; repeatable, a list such as 1,2, or all.",
)
@opt.option("--subset", type=click.Choice(["test", "train"]), default="test", help="Subset of the split.")
@opt.option(
    "--split-files",
    aliases=("--splits",),
    metavar="FOLDER",
    type=click.Path(),
    show_default="in DATA or beside it",
    help="Folder of the split files.",
)
@opt.option(
    "--limit",
    metavar="N",
    type=opt.COUNT,
    show_default="all",
    help="Maximum number of videos, taken from the classes in turn.",
)
@opt.option(
    "--compare-precision",
    metavar="A B",
    type=click.Choice(get_args(Precision)),
    nargs=2,
    help="Compare two precisions, such as fp32 int8, on the same decoded frames.",
)
@opt.option(
    "--swap-check",
    is_flag=True,
    help="Also score HMDB-51's kick and kick ball, and sword and sword exercise, with their names exchanged.",
)
@opt.output_option(
    metavar="FOLDER", aliases=("--out",), help="Write all results to this folder; every line survives a crash."
)
@opt.resume_option
@opt.workers_option
@opt.json_option
@opt.label_options
@opt.reading_options
@opt.model_options
def command(
    *,
    data: str,
    bundle: str,
    layout: Any,
    splits: tuple[int, ...],
    subset: Any,
    split_files: str | None,
    limit: int | None,
    compare_precision: tuple[Precision, Precision] | None,
    swap_check: bool,
    output: str | None,
    resume: bool,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure accuracy on labelled videos.

    \b
    DATA is one of
      a folder with one folder of videos per class;
      a CSV file with columns path and label, or a text file with a path and a label per line;
      HMDB-51, with testTrainMulti_7030_splits in it or beside it;
      UCF-101, with ucfTrainTestlist in it or beside it.

    Labels are matched by name, regardless of case, underscores, hyphens and spaces. The default is X-CLIP's published
    protocol: uniform frames, profile videox, one view, top-1 and top-5 of the probabilities. Of several splits, each
    is reported, and their mean; the other figures are of all their videos together.

    --output FOLDER gets report.json, outcomes.jsonl (a line per video), confusion.csv, failures.csv and, with the
    extra [bench], confusion.png.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    opt.check_resume(output, resume=resume)
    if compare_precision and (options["precision"] or compare_precision[0] == compare_precision[1]):
        message = "--compare-precision needs two different precisions, such as fp32 int8, and no --precision"
        raise click.UsageError(message)
    opt.silence_native_logs()
    views = options["views"]
    label_settings = {name: options[name] for name in ("labels", "labels_file", "templates") if options[name]}
    reading, with_labels = opt.pop_reading(options), opt.pop_labels(options)
    from xclip_runtime.cli.render import console
    from xclip_runtime.evaluation import datasets
    from xclip_runtime.evaluation.datasets import find_samples, in_turn, with_labels_of
    from xclip_runtime.evaluation.report import check_swappable
    from xclip_runtime.model import XClip

    found = {n: find_samples(data, layout, split=n, subset=subset, split_files=split_files) for n in splits}
    if any(sample.is_part for samples in found.values() for sample in samples):
        message = (
            f"{data} labels parts of videos, and this is for whole ones: give it to `xclip-onnx eval-stream --segments`"
        )
        raise DatasetError(message)
    precisions = compare_precision or (options["precision"],)
    options |= {"profile": options["profile"] or "videox"}
    models = [with_labels(XClip(bundle, **{**options, "precision": precision})) for precision in precisions]
    if swap_check:
        check_swappable(models[0].labels)
    distinct = dict.fromkeys(sample for samples in found.values() for sample in samples)
    samples = in_turn(with_labels_of(distinct, models[0].labels), limit)
    settings = {
        "data": str(data),
        "format": layout if layout != "auto" else datasets.guess_format(Path(data), split_files),
        "split": list(splits),
        "subset": subset,
        "split_files": split_files,
        "limit": limit,
        "profile": options["profile"],
        "views": views,
        "frames": models[0].bundle.num_frames,
        "precisions": [model.precision for model in models],
        "provider": models[0].provider,
        "checkpoint": models[0].bundle.manifest["source"],
        "bundle_manifest_sha256": models[0].bundle.digest,
        "label_options": label_settings,
    }
    if output:
        Path(output).mkdir(parents=True, exist_ok=True)
    with locked(output, inside=True):
        outcomes = _run(models, samples, settings, reading=reading, workers=workers, output=output, resume=resume)
        report = _report(outcomes, settings, swap_check=swap_check)
        if len(splits) > 1:
            videos = {n: {sample.video for sample in samples} for n, samples in found.items()}
            report["splits"] = _by_split(outcomes, videos, report["precision"])
        written = _write(Path(output), report, outcomes) if output else []
    if as_json:
        print_json(report, indent=2)
    else:
        for line in _lines(report):
            console().print(line)
        if output:
            console().print(f"{output}: {', '.join(written)}", style="dim")
    sys.exit(exit_code(len(report["errors"]), len(outcomes)))


def _run(
    models: Sequence[XClip],
    samples: Sequence[Sample],
    settings: Mapping[str, Any],
    *,
    reading: Reading,
    workers: int | None,
    output: str | None,
    resume: bool,
) -> list[Outcome]:
    """Evaluate the samples that are not in ``output`` yet; return the outcomes of all, in their order."""
    from xclip_runtime.cli.bulk import Bulk
    from xclip_runtime.evaluation.runner import evaluate

    done, file = _previous(output, settings, resume=resume) if output else ({}, None)
    todo = [sample for sample in samples if sample.video not in done]
    precision = models[0].precision
    how = f"--output {output} --resume continues from here" if output else None
    with Bulk("evaluating", len(samples), len(samples) - len(todo), resume=how) as bulk:
        for outcome in evaluate(models, todo, reading=reading, workers=workers):
            done[outcome.video] = outcome
            if file:
                file.append(outcome.to_dict())
            ranks = [o.answers[precision].rank for o in done.values() if not o.error]
            bulk.describe(f"top-1 {sum(rank == 1 for rank in ranks) / max(len(ranks), 1):.1%}")
            bulk.advance(outcome.error["message"] if outcome.error else None)
    return [done[sample.video] for sample in samples]


def _previous(output: str, settings: Mapping[str, Any], *, resume: bool) -> tuple[dict[str, Outcome], ResultsFile]:
    """Return the outcomes of an interrupted run with the same settings, and the file to continue."""
    from xclip_runtime.evaluation.runner import Outcome

    folder = Path(output)
    file = ResultsFile(str(folder / OUTCOMES), resume=resume)
    file.check_settings(settings, folder / SETTINGS, free="limit")
    return {outcome.video: outcome for outcome in map(Outcome.from_dict, file.documents())}, file


def _by_split(outcomes: Sequence[Outcome], videos: Mapping[int, set[str]], precision: str) -> dict[str, Any]:
    """Report the accuracy of each split, and the mean that publications give."""
    from xclip_runtime.evaluation.report import accuracy

    figures = ("top1", "top5", "n", "top1_interval", "top5_interval")
    splits = {}
    for split, names in videos.items():
        whole = accuracy([outcome for outcome in outcomes if outcome.video in names], precision)
        splits[str(split)] = {figure: whole[figure] for figure in figures}
    counted = [split for split in splits.values() if split["n"]]
    means = {f"mean_{k}": sum(s[k] for s in counted) / len(counted) if counted else None for k in ("top1", "top5")}
    return {**splits, **means}


def _report(outcomes: Sequence[Outcome], settings: Mapping[str, Any], *, swap_check: bool) -> dict[str, Any]:
    from xclip_runtime import __version__
    from xclip_runtime.evaluation.report import accuracy, comparison
    from xclip_runtime.evaluation.report import swap_check as swap
    from xclip_runtime.inference.installation import onnxruntime_version

    first, *others = settings["precisions"]
    report = {**accuracy(outcomes, first), "profile": settings["profile"], "settings": dict(settings)}
    if others:
        report["comparison"] = comparison(outcomes, first, others[0])
        report["compared"] = accuracy(outcomes, others[0])
    if swap_check:
        report["swap_check"] = swap(outcomes, first)
    report["date"] = datetime.now(timezone.utc).date().isoformat()
    report["versions"] = {"xclip-onnx": __version__, "onnxruntime": onnxruntime_version()}
    return report


def _write(folder: Path, report: Mapping[str, Any], outcomes: Sequence[Outcome]) -> list[str]:
    """Write the files of a report; return the names of all that this run wrote."""
    from xclip_runtime.evaluation.report import confusion, write_confusion, write_failures

    write_json(folder / "report.json", report)
    write_failures(folder / "failures.csv", report)
    labels, counts = confusion(outcomes, report["precision"])
    write_confusion(folder / "confusion.csv", labels, counts)
    written = ["report.json", SETTINGS, OUTCOMES, "confusion.csv", "failures.csv"]
    try:
        from xclip_runtime.evaluation.plots import plot_confusion
    except MissingExtraError as error:
        print_error(f"no confusion.png: {error}")
        return written
    with naming(folder / "confusion.png"):
        plot_confusion(folder / "confusion.png", labels, counts)
    return [*written, "confusion.png"]


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    settings = report["settings"]
    n = report["n"]
    yield f"{n} videos, {len(report['per_class'])} classes, {report['precision']} {settings['provider']}"
    yield f"profile {report['profile']}, {settings['views']} views of {settings['frames']} frames"
    if not n:
        yield "no video could be read"
        return
    for each in [report, *([report["compared"]] if "compared" in report else [])]:
        yield ""
        for k in ("top1", "top5"):
            low, high = each[f"{k}_interval"]
            name = f"{each['precision']} {k.replace('top', 'top-')}"
            yield f"{name} {each[k]:6.1%}   95 % interval {low:.1%} to {high:.1%}"
    if "splits" in report:
        yield from _split_lines(report["splits"])
    if "comparison" in report:
        yield from _comparison_lines(report["comparison"])
    if "swap_check" in report:
        yield from _swap_lines(report["swap_check"])
    yield ""
    worst = sorted(report["per_class"].items(), key=lambda item: item[1]["top1"])
    yield "weakest classes"
    for label, each in worst[:10]:
        yield f"  {each['top1']:6.1%}  {each['right']:4d} of {each['n']:<4d}  {label}"
    if report["errors"]:
        yield f"{len(report['errors'])} videos could not be read and are not counted"


def _split_lines(splits: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    for name, each in splits.items():
        if name.isdecimal() and each["n"]:
            yield f"split {name}: top-1 {each['top1']:.1%}, top-5 {each['top5']:.1%} of {each['n']} videos"
    if splits["mean_top1"] is not None:
        yield f"mean of the splits: top-1 {splits['mean_top1']:.1%}, top-5 {splits['mean_top5']:.1%}"


def _comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    first, second = found["precisions"]
    low, high = found["agreement_interval"]
    yield ""
    yield f"{first} and {second} agree on {found['agreement']:.1%} ({low:.1%} to {high:.1%}) of the same frames"
    only = f"only {first} right {found[f'only_{first}_right']}, only {second} right {found[f'only_{second}_right']}"
    yield f"{only}; McNemar's exact test p = {found['mcnemar_p']:.3g}"
    errors = {name: value for name, value in found["max_abs_logit"].items() if value is not None}
    yield "largest |Δlogit| of a video: " + ", ".join(f"{name} {value:.3f}" for name, value in errors.items())


def _swap_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"names of {', '.join(found['classes'])}"
    for name, key in (("as they are", "straight"), ("exchanged", "swapped")):
        four, every = found[key], found[f"all_{key}"]
        yield f"  {name:12s} {four['value']:6.1%} of these {four['n']}, {every['value']:6.1%} of all {every['n']}"
    yield f"  McNemar's exact test p = {found['mcnemar_p']:.3g}"
