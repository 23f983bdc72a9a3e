"""Write the measured numbers of README.md, docs/ and the logs from the JSON in benchmarks/results.

    python benchmarks/figures.py            # rewrite the blocks
    python benchmarks/figures.py --check    # exit 1 if a block differs from what the JSON says; the tests do this

A block stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*-log.md")),
)
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->)\n.*?(<!-- end of figures -->)", re.DOTALL)
SHORT_VIDEO = "640x272 h264 10 s.mp4"
WIDTH = 120
PAIRS = {"seen": "seen in training", "held-out": "held out of training, clips and texts both"}


def motion_demo(results: Path) -> Iterator[str]:
    """Accuracy of the embedded model and of its outlier twin, in every precision that was compared."""
    reports = {name: _read(results / f"motion-demo-{name}.json") for name in PAIRS}
    int8 = _read(results / "int8-accuracy.json")
    rows = []
    for name, pairs in PAIRS.items():
        for report in (reports[name], reports[name]["compared"]):
            interval = _interval(*report["top1_interval"])
            rows.append(["motion-demo", pairs, report["precision"], f"{report['top1']:.1%}", interval, report["n"]])
    for name, pairs in PAIRS.items():
        for precision in ("fp32", "int8"):
            share = int8["models"]["outlier twin"][precision][name.replace("-", "_")]
            interval = _interval(share["low"], share["high"])
            rows.append(["outlier twin", pairs, precision, f"{share['value']:.1%}", interval, share["n"]])
    yield _table(("model", "pairs of colour and motion", "precision", "top-1", "95 % interval", "n"), rows)
    mistakes = Counter((m["label"], m["answer"]) for m in reports["held-out"]["mistakes"])
    (label, answer), most = mistakes.most_common(1)[0]
    agreed = sum(round(r["comparison"]["agreement"] * r["comparison"]["n"]) for r in reports.values())
    n = sum(r["comparison"]["n"] for r in reports.values())
    measured = f"{reports['seen']['date']} with onnxruntime {reports['seen']['versions']['onnxruntime']}"
    yield (
        f"Of the {mistakes.total()} mistakes of fp32 on held-out pairs, {most} take `{label}` for `{answer}`. "
        f"fp32 and int8 give the same answer for {agreed} of all {n} videos. Measured on {measured}."
    )
    rows = []
    for name, model in int8["models"].items():
        error, same = model["abs_logit_error"], model["top1_agreement"]
        rows.append([name, *(f"{error[q]:.3f}" for q in ("p50", "p99", "max")), f"{same['right']} of {same['n']}"])
    deviation = int8["models"]["motion-demo"]["logit_std"]
    yield f"int8 against fp32 on the same frames; the logits have a standard deviation of {deviation:.1f}:"
    yield _table(("model", "logit error p50", "p99", "max", "same top-1"), rows)
    yield _where(int8)


def typed_labels(results: Path) -> Iterator[str]:
    """Accuracy with texts that were typed at run time."""
    result = _read(results / "motion-demo-typed-labels.json")
    parts = []
    for part, pairs in (("held_out", "held out of training"), ("seen", "that training saw")):
        report = result[part]
        right = f"{report['top1']:.1%} ({round(report['top1'] * report['n'])} of {report['n']}"
        parts.append(f"{right}, 95 % interval {_interval(*report['top1_interval'])}) of the pairs {pairs}")
    yield f"{' and '.join(parts)}, on {result['held_out']['date']}."


def labels(results: Path) -> Iterator[str]:
    """Time and memory of the prompt graph for large label sets."""
    result = _read(results / "labels.json")
    prompt = [row for row in result["rows"] if row["graph"] == "prompt"]
    pieces = [row for row in prompt if row["at_once"] == prompt[0]["at_once"]]
    yield _table(
        ("labels", *(_thousands(row["labels"]) for row in pieces)),
        [
            ["ms a label", *(f"{row['ms_a_label']:.3f}" for row in pieces)],
            ["MB beyond the loaded model", *(f"{row['megabytes']:.0f}" for row in pieces)],
        ],
    )
    whole = next(row for row in prompt if row["at_once"] is None)
    text = [row["ms_a_label"] for row in result["rows"] if row["graph"] == "text"]
    yield (
        f"In one piece, {_thousands(whole['labels'])} labels take {whole['megabytes']:.0f} MB. "
        f"Encoding a text takes {_range(text, '.1f')} ms, once. {_where(result)}"
    )


def retrieval(results: Path) -> Iterator[str]:
    """What a shortlist misses, what a search and a video cost, and how well words find videos."""
    result = _read(results / "retrieval.json")
    size, took, scan = result["bytes_per_video"], result["search_ms"], result["scan"]
    yield (
        f"How many of the ten best of an exact search are on the shortlist, {result['videos']} rendered clips of "
        f"motion-demo, {result['queries']} texts:"
    )
    of_all = result["recall_at_10"][str(result["videos"])]
    yield _table(("shortlist", *of_all), [["recall@10", *(f"{share:.1%}" for share in of_all.values())]])
    yield "How well texts find their videos and videos their texts, as `index eval` measures it:"
    directions = {
        ("text to video", "exact"): result["retrieval"]["prompted"]["text_to_video"],
        ("text to video", "cosine alone"): result["retrieval"]["cosine"]["text_to_video"],
        ("video to text", "exact"): result["retrieval"]["prompted"]["video_to_text"],
        ("video to text", "cosine alone"): result["retrieval"]["cosine"]["video_to_text"],
    }
    rows = [
        [*names, *(f"{part[r]:.1%}" for r in ("r1", "r5", "r10")), f"{part['median_rank']:.0f}", part["n"]]
        for names, part in directions.items()
    ]
    yield _table(("", "score", "R@1", "R@5", "R@10", "median rank", "n"), rows)
    yield (
        f"A video, or a window, takes {size['fp16'] / 1000:.1f} kB on the disk, {size['fp32'] / 1000:.1f} kB with "
        f"`--features fp32`; fp16 moves a logit by at most {result['fp16_max_abs_logit']:.3f}. A search takes "
        f"{took['shortlist']:.0f} ms, an exact one {took['exact']:.0f} ms. To compare a text with "
        f"{_thousands(scan['windows'])} embeddings of {scan['projection_dim']} numbers takes {scan['nearest_ms']:.0f} "
        f"ms, and more take longer in proportion. {_where(result)}"
    )


def index_size(results: Path) -> Iterator[str]:
    """What the database of the index adds to an installation."""
    result = _read(results / "installed.json")
    size = {name: sizes["all"] for name, sizes in result["megabytes"].items()}
    ours, lancedb = (size[name] - size["runtime"] for name in ("index", "lancedb"))
    yield f"Beside the runtime it installs {ours:.0f} MB, where LanceDB installs {lancedb:.0f} MB ({result['date']})."


def image_size(results: Path) -> Iterator[str]:
    """What the images add to Python's own."""
    result = _read(results / "installed.json")
    cpu, cuda = (result["megabytes"][f"server {name}"] for name in ("cpu", "cuda"))
    yield (
        f"Their packages take {cpu['all']:.0f} MB for the CPU and {cuda['all'] / 1000:.1f} GB for CUDA, "
        f"{cuda['nvidia'] / 1000:.1f} GB of it NVIDIA's libraries ({result['date']}, Python {result['python']}, "
        f"{result['system']})."
    )


def parity(results: Path) -> Iterator[str]:
    """How far the graphs are from PyTorch."""
    result = _read(results / "parity.json")
    models = result["models"]
    rows = []
    for graph, told in next(iter(models.values())).items():
        errors = (f"{model[graph]['max_abs_logit']:.2g}" for model in models.values())
        rows.append([f"`{graph}`", *errors, told["tolerance"] or "reported"])
    yield _table(("largest logit error", *models, "allowed"), rows)
    yield _where(result)


def peer_tables(results: Path) -> Iterator[str]:
    """Speed, memory, size and exactness beside every peer."""
    result = _read(results / "peers.json")
    yield peers.heading(result)
    yield peers.vision_table(result)
    if "end_to_end" in result:
        yield peers.end_to_end_table(result)


def decode_table(results: Path) -> Iterator[str]:
    """Time to read a video, beside other ways to read it, and the memory that it takes."""
    result = _read(results / "decode.json")
    elapsed, processor = ({**result[f"short_{clock}"], **result[f"long_{clock}"]} for clock in ("ms", "processor_ms"))
    names = list(dict.fromkeys(name for row in elapsed.values() for name in row))

    def cell(title: str, name: str) -> str:
        wrong = result["wrong_frames"].get(title, {}).get(name, 0)
        return _milliseconds(elapsed[title].get(name, math.nan)) + (f" ({wrong:.0f} wrong)" if wrong > 0 else "")

    rows = [
        [title, *(cell(title, name) for name in names), _milliseconds(processor[title]["ours"])] for title in elapsed
    ]
    yield _table(("ms", *names, "ours, processor"), rows)
    prepared = ", ".join(f"{name} {ms:.0f} ms" for name, ms in result["prepare_ms"]["1080p"].items())
    peaks = ", ".join(f"{title} {peak:.0f} MiB" for title, peak in result["peak_mib"]["4k"].items())
    others = ("architecture", "cpu", "cpus")
    versions = ", ".join(f"{name} {value}" for name, value in result["machine"].items() if name not in others)
    yield (
        "Medians of elapsed time; the last column is processor time; so many wrong: of 32 frames, others than a full "
        "decode has there. Preparing 32 1080p pictures in memory: "
        f"{prepared}. Peak memory above an idle process: {peaks}. Measured on {result['date']}: "
        f"{result['machine']['cpu']}, {result['machine']['cpus']} cores, {versions}."
    )


def _milliseconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}"


def pipeline(results: Path) -> Iterator[str]:
    """What reading ahead hides."""
    result = _read(results / "pipeline.json")
    cpus = result["cpus"]
    runs = [run for run in result["runs"] if run["model"]["intra_op_threads"] == cpus]
    yield f"Seconds with {runs[0]['model']['bundle']} on {cpus} cores ({result['date']}, {result['machine']['cpu']}):"
    arms = {
        "reading alone": "decode",
        "the model alone": "inference",
        "one after the other": "in turn",
        "reading ahead": f"{cpus} workers",
    }
    rows = [
        [
            f"{run['videos']} clips, {run['clips']}",
            *(f"{run['seconds'][arm]['elapsed']:.2f}" for arm in arms.values()),
            f"{run['bound_s']:.2f}",
        ]
        for run in runs
    ]
    yield _table(("", *arms, "least possible"), rows)


def stream_table(results: Path) -> Iterator[str]:
    """What overlapping windows of a stream gain from frames that they share."""
    result = _read(results / "stream.json")
    window, hops = result["window_s"], result["ms_by_hop"]
    yield (
        f"Milliseconds to decode and resize a window of {window:g} s ({result['frames']} frames) of a 720p stream on "
        f"{result['cpus']} cores, without the model ({result['date']}, {result['machine']['cpu']}):"
    )
    rows = [
        [title, *(f"{times[arm]:.0f}" for times in hops.values())]
        for title, arm in (("frames shared, as `stream` does", "shared"), ("every window read by itself", "anew"))
    ]
    yield _table(("hop", *(f"{float(hop):g} s" for hop in hops)), rows)


def serve_added(results: Path) -> Iterator[str]:
    """In a sentence, what serving adds."""
    added = "; ".join(
        f"{_range(list(part['added_ms'].values()), '.0f')} ms ({_range(_added(part, 'value'), '.1f')} %) with {model}"
        for model, part in _overheads(_read(results / "serve.json"))
    )
    yield f"What serving adds to a video, a clip, and a clip over gRPC: {added}."


def serve_tables(results: Path) -> Iterator[str]:
    """What serving costs and that it holds."""
    result = _read(results / "serve.json")
    yield (
        f"{result['date']}, {result['cpu']}, {result['cpus']} cores, onnxruntime {result['onnxruntime']}, client and "
        "server on the same machine."
    )
    overhead = [
        [
            model,
            what,
            *(f"{part[f'{what}, {how}']['p50_ms']:.0f}" for how in ("bare", "served")),
            f"{added:.0f}",
            "{value:.1f} % ({low:.1f} to {high:.1f})".format(**part["added_percent"][what]),
        ]
        for model, part in _overheads(result)
        for what, added in part["added_ms"].items()
    ]
    header = ("model", "request", "bare ms", "served ms", "added ms", "added, 95 % interval")
    yield _table(header, overhead)
    full_size = [part for name, part in result.items() if name.startswith("full-size")]
    share, high = (max(max(_added(part, key)) for part in full_size) for key in ("value", "high"))
    yield (
        "Bare and served in turn; added is the median of their differences. To a full-size request serving adds at "
        f"most {share:.1f} %, and {high:.1f} % at the upper ends of the intervals; the aim was at most 10 %."
    )
    yield "Under load:"
    header = ("answers/s", "p50 ms", "p95 ms")
    load = [
        [video["clients"], *(f"{each[key]:.{digits}f}" for each in (video, clip) for key, digits in LOAD)]
        for video, clip in zip(result["load"]["video"], result["load"]["clip"], strict=True)
    ]
    yield _table(("clients", *(f"{what}: {of}" for what in ("video", "clip") for of in header)), load)
    memory, flood, kill = result["memory"], result["burst"], result["kill"]
    server, workers = ([round_[who] for round_ in memory["rounds"]] for who in ("server", "workers"))
    requests = sum(round_["requests"] for round_ in memory["rounds"])
    refused, killed = flood["flood"], kill["during"]
    yield (
        f"- Memory over {requests} requests, read {len(server)} times: the server between "
        f"{_range(server, '.0f', ' and ')} MB ({server[0]:.0f} first, {server[-1]:.0f} last), its workers between "
        f"{_range(workers, '.0f', ' and ')} MB; {memory['open_files']} open files at the end.\n"
        f"- {refused['clients']} clients at once on a server that takes {flood['queue']}: of {refused['requests']} "
        f"requests {_answered(refused)} answered with 200, {refused['refused']} with 503, {refused['failed']} "
        f"not at all; afterwards {_answered(flood['after'])} of {flood['after']['requests']} with 200.\n"
        f"- {kill['workers_killed']} decode workers killed with `kill -9` under load of {killed['clients']} clients: "
        f"{_answered(killed)} of {killed['requests']} requests answered, all but those that were being decoded, and "
        f"{_answered(kill['after'])} of {kill['after']['requests']} after."
    )


LOAD = (("per_second", 1), ("p50_ms", 0), ("p95_ms", 0))


def _answered(load: dict[str, Any]) -> int:
    return int(load["requests"] - load["refused"] - load["failed"])


def _overheads(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every part that tells what serving adds, with the model that it was measured on."""
    parts = [part for part in result.values() if isinstance(part, dict) and "added_ms" in part]
    return [(part.get("model", result["model"]), part) for part in parts]


def _added(part: dict[str, Any], key: str) -> list[float]:
    return [percent[key] for percent in part["added_percent"].values()]


def machines(results: Path) -> Iterator[str]:
    """Processor time of a clip, and the machines that follow from it."""
    decode, peer, gpu = (_read(results / f"{name}.json") for name in ("decode", "peers", "gpu"))
    threads, arms = peer["options"]["threads"], peer["vision"]["arms"]
    read = decode["short_processor_ms"][SHORT_VIDEO]["ours"] / 1000
    long = [row["ours"] / 1000 for row in decode["long_processor_ms"].values()]
    seconds = {name: arms[f"ours-{name}"]["seconds_median"] for name in ("fp32", "int8")}
    vision = {name: each * threads for name, each in seconds.items()}
    yield _table(
        ("stage", "processor seconds a clip", ""),
        [
            [f"decode and prepare, {SHORT_VIDEO}", f"{read:.2f}", f"720p of 10 minutes: {_range(long, '.0f')}"],
            *(
                [f"vision, {name}", f"{vision[name]:.1f}", f"{seconds[name]:.2f} s on {threads} cores"]
                for name in vision
            ),
        ],
    )
    yield (
        f"ViT-B/16 with 32 frames on {peer['date']}, {peer['machine']['cpu']}, onnxruntime "
        f"{peer['machine']['versions']['onnxruntime']}. From this follows:"
    )
    bullets = []
    for name, each in vision.items():
        clip = read + each
        an_hour = _thousands(round(64 * 3600 / clip, -2))
        bullets.append(
            f"- In {name} a clip takes {clip:.1f} processor seconds: 1000 clips an hour need {clip / 3.6:.1f} cores, a "
            f"machine of 64 does {an_hour} an hour, and decoding is {read / clip:.0%} of it."
        )
    of_long = max(long) / (max(long) + vision["int8"])
    best = max(gpu["sweep"], key=lambda row: row["model"]["clips_per_second"])
    rate = best["model"]["clips_per_second"]
    bullets.append(f"- Of ten-minute files decoding is up to {of_long:.0%} in int8; faster vision gains little there.")
    bullets.append(
        f"- Beside a GPU, decoding decides. An {_names(gpu)} takes up to {rate:.0f} clips a second "
        f"({best['precision']}, batches of {best['batch']}), for which {rate * read:.0f} of these cores would have to "
        "read. Put in the figure of your own GPU, from `xclip-onnx bench`."
    )
    yield "\n".join(bullets)


def gpu_checks(results: Path) -> Iterator[str]:
    """How far a GPU's logits were from where they should be."""
    result = _read(results / "gpu.json")
    checks = result["checks"]
    kinds = {
        "self-test": "from the checkpoint's logits",
        "a clip alone": "between a clip alone and in a batch",
        "CUDA graphs on and off": "between CUDA graphs and plain runs",
    }
    rows = []
    for kind, meaning in kinds.items():
        found = [check for check in checks if kind in check["check"]]
        errors = [
            max(check["max_abs_logit"] for check in found if check["check"].startswith(precision))
            for precision in ("fp32", "fp16")
        ]
        rows.append([meaning, *(f"{error:.2g}" for error in errors)])
    yield _table(("largest difference of a logit", "fp32", "fp16"), rows)
    passed = sum(check["ok"] for check in checks)
    allowed = " and ".join(dict.fromkeys(str(check["tolerance"]) for check in checks if "tolerance" in check))
    yield (
        f"From the checkpoint's logits {allowed} are allowed. {passed} of {len(checks)} checks of `benchmarks/gpu.py` "
        f"passed. {_gpu(result)}"
    )


def gpu_table(results: Path) -> Iterator[str]:
    """Speed of a bundle on a GPU, with CUDA graphs."""
    result = _read(results / "gpu.json")
    rows = [[row["precision"], *_speed(row)] for row in result["sweep"] if row["cuda_graph"]]
    yield _table(("precision", *SPEED), rows)


def gpu_sweep(results: Path) -> Iterator[str]:
    """The same, with CUDA graphs and without."""
    result = _read(results / "gpu.json")
    rows = [[row["precision"], "yes" if row["cuda_graph"] else "no", *_speed(row)] for row in result["sweep"]]
    yield _table(("precision", "CUDA graphs", *SPEED), rows)
    yield _gpu(result)


SPEED = ("batch", "ms p50", "ms p90", "clips/s", "clips/s from files")


def _speed(row: dict[str, Any]) -> list[object]:
    milliseconds = [f"{row['model'][key]:.1f}" for key in ("ms_p50", "ms_p90")]
    return [row["batch"], *milliseconds, *(f"{row[part]['clips_per_second']:.0f}" for part in ("model", "files"))]


def gpu_peers_table(results: Path) -> Iterator[str]:
    """Other ways to run the model on a GPU."""
    result = _read(results / "gpu-peers.json")
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for row in result["arms"]:
        arms.setdefault(row["what"], {})[row["batch"]] = row
    batches = sorted({row["batch"] for row in result["arms"]})
    header = [f"batch {batch}: {of}" for batch in batches for of in ("ms", "/ ours fp16", "logit error p50 / max")]
    yield _table(("", *header), [[what, *(c for b in batches for c in _gpu_peer(of[b]))] for what, of in arms.items()])
    nearest = [row for row in result["arms"] if row["arm"] == "compile-fp16" and "ms" in row]
    ratios = " and ".join(f"{row['ratio_to_ours']:.2f} (batch {row['batch']})" for row in nearest)
    peers_used = result["environment"]["peers"]
    yield (
        f"torch.compile in fp16, the nearest, takes {ratios} of the time of xclip-onnx fp16; 1.03 or less is noise. "
        f"{_gpu(result)} torch {peers_used['torch']}, transformers {peers_used['transformers']}."
    )


def _gpu_peer(row: dict[str, Any]) -> list[str]:
    if "missing" in row:
        return [row["missing"], "", ""]
    error = f"{row['logit_p50']:.4f} / {row['logit_max']:.4f}" if row["arm"] != "eager-fp32" else "reference"
    return [f"{row['ms']:.1f}", f"{row['ratio_to_ours']:.2f}", error]


def _gpu(result: dict[str, Any]) -> str:
    environment = result["environment"]
    versions = environment.get("versions", environment)
    return f"Measured on {environment['date']}: {_names(result)}, onnxruntime-gpu {versions['onnxruntime']}."


def _names(result: dict[str, Any]) -> str:
    return ", ".join(gpu["name"] for gpu in result["environment"]["gpus"])


def threads_table(results: Path) -> Iterator[str]:
    """What threads, batches and neighbours do to the int8 graph."""
    result = _read(results / "threads.json")
    arms: dict[str, dict[str, str]] = {}
    for row in result["rows"]:
        decoded = f", {row['decoded_per_s']:.0f} frames decoded/s" if row["decoder"] else ""
        pace = f"{row['clips_per_s']:.2f}{decoded}"
        arms.setdefault(row["name"].replace(f", {row['goal']}", ""), {})[row["goal"]] = pace
    rows = [[arm, *(goals.get(goal, "") for goal in ("throughput", "latency"))] for arm, goals in arms.items()]
    yield _table(("clips/s in all", "throughput (idle threads sleep)", "latency (they spin)"), rows)
    yield f"Medians of {result['rounds']} rounds. {_where(result)}"


def spinning(results: Path) -> Iterator[str]:
    """In a sentence, what idle threads that spin cost beside a decoder."""
    rows = _read(results / "threads.json")["rows"]
    threads = max(row["threads"] for row in rows)

    def pace(goal: str, *, decoder: bool) -> str:
        wanted = {"threads": threads, "goal": goal, "decoder": decoder, "batch": 1, "processes": 1}
        return next(f"{row['clips_per_s']:.2f}" for row in rows if wanted.items() <= row.items())

    yield (
        f"The int8 graph of ViT-B/16 on {threads} threads beside a decoder: {pace('throughput', decoder=True)} clips a "
        f"second, with spinning {pace('latency', decoder=True)}; alone {pace('throughput', decoder=False)} and "
        f"{pace('latency', decoder=False)}."
    )


def cpu_aims(results: Path) -> Iterator[str]:
    """How the CPU graphs stand against their aims."""
    result = _read(results / "peers.json")
    arms, errors = result["vision"]["arms"], result["accuracy"]["arms"]

    def ratio(ours: str, peer: str) -> float:
        pairs = zip(arms[ours]["seconds"], arms[peer]["seconds"], strict=True)
        return statistics.median(one / other for one, other in pairs)

    fp32 = " and ".join(f"{ratio('ours-fp32', peer):.2f}" for peer in ("plain", "openvino-fp32"))
    int8 = ratio("ours-int8", "openvino-int8")
    median, largest = (errors["ours-int8"][q] / errors["openvino-int8"][q] for q in ("p50", "max"))
    yield (
        f"On {result['date']} the fp32 graph took {fp32} of the time of a plain export and of OpenVINO, the int8 graph "
        f"{int8:.2f} of OpenVINO's int8, at {median:.1f} of its median and {largest:.1f} of its largest logit error. "
        "The aim was 0.87, 1.0 and 1.0."
    )


def openvino_table(results: Path) -> Iterator[str]:
    """What OpenVINO's provider costs and how exact it is, in every precision."""
    result = _read(results / "openvino.json")
    rows = [
        [
            arm["what"],
            f"{arm['seconds_median']:.2f}",
            f"{arm['ratio_to_cpu_int8']:.2f}",
            f"{arm['load_s']:.1f}",
            f"{arm['logit_p50']:.4f} / {arm['logit_max']:.3f}",
        ]
        for arm in result["arms"]
    ]
    yield _table(("", "s/clip", "/ CPU int8", "load s", "logit error p50 / max"), rows)
    yield f"ViT-B/16 with 32 frames, seeded weights, {result['rounds']} rounds in turns. {_where(result)}"


def outlier_twin(results: Path) -> Iterator[str]:
    """How exact the CPU graphs of the full-size model are, on its outlier twin as well."""
    result = _read(results / "outlier-twin.json")
    found = result["accuracy"]
    rows = [
        [
            name,
            *(f"{arm[q]:.3f}" for q in ("p50", "p99", "max")),
            f"{round(arm['top1_agreement'] * found['clips'])} of {found['clips']}",
        ]
        for name, arm in found["arms"].items()
    ]
    yield _table(("graph", "logit error p50", "p99", "max", "same top-1"), rows)
    yield f"The logits have a standard deviation of {found['logit_std']:.1f}. {_where(result)}"


FIGURES: dict[str, Callable[[Path], Iterable[str]]] = {
    "typed-labels": typed_labels,
    "labels": labels,
    "index-size": index_size,
    "retrieval": retrieval,
    "pipeline": pipeline,
    "stream": stream_table,
    "serve-added": serve_added,
    "motion-demo": motion_demo,
    "peers": peer_tables,
    "decode": decode_table,
    "parity": parity,
    "image-size": image_size,
    "gpu-checks": gpu_checks,
    "gpu": gpu_table,
    "gpu-peers": gpu_peers_table,
    "gpu-sweep": gpu_sweep,
    "openvino": openvino_table,
    "outlier-twin": outlier_twin,
    "machines": machines,
    "serve": serve_tables,
    "cpu-aims": cpu_aims,
    "threads": threads_table,
    "spinning": spinning,
}


def with_figures(text: str, results: Path = RESULTS) -> str:
    """A document whose blocks hold what the results say."""

    def with_paragraphs(block: re.Match[str]) -> str:
        return "\n\n".join([block[1], *map(_wrapped, FIGURES[block[2]](results)), block[3]])

    return BLOCK.sub(with_paragraphs, text)


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, header))} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _wrapped(paragraph: str) -> str:
    """A paragraph, or each item of a list, in lines of the documents' width; tables as they are."""
    if paragraph.startswith("|"):
        return paragraph
    items, indent = (paragraph.split("\n"), "  ") if paragraph.startswith("- ") else ([paragraph], "")
    fill = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).fill
    return "\n".join(map(fill, items))


def _range(values: Sequence[float], digits: str, to: str = " to ") -> str:
    """The least and the largest, or the one that both are when rounded."""
    return to.join(dict.fromkeys(format(value, digits) for value in (min(values), max(values))))


def _interval(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 10_000 else f"{value:.0f}"


def _where(result: dict[str, Any]) -> str:
    """When and on what, from the head that ``cpu.record`` gives a result."""
    machine = result["machine"]
    made = f"{machine['cpu']}, {machine['cores']} cores, onnxruntime {machine['versions']['onnxruntime']}"
    return f"Measured on {result['date']}: {made}."


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def main() -> int:
    """Rewrite or check the documents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a figure differs")
    options = parser.parse_args()
    differing = []
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        figures = with_figures(text)
        if figures != text:
            differing.append(path)
            if not options.check:
                path.write_text(figures, "utf-8")
    for path in differing:
        print(path.relative_to(ROOT), "differs" if options.check else "rewritten", file=sys.stderr)
    return int(options.check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
