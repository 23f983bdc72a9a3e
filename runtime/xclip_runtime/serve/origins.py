"""Checks of host and origin: pages of other sites must not use the server through the browser of a visitor."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

from xclip_runtime.errors import ForbiddenError
from xclip_runtime.serve.error_responses import error_response, status_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from xclip_runtime.serve.settings import ServeSettings

ANY = "*"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LINK = ("navigate", "document")
_OWN_PAGES = ("same-origin", "none")
_REQUEST_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Filename", "X-Request-ID", "X-Request-Timeout")
_RESPONSE_HEADERS = ("Retry-After", "X-Request-ID")


class OriginPolicy:
    """Refuses requests to hosts that are not the server's, and requests that pages of other sites make, but links.

    A host is the server's if it is an IP address, has no dot, ends in .localhost or is one of `allowed_hosts`. Other
    names may be an attacker's, who lets them point to his page first and then to this server (DNS rebinding).
    Clients other than browsers send neither Origin nor Sec-Fetch-Site, and are not concerned.

    Args:
        app: The application.
        settings: Names the hosts and the origins that are allowed.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._hosts = tuple(host.lower() for host in settings.allowed_hosts)
        self._origins = tuple(origin.rstrip("/").lower() for origin in settings.cors_origins)
        self._app = app
        if self._origins:
            self._app = CORSMiddleware(
                app,
                allow_origins=self._origins,
                allow_methods=("GET", "POST"),
                allow_headers=_REQUEST_HEADERS,
                expose_headers=_RESPONSE_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        problem = None if scope["type"] == "lifespan" else self._problem(scope, Headers(scope=scope))
        if problem is None:
            await self._app(scope, receive, send)
        else:
            error = ForbiddenError(problem)
            response = error_response(HTTPConnection(scope), status_of(error), type(error).__name__, problem)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name = _name(host)
        if not self._is_allowed(name):
            shown = name if name.isprintable() and len(name) <= 100 else "of this name"
            return f"the server does not answer to the host {shown}: name it in --allowed-hosts"
        safe = scope["type"] == "http" and scope["method"] in _SAFE_METHODS and _is_link(headers)
        if not safe and not self._is_own(host, headers):
            return "pages of other sites may not use this server: name their origin in --cors-origin"
        return None

    def _is_allowed(self, name: str) -> bool:
        if "." not in name or name.endswith(".localhost") or _is_address(name):
            return True
        return any(
            pattern in (ANY, name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self._hosts
        )

    def _is_own(self, host: str, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if ANY in self._origins or (origin is not None and origin.lower() in self._origins) or site in _OWN_PAGES:
            return True
        return site is None and (origin is None or origin.partition("://")[2].lower() == host.lower())


def _is_link(headers: Headers) -> bool:
    """Return True for a link that is followed, and where the browser does not say so; pictures and frames are none."""
    mode, destination = _LINK
    return headers.get("sec-fetch-mode", mode) == mode and headers.get("sec-fetch-dest", destination) == destination


def _name(host: str) -> str:
    """Return the name in a Host header in lower case, without its port and the dot of the root."""
    end = host.find("]") + 1
    name = host[: end or None] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        return True
    return False
