"""Keyword arguments that had another name in the release before."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Params = ParamSpec("Params")
Result = TypeVar("Result")


def renamed(**new_names: str) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Accept old keyword arguments, ``old="new"``, with a DeprecationWarning; both at once are a TypeError."""

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        @functools.wraps(function)
        def call(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            for old in new_names.keys() & kwargs:
                new = new_names[old]
                if new in kwargs:
                    message = f"{old} is the old name of {new}: give {new} alone"
                    raise TypeError(message)
                warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
