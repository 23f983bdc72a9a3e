"""Tables of docs/benchmarks.md, each from one record in benchmarks/results or a few."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from formatting import read, share_cells, span, table, thousands, where
from gpu_tables import gpu_names
from peer_tables import end_to_end_table, heading, peer_records, vision_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT_VIDEO = "640x272 h264 10 s.mp4"
INT8_GRAPHS = {"models": "", "qdq": ", portable graph"}
PAIRS = {"seen": "seen in training", "held-out": "held out of training, clips and texts both"}


def motion_demo(results: Path) -> Iterator[str]:
    """Accuracy of the embedded model and of its outlier twin, in every precision that was compared."""
    int8 = read(results / "int8-accuracy.json")
    reports = {name: read(results / f"motion-demo-{name}.json") for name in PAIRS}
    rows = [
        ["motion-demo", PAIRS[name], each["precision"], *share_cells(each["top1"], *each["top1_interval"]), each["n"]]
        for name, report in reports.items()
        for each in (report, report["compared"])
    ]
    for name, pairs in PAIRS.items():
        for precision in ("fp32", "int8"):
            share = int8["models"]["outlier twin"][precision][name.replace("-", "_")]
            shown = share_cells(share["value"], share["low"], share["high"])
            rows.append(["outlier twin", pairs, precision, *shown, share["n"]])
    yield table(("model", "pairs of colour and motion", "precision", "top-1", "95 % interval", "n"), rows)
    yield f"Measured on {reports['seen']['date']}, onnxruntime {reports['seen']['versions']['onnxruntime']}."
    rows = []
    graphs = ((f"{name}{of}", model) for part, of in INT8_GRAPHS.items() for name, model in int8[part].items())
    for name, model in graphs:
        errors, same = (f"{model['abs_logit_error'][q]:.3f}" for q in ("p50", "p99", "max")), model["top1_agreement"]
        rows.append([name, *errors, f"{model['logit_std']:.1f}", f"{same['right']} of {same['n']}"])
    columns = ("int8 against fp32", "logit error p50", "p99", "max", "standard deviation of logits", "same top-1")
    yield table(columns, rows)
    yield where(int8)


def typed_labels(results: Path) -> Iterator[str]:
    """Accuracy with labels typed at run time."""
    report = read(results / "motion-demo-typed-labels.json")
    parts = {"held_out": "held out of training", "seen": "seen in training"}
    rows = [
        [title, *share_cells(report[part]["top1"], *report[part]["top1_interval"]), report[part]["n"]]
        for part, title in parts.items()
    ]
    yield table(("pairs of colour and motion", "top-1", "95 % interval", "n"), rows)
    yield f"Measured on {report['held_out']['date']}."


def labels(results: Path) -> Iterator[str]:
    """Time and memory of the prompt graph for large label sets."""
    result = read(results / "labels.json")
    prompt = [row for row in result["rows"] if row["graph"] == "prompt"]
    pieces = [row for row in prompt if row["at_once"] == prompt[0]["at_once"]]
    whole = next(row for row in prompt if row["at_once"] is None)
    header = ("labels", *(thousands(row["labels"]) for row in pieces), f"{thousands(whole['labels'])} in one piece")
    rows = [
        ["ms per label", *(f"{row['ms_a_label']:.3f}" for row in pieces), ""],
        ["MB beyond the loaded model", *(f"{row['megabytes']:.0f}" for row in (*pieces, whole))],
    ]
    yield table(header, rows)
    text = [row["ms_a_label"] for row in result["rows"] if row["graph"] == "text"]
    yield f"Encoding a text takes {span(text, '.1f')} ms, once. {where(result)}"


def retrieval(results: Path) -> Iterator[str]:
    """Recall of the shortlist, retrieval metrics, size and time."""
    result = read(results / "retrieval.json")
    of_all = result["recall_at_10"][str(result["videos"])]
    yield table(("shortlist", *of_all), [["recall@10", *(f"{share:.1%}" for share in of_all.values())]])
    rows = [
        (
            f"{way.replace('_', ' ')}, {score}",
            *(f"{part[r]:.1%}" for r in ("r1", "r5", "r10")),
            f"{part['median_rank']:.0f}",
            part["n"],
        )
        for kind, score in (("prompted", "exact"), ("cosine", "cosine alone"))
        for way, part in result["retrieval"][kind].items()
    ]
    yield table(("", "R@1", "R@5", "R@10", "median rank", "n"), rows)
    size, took, scan = result["bytes_per_video"], result["search_ms"], result["scan"]
    rows = [
        ["a video or window on the disk, fp16 features", f"{size['fp16'] / 1000:.1f} kB"],
        ["the same, `--features fp32`", f"{size['fp32'] / 1000:.1f} kB"],
        ["largest change of a logit by fp16", f"{result['fp16_max_abs_logit']:.3f}"],
        ["a search", f"{took['shortlist']:.0f} ms"],
        ["an exact search", f"{took['exact']:.0f} ms"],
        [
            f"a text against {thousands(scan['windows'])} embeddings of {scan['projection_dim']} numbers",
            f"{scan['nearest_ms']:.0f} ms",
        ],
    ]
    yield table(("", ""), rows)
    yield f"{result['videos']} rendered clips, {result['queries']} texts. {where(result)}"


def installed(results: Path) -> Iterator[str]:
    """Megabytes of installations."""
    result = read(results / "installed.json")
    rows = [
        [name, f"{size['all']:.0f}", f"{size['nvidia']:.0f}" if size["nvidia"] else ""]
        for name, size in result["megabytes"].items()
    ]
    yield table(("installation", "MB", "NVIDIA's libraries of it, MB"), rows)
    yield f"Measured on {result['date']}, Python {result['python']}, {result['system']}."


def parity(results: Path) -> Iterator[str]:
    """Largest difference of a logit from PyTorch in fp32."""
    result = read(results / "parity.json")
    models = result["models"]
    rows = [
        [
            f"`{graph}`",
            *(f"{model[graph]['max_abs_logit']:.2g}" for model in models.values()),
            told["tolerance"] or "reported",
        ]
        for graph, told in next(iter(models.values())).items()
    ]
    yield table(("largest logit error", *models, "allowed"), rows)
    yield where(result)


def peer_tables(results: Path) -> Iterator[str]:
    """Speed, memory, size and exactness beside every peer, on every kind of processor that was measured."""
    for kind, result in peer_records(results).items():
        yield from (f"**{kind}.** {heading(result)}", vision_table(result), end_to_end_table(result))


def decode_table(results: Path) -> Iterator[str]:
    """Time to read a video, beside other readers, and the memory it takes."""
    result = read(results / "decode.json")
    elapsed, processor = ({**result[f"short_{clock}"], **result[f"long_{clock}"]} for clock in ("ms", "processor_ms"))
    names = list(dict.fromkeys(name for row in elapsed.values() for name in row))

    def cell(title: str, name: str) -> str:
        wrong = result["wrong_frames"].get(title, {}).get(name, 0)
        ms = elapsed[title].get(name, math.nan)
        return ("" if math.isnan(ms) else f"{ms:.0f}") + (f" ({wrong:.0f} wrong)" if wrong > 0 else "")

    rows = [[title, *(cell(title, name) for name in names), f"{processor[title]['ours']:.0f}"] for title in elapsed]
    yield table(("ms", *names, "ours, processor"), rows)
    prepared = ", ".join(f"{name} {ms:.0f} ms" for name, ms in result["prepare_ms"]["1080p"].items())
    peaks = ", ".join(f"{title} {peak:.0f} MiB" for title, peak in result["peak_mib"]["4k"].items())
    others = ("architecture", "cpu", "cpus")
    versions = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if name not in others)
    yield f"Preparing 32 frames of 1080p in memory: {prepared}. Peak memory above an idle process: {peaks}."
    yield f"Measured on {result['date']}: {result['machine']['cpu']}, {result['machine']['cpus']} cores, {versions}."


def pipeline(results: Path) -> Iterator[str]:
    """Time that reading ahead saves."""
    result = read(results / "pipeline.json")
    cpus = result["cpus"]
    arms = {"reading alone": "decode", "the model alone": "inference", "one after the other": "in turn"}
    arms["reading ahead"] = f"{cpus} workers"
    rows = [
        [
            f"{run['videos']} clips, {run['clips']}",
            *(f"{run['seconds'][arm]['elapsed']:.2f}" for arm in arms.values()),
            f"{run['bound_s']:.2f}",
        ]
        for run in result["runs"]
        if run["model"]["threads"] == cpus
    ]
    yield table(("seconds", *arms, "lower bound"), rows)
    yield f"motion-demo, {cpus} cores, {result['date']}, {result['machine']['cpu']}."


def stream_table(results: Path) -> Iterator[str]:
    """Time that overlapping windows save by sharing frames."""
    result = read(results / "stream.json")
    hops = result["ms_by_hop"]
    arms = {"frames shared, as `stream` does": "shared", "every window read by itself": "anew"}
    rows = [[title, *(f"{times[arm]:.0f}" for times in hops.values())] for title, arm in arms.items()]
    yield table(("ms per window; hop", *(f"{float(hop):g} s" for hop in hops)), rows)
    yield (
        f"Windows of {result['window_s']:g} s ({result['frames']} frames) of a 720p stream, {result['cpus']} cores, "
        f"{result['date']}, {result['machine']['cpu']}."
    )


def serve_tables(results: Path) -> Iterator[str]:
    """Cost of serving, and behaviour under load."""
    result = read(results / "serve.json")
    rows = [
        [
            part.get("model", result["model"]),
            what,
            *(f"{part[f'{what}, {how}']['p50_ms']:.0f}" for how in ("bare", "served")),
            f"{added:.0f}",
            "{value:.1f} % ({low:.1f} to {high:.1f})".format(**part["added_percent"][what]),
        ]
        for part in result.values()
        if isinstance(part, dict) and "added_ms" in part
        for what, added in part["added_ms"].items()
    ]
    yield table(("model", "request", "bare ms", "served ms", "added ms", "added, 95 % interval"), rows)
    columns = (("per_second", "answers/s", 1), ("p50_ms", "p50 ms", 0), ("p95_ms", "p95 ms", 0))
    rows = [
        [video["clients"], *(f"{each[key]:.{digits}f}" for each in (video, clip) for key, _, digits in columns)]
        for video, clip in zip(result["load"]["video"], result["load"]["clip"], strict=True)
    ]
    yield table(("clients", *(f"{what}: {title}" for what in ("video", "clip") for _, title, _ in columns)), rows)
    memory, burst, kill = result["memory"], result["burst"], result["kill"]
    quick = result.get("latency", {})
    server, workers = ([each[who] for each in memory["rounds"]] for who in ("server", "workers"))
    rows = [
        *([f"{what}: p50, p95 ms", f"{ms['p50_ms']:.1f}, {ms['p95_ms']:.1f}"] for what, ms in quick.items()),
        ["requests for the rows of memory", sum(each["requests"] for each in memory["rounds"])],
        ["memory of the server, MB", f"{span(server, '.0f')}; first {server[0]:.0f}, last {server[-1]:.0f}"],
        ["memory of its workers, MB", span(workers, ".0f")],
        ["open files at the end", memory["open_files"]],
        [f"{burst['flood']['clients']} clients, queue of {burst['queue']}", _answers(burst["flood"])],
        ["the same server afterwards", _answers(burst["after"])],
        [f"{kill['workers_killed']} workers killed with SIGKILL", _answers(kill["during"])],
        ["the same server afterwards", _answers(kill["after"])],
    ]
    yield table(("", ""), rows)
    yield f"{result['date']}, {result['cpu']}, {result['cpus']} cores, onnxruntime {result['onnxruntime']}."


def _answers(load: dict[str, Any]) -> str:
    good = load["requests"] - load["refused"] - load["failed"]
    errors = f"{load['refused']} answered with an error, {load['failed']} without an answer"
    return f"of {load['requests']} requests {good} answered with 200, {errors}"


def machines(results: Path) -> Iterator[str]:
    """Processor time of a clip, and the throughput that follows from it."""
    decode, peers, gpu = read(results / "decode.json"), peer_records(results), read(results / "gpu.json")
    decoding = decode["short_processor_ms"][SHORT_VIDEO]["ours"] / 1000
    long = [row["ours"] / 1000 for row in decode["long_processor_ms"].values()]
    rows = []
    for kind, name in itertools.product(peers, ("fp32", "int8")):
        vision = peers[kind]["vision"]["arms"][f"ours-{name}"]["seconds_median"] * peers[kind]["options"]["threads"]
        clip = decoding + vision
        an_hour = thousands(round(64 * 3600 / clip, -2))
        of_long = max(long) / (max(long) + vision)
        rows.append([kind, name, f"{decoding:.2f}", f"{vision:.1f}", f"{clip / 3.6:.1f}", an_hour])
        rows[-1] += [f"{decoding / clip:.0%}", f"{of_long:.0%}"]
    columns = ("processor", "precision", f"decode ({SHORT_VIDEO}), processor s", "vision, processor s")
    columns += ("cores for 1000 clips an hour", "clips an hour of 64 cores", "share of decoding")
    yield table((*columns, "the same, ten-minute files"), rows)
    best = max(gpu["sweep"], key=lambda row: row["model"]["clips_per_second"])
    rate = best["model"]["clips_per_second"]
    yield (
        f"ViT-B/16, 32 frames; decoding on {decode['machine']['cpu']}. Ten minutes of 720p take "
        f"{span(long, '.0f')} processor seconds to decode. An {gpu_names(gpu)} takes up to {rate:.0f} clips/s "
        f"({best['precision']}, batches of {best['batch']}); {rate * decoding:.0f} of these cores would have to decode."
    )


def threads_table(results: Path) -> Iterator[str]:
    """Effect of threads, batches and neighbours on the int8 graph."""
    result = read(results / "threads.json")
    arms: dict[str, dict[str, str]] = {}
    for row in result["rows"]:
        decoded = f", {row['decoded_per_s']:.0f} frames decoded/s" if row["decoder"] else ""
        arms.setdefault(row["name"].replace(f", {row['goal']}", ""), {})[row["goal"]] = (
            f"{row['clips_per_s']:.2f}{decoded}"
        )
    rows = [[arm, *(goals.get(goal, "") for goal in ("throughput", "latency"))] for arm, goals in arms.items()]
    yield table(("clips/s in all", "throughput (idle threads sleep)", "latency (they spin)"), rows)
    yield f"Medians of {result['rounds']} rounds. {where(result)}"


def openvino_table(results: Path) -> Iterator[str]:
    """Speed and error of OpenVINO's provider in every precision."""
    result = read(results / "openvino.json")
    keys = (("seconds_median", 2), ("ratio_to_cpu_int8", 2), ("load_s", 1), ("logit_p50", 4), ("logit_max", 3))
    rows = [[arm["what"], *(f"{arm[key]:.{digits}f}" for key, digits in keys)] for arm in result["arms"]]
    yield table(("", "s/clip", "/ CPU int8", "load s", "logit error p50", "max"), rows)
    yield f"ViT-B/16, 32 frames, seeded weights, {result['rounds']} rounds in turns. {where(result)}"


def outlier_twin(results: Path) -> Iterator[str]:
    """Error of the CPU graphs of the full-size model, on its outlier twin as well."""
    result = read(results / "outlier-twin.json")
    found = result["accuracy"]
    rows = [
        (
            name,
            *(f"{arm[q]:.3f}" for q in ("p50", "p99", "max")),
            f"{round(arm['top1_agreement'] * found['clips'])} of {found['clips']}",
        )
        for name, arm in found["arms"].items()
    ]
    yield table(("graph", "logit error p50", "p99", "max", "same top-1"), rows)
    yield f"The logits have a standard deviation of {found['logit_std']:.1f}. {where(result)}"
