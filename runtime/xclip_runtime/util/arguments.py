"""Checks of argument types against the annotations, and objects that cannot be pickled."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar, NoReturn, ParamSpec, TypeVar

from xclip_runtime.errors import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

Params = ParamSpec("Params")
Result = TypeVar("Result")
Class = TypeVar("Class", bound=type)

_TYPES: dict[str, type] = {"int": Integral, "float": Real, "str": str, "None": type(None), "Mapping": Mapping}
_TYPES["os.PathLike"] = os.PathLike
_LITERALS = ["Compute", "Decoder", "DeviceChoice", "FeatureType", "Goal", "Profile"]
# Known by name, so that no check imports what the annotations do not.
_CLASSES = "Backoff EncodedLabels RawFormat Reading StreamWindow ThreadPolicy VideoFeatures Views WindowResult XClip"
_NAMES = {"NDArray": "ndarray", **{name: name for name in _CLASSES.split()}}


def checked(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Make a function raise an ArgumentTypeError, in one line, for arguments that its annotations exclude.

    Numbers, strings, paths, mappings, arrays and classes of the public interface are checked; an argument whose
    annotation names anything else is left to the function.
    """
    signature = inspect.signature(function)
    wanted = {name: _alternatives(p.annotation) for name, p in signature.parameters.items()}

    @functools.wraps(function)
    def call(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            name = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
            message = f"{name} {error}: it takes {', '.join(wanted)}".replace("takes self, ", "takes ")
            raise ArgumentTypeError(message) from None
        for name, value in given.items():
            if (parts := wanted[name]) and not any(_is(value, part) for part in parts):
                message = f"{name} is of type {type(value).__name__}: give {' or '.join(parts)}"
                raise ArgumentTypeError(message)
        return function(*args, **kwargs)

    return call


def checked_fields(cls: Class) -> Class:
    """Make a dataclass check its fields as `checked` does."""
    cls.__init__ = checked(cls.__init__)  # type: ignore[misc]
    return cls


def _alternatives(annotation: object) -> tuple[str, ...]:
    """Return the types that an annotation names, or nothing where one of them is not checked."""
    parts = tuple(part.split("[")[0] for part in annotation.split(" | ")) if isinstance(annotation, str) else ()
    parts = tuple("str" if part in _LITERALS else part for part in parts)
    return parts if all(part in _TYPES or part in _NAMES for part in parts) else ()


def _is(value: object, part: str) -> bool:
    if part in _NAMES:
        return _NAMES[part] in (cls.__name__ for cls in type(value).__mro__)
    return isinstance(value, _TYPES[part]) and not isinstance(value, bool)


class NotPicklable:
    """An object that is open: pickling or copying it says in one line what to do instead."""

    _instead: ClassVar[str]

    def __reduce__(self) -> NoReturn:
        message = f"{type(self).__name__} objects cannot be pickled: {self._instead}"
        raise TypeError(message)
