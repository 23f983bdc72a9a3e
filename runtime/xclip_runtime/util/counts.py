"""Arguments that count something."""

from __future__ import annotations

from numbers import Integral


def check_count(name: str, value: object, otherwise: str = "") -> None:
    """Refuse anything but a whole number of at least 1.

    Args:
        name: Name of the argument, for the error.
        value: The argument.
        otherwise: What else may be given, for the error.

    Raises:
        ValueError: It is less, or no whole number.
    """
    if not (isinstance(value, Integral) and int(value) >= 1):
        message = f"{name} is {value!r}: give a whole number of at least 1{otherwise}"
        raise ValueError(message)
