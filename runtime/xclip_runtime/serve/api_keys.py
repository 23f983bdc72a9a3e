"""API keys: FastAPI security schemes for HTTP, metadata for gRPC."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from xclip_runtime.errors import UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)
_BEARER = HTTPBearer(auto_error=False)


_NAMED = re.compile(r"([A-Za-z0-9._-]{1,64}):(.+)")


class ApiKeys:
    """The accepted API keys; as a FastAPI dependency, refuses requests without one.

    Args:
        keys: Accepted keys, each KEY or NAME:KEY; empty to accept every request. A key without a name is key1, key2, ….
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._names: dict[bytes, str] = {}
        self.replace(keys)

    def __bool__(self) -> bool:
        """Return True if a key is needed."""
        return bool(self._names)

    def replace(self, keys: Sequence[str]) -> bool:
        """Accept these keys from now on; return True if one is no longer accepted."""
        known, self._names = self._names, dict(_name_and_digest(number, key) for number, key in enumerate(keys, 1))
        return not known.keys() <= self._names.keys()

    def name(self, key: str) -> str | None:
        """Return the name of an accepted key, or None; compares in constant time."""
        digest = _digest(key)
        # A list, so that every comparison runs.
        found = [name for known, name in self._names.items() if hmac.compare_digest(digest, known)]
        return found[0] if found else None

    def accepts(self, key: str) -> bool:
        """Return True if `key` is accepted."""
        return not self._names or self.name(key) is not None

    def check(self, key: str) -> None:
        """Check a key.

        Raises:
            UnauthorizedError: The key is not accepted.
        """
        if not self.accepts(key):
            message = "missing or unknown API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise UnauthorizedError(message)

    async def __call__(
        self,
        header: Annotated[str | None, Security(_HEADER)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    ) -> None:
        """Check the key of an HTTP request."""
        self.check(header or (bearer.credentials if bearer else ""))


def key_in(headers: Mapping[str, str]) -> str:
    """Return the key in HTTP headers or gRPC metadata (lower-case names), or an empty string."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key", token if scheme.lower() == "bearer" else "")


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a text, separated by lines, spaces or commas; a line that begins with # is a comment."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return tuple(part for line in lines for part in re.split(r"[\s,]+", line) if part)


def _name_and_digest(number: int, entry: str) -> tuple[bytes, str]:
    named = _NAMED.fullmatch(entry)
    return (_digest(named[2]), named[1]) if named else (_digest(entry), f"key{number}")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
