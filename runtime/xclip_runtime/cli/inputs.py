"""Expand folders, patterns and lists on standard input to video files."""

from __future__ import annotations

import glob
import os
import re
import sys
from typing import TYPE_CHECKING

import click

from xclip_runtime.util.addresses import is_address, without_passwords
from xclip_runtime.util.paths import folders_in, videos_in
from xclip_runtime.util.plain_text import decoded, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ANY_DEPTH = re.compile(r"(?:^|(?<=/))\*\*(?:/|$)")


def expand(names: Iterable[str]) -> Iterator[str]:
    """Yield the videos of files, folders and patterns, in the order named and sorted within each.

    "-" reads a list of files from standard input, separated by line ends, or by NUL as ``find -print0`` writes it.
    A name that is neither a folder nor a pattern with matches is yielded unchanged, so that its error can name it;
    of an address, which no command that takes files reads, the password is hidden.
    """
    for name in names:
        if name == "-":
            for listed in _standard_input():
                yield from _videos_of(listed)
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            for match in sorted(_matches(name)) or [name]:
                yield from _videos_of(match)
        else:
            yield from _videos_of(name)


def _videos_of(name: str) -> list[str]:
    if os.path.isdir(name):  # noqa: PTH112 - Path raises for a name that is too long
        return list(videos_in(name)) or [name]
    return [without_passwords(name) if is_address(name) else name]


def _matches(pattern: str) -> set[str]:
    """Return the names that a pattern matches, spelt as it is; ``**`` is any number of folders, in any of which once.

    The search of `glob` would follow links in a circle.
    """
    mark = _ANY_DEPTH.search(pattern)
    if mark is None:
        return set(glob.glob(pattern))  # noqa: PTH207 - keeps the spelling, such as ./
    head, tail = pattern[: mark.start()], pattern[mark.end() :]
    found: set[str] = set()
    for top in glob.glob(head) if head else [os.curdir]:  # noqa: PTH207
        for folder, files in folders_in(top):
            shown = folder if head else folder[len("./") :]
            if files == [""]:
                found.add(folder)
            elif tail:
                found |= _matches(glob.escape(os.path.join(shown, "")) + tail)  # noqa: PTH118
            else:
                found |= {os.path.join(shown, name) for name in files}  # noqa: PTH118
    return found


def _standard_input() -> list[str]:
    content = sys.stdin.buffer.read()
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return [os.fsdecode(name) for name in content.split(b"\0") if name]
    try:
        listed = lines(decoded(content, "surrogateescape"))
    except UnicodeDecodeError:
        message = "the list on standard input is UTF-16 that is cut short: write it as UTF-8, one file a line"
        raise click.UsageError(message) from None
    # As the system gives names, whatever the encoding of this process.
    return [os.fsdecode(name.encode("utf-8", "surrogateescape")) for name in listed if name]
