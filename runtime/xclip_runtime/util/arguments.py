"""Types of numeric arguments."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_count(name: str, value: object, none: str | None = None, *, most: float = math.inf) -> None:
    """Refuse anything but a whole number of at least 1.

    Args:
        name: Name of the argument, for the error.
        value: The argument.
        none: Meaning of None, for the error; without it, None is refused.
        most: Largest number.

    Raises:
        ValueError: It is out of range, or not a whole number.
    """
    if value is None and none:
        return
    if not (isinstance(value, Integral) and 1 <= int(value) <= most):
        wanted = "of at least 1" if most == math.inf else f"from 1 to {most}"
        message = f"{name} is {value!r}: give a whole number {wanted}" + (f", or None for {none}" if none else "")
        raise ValueError(message)


def check_numbers(**values: object) -> None:
    """Refuse anything but numbers, and None for what is not given.

    Args:
        values: The arguments, by their names.

    Raises:
        ValueError: One is of another type.
    """
    for name, value in values.items():
        if not (value is None or isinstance(value, Real)):
            message = f"{name} is {value!r}: give a number"
            raise ValueError(message)
