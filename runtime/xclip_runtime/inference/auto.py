"""Choice of device "auto" on a CPU: the fastest setting within an error, by a tuning, or else by the CPU's features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from xclip_runtime.inference.plugins import available_providers
from xclip_runtime.inference.providers import PROVIDER_OF
from xclip_runtime.inference.tuning_file import read_tuning
from xclip_runtime.util.cpus import instruction_sets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.bundle import Bundle
    from xclip_runtime.inference.providers import Compute, SessionDevice

MAX_LOGIT_ERROR = 0.05
"""Default of the largest |Δlogit| that device "auto" takes for speed: as good as fp32 for every use."""


@dataclass(frozen=True)
class Pick:
    """Setting that device "auto" takes, with the reason."""

    device: SessionDevice
    precision: Compute | None
    threads: int | None
    reason: str


@dataclass(frozen=True)
class Rule:
    """Setting that was measured to be faster than fp32 on every CPU that has an instruction set."""

    instruction_set: str
    device: SessionDevice
    precision: Compute
    max_abs_logit: float | None
    """Largest |Δlogit| that was measured; None takes that of the bundle's graph at export."""


BF16_ERROR = 0.14
"""Largest |Δlogit| of OpenVINO's bf16 that was measured: 0.066 on ViT-B/16, 0.14 on motion-demo."""

RULES = (
    Rule("amx_int8", "openvino", "int8", None),
    Rule("avx512_vnni", "cpu", "int8", None),
    Rule("amx_bf16", "openvino", "bf16", BF16_ERROR),
    Rule("avx512_bf16", "openvino", "bf16", BF16_ERROR),
)
"""For CPUs that were measured, fastest first (benchmarks/cpu-log.md); on others fp32 stays until they are tuned."""


def picks(bundle: Bundle, max_logit_error: float, threads: int | None) -> Iterator[Pick]:
    """Yield the settings to try before fp32 on the CPU: that of a tuning alone, or else those of the rules that fit."""
    tuning = read_tuning(bundle)
    if tuning is None:
        yield from _by_rules(bundle, max_logit_error)
    elif found := tuning.fastest(max_logit_error, threads):
        measured = f"{found.seconds:.3g} s a clip, |Δlogit| up to {found.max_abs_logit:.2g}"
        reason = f"tuned on {tuning.date[:10]} ({measured})"
        yield Pick(found.device, found.precision, found.threads, reason)


def check_max_logit_error(value: float) -> None:
    """Refuse an error that is negative or NaN (ValueError)."""
    if not (isinstance(value, Real) and value >= 0):
        message = f"max_logit_error is {value!r}: give a number of 0 or more"
        raise ValueError(message)


def _by_rules(bundle: Bundle, max_logit_error: float) -> Iterator[Pick]:
    features, providers = instruction_sets(), available_providers()
    for rule in RULES:
        if rule.instruction_set not in features or PROVIDER_OF[rule.device] not in providers:
            continue
        if _error(rule, bundle) <= max_logit_error:
            reason = f"the CPU has {rule.instruction_set}; not tuned, `xclip-onnx tune` would measure"
            yield Pick(rule.device, rule.precision, None, reason)


def _error(rule: Rule, bundle: Bundle) -> float:
    if rule.max_abs_logit is not None:
        return rule.max_abs_logit
    target = "cpu" if rule.device == "cpu" else "any"
    graphs = [g for g in bundle.graphs_of("vision") if (g.precision, g.target) == (rule.precision, target)]
    return max((float(graph.parity["max_abs_logit"]) for graph in graphs), default=math.inf)
