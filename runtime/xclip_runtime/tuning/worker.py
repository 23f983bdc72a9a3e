"""Process of one candidate: load the model, and run clips on request.

It is started with a JSON document of the arguments of `XClip` and the file of the clips. It answers in lines of
JSON: one when the model is loaded, and one for every number of a clip that it reads from standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import XClipError
from xclip_runtime.model import XClip
from xclip_runtime.tuning.candidates import CPU_DEVICES
from xclip_runtime.tuning.roofline import peak_gflops
from xclip_runtime.util.memory import peak_rss_mb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


def main() -> None:
    """Run a candidate until standard input ends."""
    request = json.loads(sys.argv[1])
    # Libraries print on standard output, too.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, suppress(BrokenPipeError):
        os.dup2(2, 1)
        for answer in _answers(request["model"], request["clips"]):
            answers.write(f"{json.dumps(answer)}\n")
            answers.flush()


def _answers(arguments: Mapping[str, Any], file: str) -> Iterator[dict[str, Any]]:
    try:
        clips = np.load(file, mmap_mode="r")
        begun = time.perf_counter()
        model = XClip(**arguments)
        load_seconds = time.perf_counter() - begun
        first = _run(model, clips[0])
        yield {
            **first,
            **model.ran,
            "threads": model.info["threads"],
            "load_seconds": load_seconds,
            "peak_rss_mb": peak_rss_mb(),
            "peak_gflops": _peak(model),
        }
        for line in sys.stdin:
            yield _run(model, clips[int(line)])
    except XClipError as error:
        yield {"error": str(error)}


def _run(model: XClip, clip: NDArray[np.uint8]) -> dict[str, Any]:
    begun = time.perf_counter()
    logits = model.logits(clip)
    return {"seconds": time.perf_counter() - begun, "logits": logits.astype(float).tolist()}


def _peak(model: XClip) -> float | None:
    """Measure the engine's peak; None on a GPU, where copies would be measured, and where the engine refuses it."""
    options = model.session_options
    if options.device not in CPU_DEVICES:
        return None
    try:
        return peak_gflops(replace(options, precision=model.precision))
    except Exception:  # noqa: BLE001 - onnxruntime raises many unrelated classes
        return None
