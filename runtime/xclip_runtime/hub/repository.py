"""Names of repositories, and a commit of one with its files."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from xclip_runtime.errors import HubError
from xclip_runtime.hub.client import CALLER, HOSTS, INCONSISTENT, Use, attempt, endpoint, hub_api, progress, status_of
from xclip_runtime.util.addresses import without_passwords

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Result = TypeVar("Result")

DEFAULT_REVISION = "main"
DOWNLOADING = "downloading"
"""Start of a line of progress, after which the client draws a bar on a terminal."""
SMALL = 1 << 20
"""Size in bytes below which a download shows no progress."""
LARGEST_FIRST = 1 << 24
"""Largest size in bytes of the file by which a repository is found."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PAGES = ("tree", "blob", "resolve", "raw", "commit")
"""Pages of a repository whose address names a revision."""
# What follows these is a folder or file: a branch cannot be in another, and "main" is one.
_REVISION = re.compile(r"(main|refs/pr/\d+|refs/convert/[^/]+|[0-9a-f]{40})(?:/|$)")


@dataclass(frozen=True)
class HubFile:
    """File of a repository, as far as the hub tells."""

    size: int | None = None
    """Size in bytes."""
    sha256: str | None = None
    """Digest of a large file's content; None for a file that is kept in git itself."""


@dataclass(frozen=True)
class Repository:
    """A commit of a model repository on a hub."""

    name: str
    """Such as "owner/name"."""
    commit: str
    folder: Path
    """Folder of the commit in the cache, with the files that have been downloaded."""

    @classmethod
    def open(cls, name: str, revision: str | None, first: str, *, missing: str) -> Repository:
        """Find a repository by a file in its root, which is downloaded; ``missing`` says what to do if it has none.

        Raises:
            HubError: The repository or the file cannot be had.
            MissingExtraError: huggingface_hub is not installed.
        """
        path = _download(Use(name, revision or DEFAULT_REVISION, first, missing), largest=LARGEST_FIRST)
        return cls(name, path.parent.name, path.parent)

    def fetch(self, file: str, *, size: int | None = None, again: bool = False) -> Path:
        """Return the path of a file in the cache, after downloading it if it is not there, or ``again``.

        Raises:
            HubError: The file cannot be had.
        """
        path = self.folder / file
        if path.is_file() and not again:
            return path
        with suppress(OSError):
            path.unlink()  # The client would leave a link to something else in its place.
        return _download(Use(self.name, self.commit, file), size=size, again=again)

    def files(self) -> Mapping[str, HubFile]:
        """List the files of the commit by their paths.

        Raises:
            HubUnavailableError: The hub does not answer, or offline mode is on.
            HubError: It does not give the list.
        """
        info = attempt(
            Use(self.name, self.commit),
            lambda client: hub_api(client).model_info(self.name, revision=self.commit, files_metadata=True),
        )
        return {
            file.rfilename: HubFile(file.size, file.lfs.sha256 if file.lfs else None) for file in info.siblings or ()
        }


def parse_name(source: str, revision: str | None = None) -> tuple[str, str | None] | None:
    """Read "owner/name", "owner/name@revision", or the address of a model's page.

    Returns:
        Name and revision, or None for text that is neither.

    Raises:
        HubError: An address leads elsewhere, or there are two revisions.
    """
    if "://" in source or source.startswith(tuple(f"{host}/" for host in HOSTS)):
        name, own = _of_address(source)
    else:
        name, _, own = source.partition("@")
        if not _NAME.fullmatch(name):
            return None
    if own and revision and own != revision:
        message = f"two revisions of {name}, {own} and {revision}: give one of them"
        raise HubError(message)
    return name, revision or own or None


def at_revision(source: str, revision: str) -> str:
    """Return "owner/name@revision" for the name or address of a repository.

    Raises:
        HubError: It is a file or folder, or has another revision.
    """
    named = None if Path(source).exists() else parse_name(source, revision)
    if named is None:
        message = f"{source} is not a repository on a model hub: leave the revision out, or give owner/name"
        raise HubError(message)
    return f"{named[0]}@{revision}"


def is_lfs_pointer(path: Path) -> bool:
    """Return True if a file is a Git LFS pointer, not the content."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def write_to_hub(name: str, revision: str | None, write: Callable[[Any], Result]) -> Result:
    """Call ``write`` with the client's ``HfApi``; errors and log are as of a download.

    Raises:
        HubError: The hub refuses, or does not answer.
        MissingExtraError: huggingface_hub is not installed.
    """

    def call(client: Any) -> Result:
        with progress(client, shown=sys.stderr.isatty()):
            return write(hub_api(client))

    return attempt(Use(name, revision, write=True), call)


def _of_address(address: str) -> tuple[str, str]:
    hub = urlsplit(endpoint())
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
    except ValueError as error:
        message = f"{without_passwords(address)} is not an address: write owner/name, or owner/name@revision"
        raise HubError(message) from error
    owner, name, page, *rest = [*map(unquote, parts.path.strip("/").split("/")), "", ""]
    ours = parts.hostname in (*HOSTS, hub.hostname) and owner not in ("datasets", "spaces")
    if not ours or not _NAME.fullmatch(f"{owner}/{name}") or (page and page not in _PAGES):
        message = (
            f"{parts.hostname}{parts.path} is not the page of a model on {hub.hostname}: "
            "write owner/name, or owner/name@revision"
        )
        raise HubError(message)
    return f"{owner}/{name}", _revision_of(f"{owner}/{name}", page, "/".join(filter(None, rest)))


def _revision_of(name: str, page: str, path: str) -> str:
    """Return the revision that the path of a page begins with, which may have slashes."""
    if known := _REVISION.match(path):
        return known[1]
    file = page in ("blob", "resolve", "raw")
    revision, slash, _ = path.partition("/")
    if path.count("/") > file:
        message = f"an address does not tell if {revision!r} or more of {path!r} is the revision: write {name}@REVISION"
        raise HubError(message)
    return revision if slash and file else path


def _download(use: Use, *, size: int | None = None, again: bool = False, largest: int | None = None) -> Path:
    def get(client: Any, *, force: bool) -> Path:
        options = {"revision": use.revision, "force_download": force, "endpoint": endpoint(), **CALLER}
        return Path(client.hf_hub_download(use.name, use.file, **options))

    def get_or_restart(client: Any) -> Path:
        if largest is not None and (cached := _cached_or_small(client, use, largest)):
            return cached
        with progress(client, shown=size is not None and size >= SMALL):
            try:
                return get(client, force=again)
            except OSError as error:
                # What an earlier attempt left in the cache belongs to other content.
                if INCONSISTENT not in str(error) and status_of(error) != 416:
                    raise
                return get(client, force=True)

    return attempt(use, get_or_restart)


def _cached_or_small(client: Any, use: Use, largest: int) -> Path | None:
    """Ask the hub for the size of a file; return its path if it is in the cache already.

    Raises:
        HubError: It is larger than ``largest``.
    """
    cached = client.try_to_load_from_cache(use.name, use.file, revision=use.revision)
    path = Path(cached) if isinstance(cached, str) else None
    url = client.hf_hub_url(use.name, use.file, revision=use.revision, endpoint=endpoint())
    try:
        found = hub_api(client).get_hf_file_metadata(url=url)
    except Exception as error:
        if path is None and (status_of(error) == 429 or status_of(error) >= 500):
            raise  # Do not ask an overloaded hub again.
        return None  # The download reports the same error, or uses the cached file.
    if path is not None and path.parent.name == found.commit_hash:
        return path
    if (found.size or 0) > largest:
        message = (
            f"{use.file} of {use.name} has {found.size / 1e6:.0f} MB, "
            f"where {largest / 1e6:.0f} are the most: {use.missing}"
        )
        raise HubError(message)
    return None
