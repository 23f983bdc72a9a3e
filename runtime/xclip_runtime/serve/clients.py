"""Clients: who they are, and how many requests of each run at once."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xclip_runtime.errors import ClientLimitError

if TYPE_CHECKING:
    from collections.abc import Iterator


class ClientLimit:
    """Bound of the concurrent requests of each client. Used on one event loop.

    Args:
        limit: Requests of one client; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running: Counter[str] = Counter()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold a place for one request of a client, which is named by its key or address.

        Raises:
            ClientLimitError: The client has too many requests already.
        """
        if self._limit is not None and self._running[client] >= self._limit:
            message = f"{self._running[client]} requests of this client are running: send fewer at once"
            raise ClientLimitError(message)
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
