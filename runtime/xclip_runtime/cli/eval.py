"""``xclip-onnx eval``."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from xclip_runtime.bundle import Precision
from xclip_runtime.cli.classify import INTERRUPTED, exit_code
from xclip_runtime.cli.options import (
    bundle_option,
    json_option,
    label_options,
    model_options,
    pop_labels,
    pop_reading,
    reading_options,
    silence_native_logs,
)
from xclip_runtime.cli.results_file import ResultsFile
from xclip_runtime.errors import MissingExtraError
from xclip_runtime.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xclip_runtime.evaluation import Outcome, Sample
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading

SETTINGS, OUTCOMES = "settings.json", "outcomes.jsonl"
FORMATS = ("auto", "folder", "list", "hmdb51", "ucf101")


@click.command("eval")
@click.argument("data", type=click.Path())
@bundle_option
@click.option(
    "--format",
    "layout",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="How DATA is laid out; auto looks for the split files.",
)
@click.option("--split", type=click.IntRange(1, 3), default=1, show_default=True, help="Of HMDB-51 and UCF-101.")
@click.option(
    "--subset", type=click.Choice(["test", "train"]), default="test", show_default=True, help="Part of the split."
)
@click.option("--splits", type=click.Path(), help="Folder of the split files. Default: in DATA or beside it.")
@click.option("--limit", type=click.IntRange(1), help="Only so many videos, taken from the classes in turn.")
@click.option(
    "--compare-precision",
    type=click.Choice(get_args(Precision)),
    nargs=2,
    help="Let two precisions answer on the same decoded frames, and test whether they differ.",
)
@click.option(
    "--swap-check",
    is_flag=True,
    help="Score kick, kick ball, sword and sword exercise of HMDB-51 with their names exchanged, too.",
)
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False), help="Write everything there, crash-safe.")
@click.option("--resume", is_flag=True, help="Go on with the --out of an interrupted run.")
@click.option("--workers", type=click.IntRange(1), help="Threads that read videos ahead of the model.")
@json_option
@label_options
@reading_options
@model_options
def command(
    *,
    data: str,
    bundle: str,
    layout: str,
    split: int,
    subset: str,
    splits: str | None,
    limit: int | None,
    compare_precision: tuple[Precision, Precision] | None,
    swap_check: bool,
    out: str | None,
    resume: bool,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure accuracy on the labelled videos of DATA.

    \b
    DATA is one of
      a folder with a folder of videos for each class;
      a CSV file with the columns path and label, or a text file with a path and a label on each line;
      HMDB-51, with testTrainMulti_7030_splits in it or beside it;
      UCF-101, with ucfTrainTestlist in it or beside it.

    Labels are matched by name; case, underscores, hyphens and blanks do not count. By default as X-CLIP was published:
    uniform frames, profile videox, one view, top-1 and top-5 of the probabilities.

    --out DIR gets report.json, outcomes.jsonl (a line a video), confusion.csv, confusion.png and failures.csv.
    """  # noqa: D301 - click wants the character itself
    if resume and out is None:
        message = "--resume needs --out: name the folder to go on with"
        raise click.UsageError(message)
    if compare_precision and (options["precision"] or compare_precision[0] == compare_precision[1]):
        message = "--compare-precision takes two different ones, such as fp32 int8, and no --precision beside it"
        raise click.UsageError(message)
    silence_native_logs()
    views = options["views"]
    label_settings = {name: options[name] for name in ("labels", "labels_file", "templates") if options[name]}
    reading, with_labels = pop_reading(options), pop_labels(options)
    from xclip_runtime.evaluation import datasets, find_samples, in_turn, with_labels_of  # noqa: PLC0415
    from xclip_runtime.evaluation.report import check_swappable  # noqa: PLC0415
    from xclip_runtime.model import XClip  # noqa: PLC0415 - keeps --help quick

    layout_options = {"split": split, "subset": subset, "splits": splits}
    found = find_samples(data, layout, **layout_options)  # type: ignore[arg-type]
    precisions = compare_precision or (options.pop("precision"),)
    options = {**options, "profile": options["profile"] or "videox"}
    options.pop("precision", None)
    models = [with_labels(XClip(bundle, precision=precision, **options)) for precision in precisions]
    if swap_check:
        check_swappable(models[0].labels)
    samples = in_turn(with_labels_of(found, models[0].labels), limit)
    settings = {
        "data": str(data),
        "format": layout if layout != "auto" else datasets.guess_format(Path(data), splits),
        **layout_options,
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
    outcomes = _run(models, samples, settings, reading=reading, workers=workers, out=out, resume=resume)
    report = _report(outcomes, settings, swap_check=swap_check)
    if out:
        _write(Path(out), report, outcomes)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, out)
    sys.exit(exit_code(len(report["errors"]), len(outcomes)))


def _run(
    models: Sequence[XClip],
    samples: Sequence[Sample],
    settings: Mapping[str, Any],
    *,
    reading: Reading,
    workers: int | None,
    out: str | None,
    resume: bool,
) -> list[Outcome]:
    """Evaluate what is not in ``out`` yet; return the outcomes of all samples, in their order."""
    from xclip_runtime.cli.render import progress_bar  # noqa: PLC0415
    from xclip_runtime.evaluation import evaluate  # noqa: PLC0415

    done, file = _previous(out, settings, resume=resume) if out else ({}, None)
    todo = [sample for sample in samples if sample.video not in done]
    precision = models[0].precision
    try:
        with progress_bar("evaluating", len(samples), len(samples) - len(todo)) as progress:
            for outcome in evaluate(models, todo, reading=reading, workers=workers):
                done[outcome.video] = outcome
                if outcome.error:
                    click.echo(f"xclip-onnx: {outcome.error['message']}", err=True)
                if file:
                    file.append(outcome.to_dict())
                ranks = [o.answers[precision].rank for o in done.values() if not o.error]
                running = f"top-1 {sum(rank == 1 for rank in ranks) / max(len(ranks), 1):.1%}"
                progress.update(progress.task_ids[0], advance=1, description=running)
    except KeyboardInterrupt:
        how = f"; --out {out} --resume goes on from here" if out else ""
        click.echo(f"xclip-onnx: interrupted, {len(done)} of {len(samples)} done{how}", err=True)
        os._exit(INTERRUPTED)
    return [done[sample.video] for sample in samples]


def _previous(out: str, settings: Mapping[str, Any], *, resume: bool) -> tuple[dict[str, Outcome], ResultsFile]:
    """The outcomes of an interrupted run with the same settings, and the file to go on with."""
    from xclip_runtime.evaluation import Outcome  # noqa: PLC0415

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    file = ResultsFile(str(folder / OUTCOMES), resume=resume)
    written = folder / SETTINGS
    if file.finished:
        before = json.loads(written.read_text("utf-8")) if written.is_file() else {}
        changed = sorted(name for name in settings if name != "limit" and before.get(name) != settings[name])
        if changed:
            message = f"{out} was begun with another {', '.join(changed)}: name another --out, or remove it"
            raise click.UsageError(message)
    write_json(written, settings)
    return {o.video: o for o in map(Outcome.from_dict, file.documents())}, file


def _report(outcomes: Sequence[Outcome], settings: Mapping[str, Any], *, swap_check: bool) -> dict[str, Any]:
    from xclip_runtime import __version__  # noqa: PLC0415
    from xclip_runtime.evaluation import accuracy, comparison  # noqa: PLC0415
    from xclip_runtime.evaluation import swap_check as swap  # noqa: PLC0415
    from xclip_runtime.inference.session import onnxruntime_version  # noqa: PLC0415

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


def _write(folder: Path, report: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    from xclip_runtime.evaluation import confusion  # noqa: PLC0415
    from xclip_runtime.evaluation.report import write_confusion, write_failures  # noqa: PLC0415

    write_json(folder / "report.json", report)
    write_failures(folder / "failures.csv", report)
    labels, counts = confusion(outcomes, report["precision"])
    write_confusion(folder / "confusion.csv", labels, counts)
    try:
        from xclip_runtime.evaluation.plots import plot_confusion  # noqa: PLC0415
    except MissingExtraError as error:
        click.echo(f"xclip-onnx: no confusion.png: {error}", err=True)
    else:
        plot_confusion(folder / "confusion.png", labels, counts)


def _print(report: Mapping[str, Any], out: str | None) -> None:
    from xclip_runtime.cli.render import console  # noqa: PLC0415

    screen = console()
    for line in _lines(report):
        screen.print(line)
    if out:
        screen.print(f"{out}: report.json, {OUTCOMES}, confusion.csv, confusion.png, failures.csv", style="dim")


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
