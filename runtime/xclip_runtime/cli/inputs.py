"""Expand folders, patterns and lists on standard input to video files."""

from __future__ import annotations

import glob
import os
import sys
from typing import TYPE_CHECKING

from xclip_runtime.util.paths import videos_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def expand(names: Iterable[str]) -> Iterator[str]:
    """Yield the videos of files, folders and patterns, in the order named and sorted within each.

    "-" reads a list of files from standard input, separated by line ends, or by NUL as ``find -print0`` writes it.
    A name that is neither a folder nor a pattern with matches is yielded unchanged, so that its error can name it.
    """
    for name in names:
        if name == "-":
            yield from _standard_input()
        elif os.path.isdir(name):  # noqa: PTH112 - Path raises for a name that is too long
            yield from list(videos_in(name)) or [name]
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - keeps the spelling, such as ./
            yield from expand(matches) if matches else [name]
        else:
            yield name


def _standard_input() -> list[str]:
    text = os.fsdecode(sys.stdin.buffer.read())
    return [name for name in (text.split("\0") if "\0" in text else text.splitlines()) if name]
