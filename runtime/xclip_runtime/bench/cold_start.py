"""Cold start: the time from the start of a process to its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGES = ("start", "import", "load", "first", "second")

_CHILD = """
import json, sys, time
begun = time.perf_counter()
from xclip_runtime.model import XClip
from xclip_runtime.util.memory import peak_rss_mb
imported = time.perf_counter()
bundle, video, options = json.loads(sys.argv[1])
model = XClip(bundle, **options)
loaded = time.perf_counter()
model.classify(video)
first = time.perf_counter()
print(flush=True)
model.classify(video)
second = time.perf_counter()
times = {"import": imported - begun, "load": loaded - imported, "first": first - loaded, "second": second - first}
print(json.dumps({"times": times, "peak_rss_mb": peak_rss_mb()}))
"""


def cold_starts(bundle: str, video: str, options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Time fresh processes, one after the other, with the files in the system's cache as after an install.

    Each classifies the video twice: only the first answer includes lazy initialisation. The stages are in milliseconds,
    "start" being the interpreter's; "peak_rss_mb" is the largest of the processes'.
    """
    times: dict[str, list[float]] = {name: [] for name in (*STAGES, "to_first_answer")}
    peaks = []
    for _ in range(count):
        begun = time.perf_counter()
        command = [sys.executable, "-c", _CHILD, json.dumps([bundle, video, dict(options)])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:  # noqa: S603
            assert child.stdout is not None  # noqa: S101 - set by PIPE
            child.stdout.readline()
            answered = time.perf_counter() - begun
            rest, errors = child.communicate()
        if child.returncode:
            message = (
                f"a fresh process could not classify {video}: {errors.strip().splitlines()[-1].partition(': ')[2]}"
            )
            raise DeviceError(message)
        result = json.loads(rest)
        seconds = result["times"]
        seconds["start"] = answered - seconds["import"] - seconds["load"] - seconds["first"]
        seconds["to_first_answer"] = answered
        for name, values in times.items():
            values.append(1000 * seconds[name])
        peaks.append(result["peak_rss_mb"])
    return {**times, "peak_rss_mb": max((peak for peak in peaks if peak is not None), default=None)}
