"""Tunings in the user's cache: measurements of a bundle on this machine, which device "auto" chooses by."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from xclip_runtime._version import __version__
from xclip_runtime.inference.installation import WHEELS, installed_versions, onnxruntime_version
from xclip_runtime.inference.plugins import PLUGINS
from xclip_runtime.inference.providers import Compute, default_cache_dir
from xclip_runtime.util.atomic import write_json
from xclip_runtime.util.cpus import available_cpus, cpu_name, instruction_sets
from xclip_runtime.util.memory import memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from xclip_runtime.bundle import Bundle

logger = logging.getLogger(__name__)

SCHEMA = 1
_PACKAGES = (*WHEELS, *(plugin.package for plugin in PLUGINS))
LARGEST_FILE = 1 << 20
"""Bytes; a larger file is none of ours."""


@dataclass(frozen=True)
class Setting:
    """Setting of the vision graph that was measured."""

    device: str
    precision: Compute
    threads: int | None
    """Threads inside an operator; None for the device's own, on a GPU."""

    seconds: float
    """Median time of a clip."""

    max_abs_logit: float
    """Largest |Δlogit| to fp32 on the CPU, over the calibration clips."""

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" with {self.threads} threads"
        return f"{self.device} {self.precision}{threads}"


@dataclass(frozen=True)
class Tuning:
    """Settings that were measured with one bundle on this machine."""

    date: str
    """ISO 8601."""

    settings: tuple[Setting, ...]

    def fastest(self, max_logit_error: float, threads: int | None = None) -> Setting | None:
        """Return the fastest setting within an error, of those with that number of threads if it is given."""
        allowed = [s for s in self.settings if s.max_abs_logit <= max_logit_error and threads in (None, s.threads)]
        return min(allowed, key=lambda s: s.seconds, default=None)


def machine_key(bundle: Bundle) -> dict[str, Any]:
    """Return all that a tuning depends on: processor, limits of the container, versions and bundle."""
    return {
        "processor": cpu_name(),
        "instruction_sets": list(instruction_sets()),
        "cpus": available_cpus(),
        "memory_limit": memory_limit(),
        "versions": {"xclip-onnx": __version__, "loaded": onnxruntime_version(), **installed_versions(_PACKAGES)},
        "bundle": bundle.digest,
    }


def tuning_path(key: Mapping[str, Any]) -> Path:
    """Return the file of a tuning in the user's cache, or raise a DeviceError where there is no home."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return default_cache_dir() / "tuning" / f"{digest[:32]}.json"


def save_tuning(bundle: Bundle, date: str, settings: Iterable[Setting]) -> Path:
    """Save a tuning, in place of an earlier one of the same key, and return its path.

    Raises:
        OSError: The cache cannot be written.
        DeviceError: There is no home folder, and so no cache.
    """
    key = machine_key(bundle)
    path = tuning_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {"tuning_schema": SCHEMA, "key": key, "date": date, "settings": [asdict(each) for each in settings]}
    )
    return path


def read_tuning(bundle: Bundle) -> Tuning | None:
    """Return the tuning of a bundle for this machine as it is now; None without one, or if its file is damaged."""
    key = machine_key(bundle)
    try:
        path = tuning_path(key)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, RuntimeError):  # no tuning, no home
        return None
    try:
        return _parse(content, key)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning("%s is not used, it is damaged (%s): run `xclip-onnx tune` again", path, error)
        return None


def _parse(content: bytes, key: Mapping[str, Any]) -> Tuning:
    """Read the content of a file, or raise an error if it is not a tuning of that key."""
    if len(content) > LARGEST_FILE:
        message = f"more than {LARGEST_FILE} bytes"
        raise ValueError(message)
    document = json.loads(content)
    if document["tuning_schema"] != SCHEMA or document["key"] != key:
        message = "of another version, machine or bundle"
        raise ValueError(message)
    return Tuning(str(document["date"]), tuple(_setting(**row) for row in document["settings"]))


def _setting(device: Any, precision: Any, threads: Any, seconds: Any, max_abs_logit: Any) -> Setting:
    threads_fit = threads is None or (type(threads) is int and threads > 0)
    numbers_fit = all(isinstance(n, (int, float)) and 0 <= n < math.inf for n in (seconds, max_abs_logit))
    if not isinstance(device, str) or precision not in get_args(Compute) or not threads_fit or not numbers_fit:
        message = "a setting is not what it should be"
        raise ValueError(message)
    return Setting(device, precision, threads, seconds, max_abs_logit)
