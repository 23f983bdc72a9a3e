"""Protobuf's text format, as far as config.pbtxt needs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Symbol(str):
    """The name of an enum's value, which stands without quotes."""

    __slots__ = ()


def to_pbtxt(message: Mapping[str, Any]) -> str:
    """A message as text, one field a line.

    Args:
        message: By field: text, a :class:`Symbol`, a number, a truth value, a message, or a list of one of these.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def pairs(entries: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A map field: one message with key and value for each entry."""
    return [{"key": key, "value": value} for key, value in entries.items()]


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, (list, tuple)) and not any(isinstance(one, dict) for one in value):
            yield f"{name}: [{', '.join(map(_scalar, value))}]"
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, dict):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{name}: {_scalar(one)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Symbol):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
