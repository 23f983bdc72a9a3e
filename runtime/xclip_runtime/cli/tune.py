"""Command ``xclip-onnx tune``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_error, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xclip_runtime.tuning.report import Row
    from xclip_runtime.tuning.run import TuningReport


@click.command("tune")
@opt.bundle_alias
@opt.bundle_option
@opt.option(
    "--video",
    "videos",
    metavar="VIDEO",
    multiple=True,
    help="File, folder or pattern to calibrate with, beside the built-in clips; repeatable.",
)
@opt.option(
    "--budget", metavar="SECONDS", type=opt.POSITIVE, default=120.0, help="Time budget of the measurement, seconds."
)
@opt.max_logit_error_option
@opt.json_option
def command(bundle: str, videos: Sequence[str], budget: float, max_logit_error: float, as_json: bool) -> None:
    """Choose the fastest engine of this machine by measurement.

    Every engine, precision and number of threads runs in a process of its own, in turns; --device auto then takes the
    fastest whose error is small enough. Errors are relative to fp32 on the CPU. The result is kept in the
    user's cache, for this processor, these limits of the container, these versions and this bundle.
    """
    opt.silence_native_logs()
    from xclip_runtime.cli.inputs import expand
    from xclip_runtime.cli.render import stages
    from xclip_runtime.tuning.run import tune

    names = tuple(expand(videos))
    with stages("reading the calibration clips") as progress:
        report = tune(bundle, videos=names, budget=budget, max_logit_error=max_logit_error, progress=progress)
    if report.not_saved is not None:
        print_error(f"the choice could not be saved, --device auto stays as it is: {report.not_saved}")
    if as_json:
        print_json(report.to_dict(), indent=2)
    else:
        _print(report)


def _print(report: TuningReport) -> None:
    from xclip_runtime.cli.render import console, table

    out, rounds, machine = console(), report.rounds, report.machine
    out.print(f"{report.bundle} on {machine['processor']}, {machine['cpus']} CPUs", style="bold")
    header = "engine", "threads", "s/clip", "clips/s", "MB", "load s", "Δ p50", "Δ max", "top-1", "of peak"
    out.print(table(header, [_cells(row) for row in report.rows if row.problem is None]))
    for row in report.rows:
        if row.problem is not None:
            threads = "" if row.threads is None else f", {row.threads} threads"
            out.print(f"{row.device} {row.precision}{threads}: {row.problem}")
    products = "" if report.gflop_per_clip is None else f"; {report.gflop_per_clip:.4g} GFLOP of products a clip"
    counted = f"Medians of {rounds.done} full rounds in {rounds.seconds:.0f} s"
    out.print(f"{counted}; Δ is |Δlogit| to {report.reference}{products}.")
    graphs = dict.fromkeys(f"{row.device} {row.precision} {row.graph}" for row in report.rows)
    out.print(f"Graphs: {', '.join(graphs)}.")
    if rounds.cut:
        out.print(f"The budget ended {rounds.planned - rounds.done} of {rounds.planned} rounds early.")
    bound = f"an error of at most {report.max_logit_error:g}"
    if report.chosen is None:
        out.print(f"Nothing has {bound}: --device auto keeps the default.")
    else:
        out.print(f"--device auto takes {report.chosen} for {bound} (--max-logit-error).")
    fastest = report.rows[0]
    if fastest.max_abs_logit is not None and fastest.max_abs_logit > report.max_logit_error:
        least = math.ceil(fastest.max_abs_logit * 100) / 100
        out.print(f"Fastest of all: {fastest.device} {fastest.precision}, with --max-logit-error {least:g}.")
    if report.saved is not None:
        out.print(f"Saved in {report.saved}")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.device} {row.precision}",
        "-" if row.threads is None else str(row.threads),
        _number(row.seconds, ".3g"),
        _number(row.clips_per_second, ".3g"),
        _number(row.memory_mb, ".0f"),
        _number(row.load_seconds, ".2f"),
        _number(row.p50_abs_logit, ".2g"),
        _number(row.max_abs_logit, ".2g"),
        _number(row.top1_agreement, ".0%"),
        _number(row.share_of_peak, ".0%"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
