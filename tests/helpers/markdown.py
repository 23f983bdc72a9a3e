"""Code blocks of the README and the documentation, and the marks that tell how a block is tested.

A block of bash or Python runs in a test unless an HTML comment on the line before it says otherwise:
``<!-- test: KIND: reason -->``. The kinds are ``skip`` (it never runs), ``server`` (it runs beside a server on
127.0.0.1:8000), and the markers of pytest ``network``, ``slow`` and ``hub``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
PROGRAMS = ("bash", "python")
DATA = ("ini", "json", "nginx", "text", "yaml")
KINDS = ("skip", "server", "network", "slow", "hub")
ADDRESS = "127.0.0.1:8000"
"""Address at which the pages ask a server."""

_INSTALLS = re.compile(r"^pip install '[^'\n]*\[([\w,]+)\]'.*\n", re.MULTILINE)

_BLOCK = re.compile(
    r"(?:^(?P<mark><!-- test:[^\n]*-->)\n)?^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"<!-- test: (?P<kind>\w+): (?P<reason>.*\S) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str | None

    @property
    def kind(self) -> str:
        """The kind of its mark; "run" without a mark."""
        if self.mark is None:
            return "run"
        found = _MARK.fullmatch(self.mark)
        return found["kind"] if found else "?"

    @property
    def extras(self) -> list[str]:
        """The extras that its lines install."""
        return [extra for line in _INSTALLS.findall(self.code) for extra in line.split(",")]

    @property
    def without_installs(self) -> str:
        """Its code for an environment that has all extras."""
        return _INSTALLS.sub("", self.code)

    def __str__(self) -> str:
        """Page and line."""
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("info")) + 1, found["info"], found["code"], found["mark"])
        for found in _BLOCK.finditer(text)
    ]


def marks(page: Path) -> int:
    """Number of comments outside blocks that look like marks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL).count("<!-- test:")
