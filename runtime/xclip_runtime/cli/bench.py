"""``xclip-onnx bench`` and ``xclip-onnx bench compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.bench.plan import INPUTS, SCENARIOS, SWEEPS, Conditions, Plan
from xclip_runtime.cli.options import json_option, model_options, silence_native_logs
from xclip_runtime.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.group("bench", invoke_without_command=True)
@click.option(
    "--bundle", "-b", envvar="XCLIP_ONNX_BUNDLE", show_envvar=True, type=click.Path(), help="Default: the demo's."
)
@click.option("--video", "videos", multiple=True, help="File, folder or pattern; may be repeated. Default: the demo's.")
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice(SCENARIOS),
    multiple=True,
    default=SCENARIOS,
    help="May be repeated. Default: all four.",
)
@click.option("--sweep", "sweeps", type=click.Choice(SWEEPS), multiple=True, default=SWEEPS, help="Default: all four.")
@click.option("--no-sweeps", is_flag=True, help="Leave the sweeps out.")
@click.option("--duration", type=click.FloatRange(0), default=3.0, show_default=True, help="Least seconds of each run.")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="Least queries of each run.")
@click.option(
    "--input",
    "source",
    type=click.Choice(INPUTS),
    default="clip",
    show_default=True,
    help="What a sample is: frames in memory, or a file to read and decode as well.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Clips a run of the vision graph.")
@click.option("--samples-per-query", type=click.IntRange(1), default=8, show_default=True, help="Of MultiStream.")
@click.option(
    "--latency-bound",
    type=click.FloatRange(0, min_open=True),
    help="Of Server, in ms. Default: four times the p90 of a closed loop.",
)
@click.option(
    "--server-percentile",
    type=click.FloatRange(1, 99.9),
    default=90.0,
    show_default=True,
    help="Per cent of Server's queries within the bound; MLPerf's 99 needs --count 100.",
)
@click.option(
    "--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Queries Server runs at a time."
)
@click.option("--cold-starts", type=click.IntRange(0), default=3, show_default=True, help="Fresh processes to time.")
@click.option(
    "--generator",
    type=click.Choice(["auto", "loadgen", "plain"]),
    default="auto",
    show_default=True,
    help="Who presses: MLCommons' LoadGen (extra [bench]), or plain loops; auto takes LoadGen where it is.",
)
@click.option(
    "--report", metavar="DIR", type=click.Path(file_okay=False), help="Write a page with plots (extra [bench])."
)
@json_option
@model_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure latency, throughput, stages, cold start and memory of a bundle on this machine.

    The scenarios are MLPerf's, in short runs: MLPerf-style, not MLPerf results. Runs last --duration seconds and
    --count queries at least; warm-up is left out.
    """
    if ctx.invoked_subcommand is None:
        _bench(**options)


@command.command("compare")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--force", is_flag=True, help="Compare although machine or settings differ.")
@json_option
def compare(a: str, b: str, *, force: bool, as_json: bool) -> None:
    """Show the ratios of report B.json to A.json, with 95 % bootstrap intervals.

    Bundle, precision and versions may differ. Where machine, threads, videos or other settings do, the comparison is
    refused.
    """
    from xclip_runtime.bench.compare import compared, differences, read_report  # noqa: PLC0415 - keeps --help quick

    first, second = read_report(a), read_report(b)
    differing = differences(first, second)
    if differing and not force:
        message = (
            f"{a} and {b} cannot be compared, they differ in {'; '.join(differing)}: measure again alike, or --force"
        )
        raise ReportError(message)
    rows = compared(first, second)
    if as_json:
        others = [report["others_cpu"] for report in (first, second)]
        found = {"a": a, "b": b, "differences": differing, "others_cpu": others, "metrics": rows}
        click.echo(json.dumps(found, indent=2))
    else:
        _print_comparison(first, second, differing, rows)


def _bench(
    *,
    bundle: str | None,
    videos: Sequence[str],
    scenarios: Sequence[str],
    sweeps: Sequence[str],
    no_sweeps: bool,
    source: str,
    batch: int,
    cold_starts: int,
    generator: str,
    report: str | None,
    as_json: bool,
    duration: float,
    count: int,
    samples_per_query: int,
    latency_bound: float | None,
    server_percentile: float,
    concurrency: int,
    **options: Any,
) -> None:
    silence_native_logs()
    from xclip_runtime.bench.run import bench  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.bench.scenarios import loadgen_available  # noqa: PLC0415
    from xclip_runtime.cli.inputs import expand  # noqa: PLC0415
    from xclip_runtime.cli.render import error_console  # noqa: PLC0415
    from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO  # noqa: PLC0415

    if report is not None:
        from xclip_runtime.bench.page import write_page  # noqa: PLC0415 - says at once if the extra is missing
    plan = Plan(
        bundle=bundle or str(DEMO_BUNDLE),
        videos=tuple(expand(videos)) or (str(DEMO_VIDEO),),
        options=options,
        scenarios=tuple(scenarios),  # type: ignore[arg-type]
        sweeps=() if no_sweeps else tuple(sweeps),  # type: ignore[arg-type]
        conditions=Conditions(duration, count, samples_per_query, latency_bound, server_percentile / 100, concurrency),
        input=source,  # type: ignore[arg-type]
        batch_size=batch,
        cold_starts=cold_starts,
        generator=("loadgen" if loadgen_available() else "plain") if generator == "auto" else generator,  # type: ignore[arg-type]
    )
    err = error_console()
    with err.status("loading") as status:

        def progress(stage: str) -> None:
            status.update(stage)
            if not err.is_terminal:
                err.print(stage)

        found = bench(plan, progress)
    if report is not None:
        written = write_page(Path(report), found)
        click.echo(f"xclip-onnx: wrote {', '.join(written)} to {report}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)
    sys.exit(0)


def _print(report: Mapping[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415

    from xclip_runtime.bench.latency import quantile  # noqa: PLC0415
    from xclip_runtime.bench.tables import disturbance, scenario_rows  # noqa: PLC0415
    from xclip_runtime.cli.render import console  # noqa: PLC0415

    screen, model, machine = console(), report["model"], report["machine"]
    screen.print(f"{model['name']} {model['precision']} on {model['provider']}", style="bold")
    screen.print(f"{machine['cpu']}, {machine['cpus_usable']} CPUs, {model['intra_op_threads']} intra-op threads")
    header, rows = scenario_rows(report)
    screen.print(f"\nMLPerf-style, short runs, load by {report['settings']['generator']}")
    table = Table(box=None)
    for name in header:
        table.add_column(name, no_wrap=name not in ("metric", "result"))
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    for title, values in (("file to labels", report["stages"]), ("cold start", report["cold_start"])):
        lists = {name: series for name, series in (values or {}).items() if isinstance(series, list)}
        if lists:
            stages = " · ".join(f"{name} {quantile(series, 0.5) or series[0]:.4g}" for name, series in lists.items())
            screen.print(f"\n{title}, medians of {len(next(iter(lists.values())))}, ms: {stages}")
    if report["cold_start"] and report["cold_start"]["peak_rss_mb"]:
        screen.print(f"peak RSS of a process that does only this: {report['cold_start']['peak_rss_mb']:.0f} MB")
    for name, points in report["sweeps"].items():
        table = Table(name, "clips/s", "p50 ms", "p90 ms", "n", box=None)
        for p in points:
            latency = p["latency_ms"]
            cells = (p["samples_per_second"], latency["p50"], latency["p90"])
            table.add_row(
                f"{p[name]:.3g}", *("-" if cell is None else f"{cell:.4g}" for cell in cells), str(latency["n"])
            )
        screen.print()
        screen.print(table)
    if said := disturbance(report):
        screen.print(f"\n{said}")


def _print_comparison(
    a: Mapping[str, Any], b: Mapping[str, Any], differing: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    from rich.table import Table  # noqa: PLC0415

    from xclip_runtime.bench.tables import disturbance  # noqa: PLC0415
    from xclip_runtime.cli.render import console  # noqa: PLC0415

    screen = console()
    for name, report in (("A", a), ("B", b)):
        versions = report["software"]["versions"]
        which = f"{report['model']['name']} {report['model']['precision']}, {report['date']}"
        screen.print(f"{name}: {which}, xclip-onnx {versions['xclip-onnx']}, onnxruntime {versions['onnxruntime']}")
        if said := disturbance(report):
            screen.print(f"{name}: {said}", style="bold")
    for difference in differing:
        screen.print(f"differs: {difference}", style="bold")
    table = Table("metric", "A", "B", "B / A", "95 % interval", "n", box=None)
    for row in rows:
        interval = "-" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        values = (f"{row[side]:.4g} {row['unit']}" for side in "ab")
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        table.add_row(row["metric"], *values, ratio, interval, "{} / {}".format(*row["n"]))
    screen.print()
    screen.print(table)
