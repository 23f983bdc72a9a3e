"""Commands ``xclip-onnx bench`` and ``xclip-onnx bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.bench.plan import INPUTS, SCENARIOS, SWEEPS, Conditions, Plan
from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_error, print_json
from xclip_runtime.cli.parameters import Number
from xclip_runtime.errors import ReportError
from xclip_runtime.util.locks import locked
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


DEFAULTS = Conditions()


@click.group("bench", invoke_without_command=True)
@opt.demo_bundle_option
@opt.option(
    "--video",
    "videos",
    metavar="VIDEO",
    multiple=True,
    show_default="the embedded sample",
    help="File, folder or pattern to classify; repeatable.",
)
@opt.option(
    "--scenario",
    "scenarios",
    type=click.Choice(SCENARIOS),
    multiple=True,
    default=SCENARIOS,
    help="MLPerf scenario to run; repeatable.",
)
@opt.option(
    "--sweep", "sweeps", type=click.Choice(SWEEPS), multiple=True, default=SWEEPS, help="Sweep to run; repeatable."
)
@opt.option("--no-sweeps", is_flag=True, help="Skip the sweeps.")
@opt.option(
    "--duration",
    metavar="SECONDS",
    type=Number(0),
    default=DEFAULTS.duration,
    help="Minimum duration of a run, seconds.",
)
@opt.option("--count", metavar="N", type=opt.COUNT, default=DEFAULTS.count, help="Minimum number of queries of a run.")
@opt.option(
    "--input",
    "source",
    type=click.Choice(INPUTS),
    default="clip",
    help="Samples: prepared clips in memory, or files to read and decode as well.",
)
@opt.batch_size_option(type=opt.COUNT, aliases=("--batch",), default=1)
@opt.option(
    "--samples-per-query",
    metavar="N",
    type=opt.COUNT,
    default=DEFAULTS.samples_per_query,
    help="Samples per MultiStream query.",
)
@opt.option(
    "--latency-bound",
    metavar="MS",
    type=opt.POSITIVE,
    show_default="4 x the p90 of a closed loop",
    help="Latency bound of Server, milliseconds.",
)
@opt.option(
    "--server-percentile",
    metavar="P",
    type=Number(1, 99.9),
    default=DEFAULTS.server_percentile,
    help="Percentage of Server queries within the bound; MLPerf's 99 needs --count 100.",
)
@opt.option(
    "--concurrency", metavar="N", type=opt.COUNT, default=DEFAULTS.concurrency, help="Concurrent queries of Server."
)
@opt.option("--cold-starts", metavar="N", type=click.IntRange(0), default=3, help="Fresh processes to time.")
@opt.option(
    "--generator",
    type=click.Choice(["auto", "loadgen", "plain"]),
    default="auto",
    help="Load generator: MLCommons' LoadGen (extra [bench]) or plain loops; auto is LoadGen if it is installed.",
)
@opt.output_option(
    metavar="FOLDER",
    aliases=("--report",),
    help="Write report.json and a web page with plots to this folder (extra [bench]).",
)
@opt.json_option
@opt.model_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure latency, throughput and memory on this machine.

    Also measures the stages and the cold start. The scenarios are MLPerf's in short runs: MLPerf-style, not MLPerf
    results. A run lasts --duration seconds and --count queries at least; warm-up is not counted.
    """
    if ctx.invoked_subcommand is None:
        _bench(**options)


@command.command("compare")
@click.argument("a", type=click.Path(), metavar="A.json")
@click.argument("b", type=click.Path(), metavar="B.json")
@opt.option("--force", is_flag=True, help="Compare even if machine or settings differ.")
@opt.json_option
def compare(a: str, b: str, *, force: bool, as_json: bool) -> None:
    """Compare two reports.

    Prints the ratios of B.json to A.json, with 95 % bootstrap intervals. Bundle, precision and versions may differ;
    reports of another machine, thread count, videos or other settings are refused.
    """
    from xclip_runtime.bench.report import compared, differences, read_report

    first, second = read_report(a), read_report(b)
    differing = differences(first, second)
    if differing and not force:
        message = (
            f"{a} and {b} cannot be compared, they differ in {'; '.join(differing)}: measure again with the same "
            "settings, or pass --force"
        )
        raise ReportError(message)
    rows = compared(first, second)
    if as_json:
        others = [report["others_cpu"] for report in (first, second)]
        document = {"a": a, "b": b, "differences": differing, "others_cpu": others, "metrics": rows}
        print_json(document, indent=2)
    else:
        _print_comparison(first, second, differing, rows)


def _bench(
    *,
    bundle: str,
    videos: Sequence[str],
    scenarios: Sequence[Any],
    sweeps: Sequence[Any],
    no_sweeps: bool,
    source: Any,
    batch_size: int,
    cold_starts: int,
    generator: Any,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    opt.silence_native_logs()
    from xclip_runtime.bench.run import bench
    from xclip_runtime.bench.scenarios import loadgen_available
    from xclip_runtime.cli.inputs import expand
    from xclip_runtime.cli.render import stages
    from xclip_runtime.demo import DEMO_VIDEO

    if output is not None:
        from xclip_runtime.bench.page import write_page  # Fails before the run if the extra is missing.
    if generator == "auto":
        generator = "loadgen" if loadgen_available() else "plain"
    conditions = Conditions(**opt.pop_fields(options, Conditions))
    plan = Plan(
        bundle=bundle,
        videos=tuple(expand(videos)) or (str(DEMO_VIDEO),),
        options=options,
        scenarios=tuple(scenarios),
        sweeps=() if no_sweeps else tuple(sweeps),
        conditions=conditions,
        input=source,
        batch_size=batch_size,
        cold_starts=cold_starts,
        generator=generator,
    )
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
    with locked(output, inside=True):
        with stages("loading") as progress:
            report = bench(plan, progress)
        if output is not None:
            with naming(output):
                written = write_page(Path(output), report)
            print_error(f"wrote {', '.join(written)} to {output}")
    if as_json:
        print_json(report, indent=2)
    else:
        _print(report)


def _print(report: Mapping[str, Any]) -> None:
    from xclip_runtime.bench.load import quantile
    from xclip_runtime.bench.report import disturbance, plain, scenario_rows
    from xclip_runtime.cli.render import console, table

    screen, model, machine = console(), report["model"], report["machine"]
    screen.print(f"{model['name']} {model['precision']} on {model['provider']}", style="bold")
    screen.print(f"{machine['cpu']}, {machine['cpus_usable']} CPUs, {model['threads']} intra-op threads")
    screen.print(f"\nMLPerf-style, short runs, load by {report['settings']['generator']}")
    screen.print(table(*scenario_rows(report), wrap=("metric", "result")))
    for title, values in (("file to labels", report["stages"]), ("cold start", report["cold_start"])):
        lists = {name: series for name, series in (values or {}).items() if isinstance(series, list)}
        if lists:
            medians = " · ".join(f"{name} {quantile(series, 0.5) or series[0]:.4g}" for name, series in lists.items())
            screen.print(f"\n{title}, medians of {len(next(iter(lists.values())))}, ms: {medians}")
    if report["cold_start"] and report["cold_start"]["peak_rss_mb"]:
        screen.print(f"peak RSS of a process that does only this: {report['cold_start']['peak_rss_mb']:.0f} MB")
    for name, points in report["sweeps"].items():
        rows = [
            (f"{p[name]:.3g}", *map(plain, (p["samples_per_second"], latency["p50"], latency["p90"], latency["n"])))
            for p in points
            for latency in (p["latency_ms"],)
        ]
        screen.print()
        screen.print(table((name, "clips/s", "p50 ms", "p90 ms", "n"), rows))
    if note := disturbance(report):
        screen.print(f"\n{note}")


def _print_comparison(
    a: Mapping[str, Any], b: Mapping[str, Any], differing: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    from xclip_runtime.bench.report import disturbance
    from xclip_runtime.cli.render import console, table

    screen = console()
    for name, report in (("A", a), ("B", b)):
        versions = report["software"]["versions"]
        which = f"{report['model']['name']} {report['model']['precision']}, {report['date']}"
        screen.print(f"{name}: {which}, xclip-onnx {versions['xclip-onnx']}, onnxruntime {versions['onnxruntime']}")
        if note := disturbance(report):
            screen.print(f"{name}: {note}", style="bold")
    for difference in differing:
        screen.print(f"differs: {difference}", style="bold")
    cells = [
        (
            row["metric"],
            *(f"{row[side]:.4g} {row['unit']}" for side in "ab"),
            "-" if row["ratio"] is None else f"{row['ratio']:.3f}",
            "-" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"]),
            "{} / {}".format(*row["n"]),
        )
        for row in rows
    ]
    screen.print()
    screen.print(table(("metric", "A", "B", "B / A", "95 % interval", "n"), cells))
