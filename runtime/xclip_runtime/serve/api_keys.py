"""API keys: FastAPI security schemes for HTTP, metadata for gRPC."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from xclip_runtime.errors import UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)
_BEARER = HTTPBearer(auto_error=False)


class ApiKeys:
    """The accepted API keys; as a FastAPI dependency, refuses requests without one.

    Args:
        keys: Accepted keys; empty to accept every request.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def accepts(self, key: str) -> bool:
        """Return True if `key` is accepted; compares in constant time."""
        digest = _digest(key)
        # sum() instead of any(), so that every comparison runs.
        return not self._digests or sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

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


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
