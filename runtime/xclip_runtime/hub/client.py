"""Calls of huggingface_hub, with one line for each failure (extra [hub]).

The client's environment variables hold here: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and so on.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from xclip_runtime._version import __version__
from xclip_runtime.errors import HubAccessError, HubError, HubNotFoundError, HubUnavailableError, MissingExtraError
from xclip_runtime.util.addresses import without_passwords
from xclip_runtime.util.plain_text import first_line
from xclip_runtime.util.system_errors import FULL_DISK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
CALLER = {"library_name": "xclip-onnx", "library_version": __version__}
ATTEMPTS = 4
"""Attempts at what an overloaded hub refuses, or a cut connection ends."""
WAIT = 1.0
"""Seconds before the second attempt, doubled for each further one."""

INCONSISTENT = "Consistency check failed"
"""Start of the client's message if a download has another size than the hub names."""

_NETWORK = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "http")
"""Packages whose errors are those of a connection."""
"""Errors of a disk that may come without the name of a file."""
_RETRY = re.compile(r"([\d.]+)s.*\[Retry (\d+/\d+)\]")
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Use:
    """Purpose of a call of the client, for its messages."""

    name: str
    """Repository, such as "owner/name"."""
    revision: str | None
    file: str = ""
    """File to download; empty for the list of files, or an upload."""
    missing: str = "push the repository again"
    """Fix to suggest if the file is missing."""
    write: bool = False
    """True for an upload."""

    @property
    def task(self) -> str:
        """Purpose, as the start of a sentence."""
        if self.write:
            return f"the upload to {self.name}"
        return f"the download of {self.file or 'the list of files'} of {self.name}"


def endpoint() -> str:
    """Return $HF_ENDPOINT, else the address of the Hugging Face Hub.

    Raises:
        HubError: The variable holds no address of a server.
    """
    address = (os.environ.get("HF_ENDPOINT") or f"https://{HOSTS[0]}").rstrip("/")
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        shown = without_passwords(address)
        message = f"HF_ENDPOINT is not the address of a hub ({shown}): write https://host, or unset it"
        raise HubError(message)
    return address


def hub_api(client: Any) -> Any:
    """Make the client's ``HfApi`` for the endpoint."""
    return client.HfApi(endpoint=endpoint(), **CALLER)


def attempt(use: Use, call: Callable[[Any], Result]) -> Result:
    """Call ``call`` with the client, and again if the hub is overloaded or the connection was cut.

    Raises:
        HubError: It failed; the message is one line, with what to do.
        MissingExtraError: huggingface_hub is not installed.
    """
    endpoint()
    client, number = _client(use), 1
    while True:
        try:
            with _quiet(use.task) as log:
                return call(client)
        except HubError:
            raise
        except Exception as error:  # the client raises many unrelated classes
            failure, transient = _explain(client, error, use)
            if not transient or log.waited or number == ATTEMPTS:
                raise failure from error
        number += 1
        logger.warning("%s: attempt %d of %d", str(failure).rpartition(": ")[0], number, ATTEMPTS)
        time.sleep(WAIT * 2 ** (number - 2))


@contextmanager
def progress(client: Any, *, shown: bool) -> Iterator[None]:
    """Turn the client's progress bars on or off; it shows them on terminals only."""
    if shown or client.utils.are_progress_bars_disabled():
        yield
        return
    client.utils.disable_progress_bars()
    try:
        yield
    finally:
        client.utils.enable_progress_bars()


def status_of(error: BaseException) -> int:
    """Return the HTTP status that an error of the client reports, or 0."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _client(use: Use) -> Any:
    try:
        client = importlib.import_module("huggingface_hub")
        # The last gives the client's log the handler that is put aside for each call.
        for name in ("constants", "errors", "utils", "utils.logging"):
            importlib.import_module(f"huggingface_hub.{name}")
    except ImportError as error:
        feature = f"{use.name} on a model hub" if use.write else f"{use.name} is not a local folder, and a model hub"
        raise MissingExtraError(feature, "hub") from error
    except ValueError as error:
        message = f"huggingface_hub cannot read its settings ({first_line(error)}): check the variables HF_*"
        raise HubError(message) from error
    if client.constants.HF_HUB_CACHE.startswith("~"):
        message = "there is no home folder for the cache of downloads: set HF_HOME to a folder that is writable"
        raise HubError(message)
    return client


class _ClientLog(logging.Handler):
    """Handler that turns the client's own log into one line of ours for each of its attempts."""

    def __init__(self, task: str) -> None:
        super().__init__(logging.WARNING)
        self._task = task
        self.waited = False
        """True once the client has waited for the hub, as some versions do."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if "Trying to resume" in said:
            logger.warning("%s was cut: resuming", self._task)
        elif retry := _RETRY.search(said):
            self.waited = True
            logger.warning("%s does not answer: trying again in %s s (%s)", _host(), *retry.groups())


@contextmanager
def _quiet(task: str) -> Iterator[_ClientLog]:
    log = logging.getLogger("huggingface_hub")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, ours = (log.handlers, log.propagate), _ClientLog(task)
        log.handlers, log.propagate = [ours], False
        try:
            yield ours
        finally:
            log.handlers, log.propagate = before


def _explain(client: Any, error: Exception, use: Use) -> tuple[HubError, bool]:
    """Return the error to raise, and True if another attempt may succeed."""
    causes = tuple(_causes(error))
    for kind, failure in _refusals(use).items():
        if any(isinstance(cause, getattr(client.errors, kind)) for cause in causes):
            return failure, False
    status = next(filter(None, map(status_of, causes)), 0)
    of_disk = (e for e in causes if isinstance(e, OSError) and (e.filename or e.errno in FULL_DISK))
    strerror = next((e.strerror for e in of_disk), None)
    unreached = not use.file or any(isinstance(cause, client.errors.LocalEntryNotFoundError) for cause in causes)
    host, transient = _host(), False
    message = f"{use.task} failed ({first_line(error)}): check the name, the revision, the proxy and the variables HF_*"
    if status in (401, 403):
        may = "write to" if use.write else "read"
        message = f"{host} does not let you {may} {use.name} ({status}): set HF_TOKEN to a token that may"
        return HubAccessError(message), False
    if status == 429 or status >= 500:
        trouble = "gets too many requests from here" if status == 429 else "is overloaded or down"
        return HubUnavailableError(f"{host} {trouble} ({status}): try again in a few minutes"), True
    if not unreached and any(isinstance(cause, client.errors.EntryNotFoundError) for cause in causes):
        return HubNotFoundError(f"{use.name} has no {use.file} at {use.revision}: {use.missing}"), False
    if strerror is not None:
        cache = client.constants.HF_HUB_CACHE
        message = (
            f"cannot write the cache of downloads {cache} ({strerror}): free space, or set HF_HOME to another folder"
        )
    elif status == 404 or any(_is_of_another_server(client, cause) for cause in causes):
        message = f"{host} does not answer as a model hub: check HF_ENDPOINT and the proxy"
    elif status:
        message = f"{host} refuses {use.task} ({status}): check HF_ENDPOINT and the proxy"
    elif any(isinstance(cause, UnicodeError) for cause in causes) and not os.environ.get("HF_TOKEN", "").isascii():
        message = "HF_TOKEN has characters that no token has: copy it again"
    elif INCONSISTENT in str(error):
        message = f"{host} sends {use.file} of {use.name} in another size than it names: try again later"
    elif any(map(_is_of_network, causes)):
        transient = not unreached and not use.write
        message = f"{use.task} was cut: check the network, and run it again to resume"
        if not transient:
            lacking = "" if use.write else ", and the cache lacks the file"
            message = f"cannot reach {host}{lacking}: check the network, the proxy and HF_ENDPOINT"
        return HubUnavailableError(message), transient
    return HubError(message), False


def _refusals(use: Use) -> dict[str, HubError]:
    """Return the errors of the client that say all, most special first."""
    name, host = use.name, _host()
    here = "" if use.write else f"there is no folder {name} here, and "
    part = use.file or "the files"
    return {
        "GatedRepoError": HubAccessError(
            f"{name} is gated: ask for access at {endpoint()}/{name}, then set HF_TOKEN, or log in with `hf auth login`"
        ),
        "RevisionNotFoundError": HubNotFoundError(
            f"{name} has no revision {use.revision}: give one of its branches, tags or commits"
        ),
        "RepositoryNotFoundError": HubNotFoundError(
            f"{here}{host} has no repository {name}, or it is private: check the name; for a private one set HF_TOKEN"
        ),
        "OfflineModeIsEnabled": HubUnavailableError(
            f"offline mode is on, and the cache lacks {part} of {name}: go online (unset HF_HUB_OFFLINE)"
        ),
        "HFValidationError": HubError(f"{name!r} is not the name of a repository: write owner/name"),
    }


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__ or following.__context__


def _is_of_network(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in _NETWORK or isinstance(error, (ConnectionError, TimeoutError))


def _is_of_another_server(client: Any, error: BaseException) -> bool:
    """Return True for a response without a hub's headers, or endless redirects; the class varies by client version."""
    return (
        isinstance(error, (client.errors.FileMetadataError, RecursionError))
        or type(error).__name__ == "TooManyRedirects"
    )


def _host() -> str:
    """Return host and port of the endpoint, without a password that its address may have."""
    parts = urlsplit(endpoint())
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
