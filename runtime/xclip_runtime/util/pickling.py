"""Objects that cannot be pickled or copied."""

from __future__ import annotations

from typing import ClassVar, NoReturn


class NotPicklable:
    """An object that is open: pickling or copying it says in one line what to do instead."""

    _instead: ClassVar[str]

    def __reduce__(self) -> NoReturn:
        message = f"{type(self).__name__} objects cannot be pickled: {self._instead}"
        raise TypeError(message)
