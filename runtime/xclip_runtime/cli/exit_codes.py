"""Exit codes of commands that process many inputs."""

from __future__ import annotations

CLOSED_PIPE = 141
"""Ended as the reader of standard output has gone, as shells count it: 128 + SIGPIPE."""


def exit_code(failed: int, total: int) -> int:
    """Return 0 when all inputs succeeded, 1 when some failed, 2 when all failed."""
    return 0 if failed == 0 else 2 if failed == total else 1
