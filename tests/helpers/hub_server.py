"""A model hub on this machine that speaks the real one's protocol: its API, files in git and in LFS, and pushes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LFS_SUFFIXES = (".safetensors", ".bin", ".onnx", ".data", ".npy", ".pt", ".h5", ".msgpack")
TOKEN = "hf_reader"  # the one token that the hub accepts
API = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(?:/(?P<what>revision|preupload|commit|branch)/(?P<revision>.+))?")
RESOLVE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
BATCH = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
LFS = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})")


@dataclass
class HubRepository:
    """Branches and commits of a repository; a commit is its files by path."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Make a commit the head of a branch."""
        content = json.dumps([len(self.commits), *((name, sha256(data)) for name, data in sorted(files.items()))])
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit], self.branches[revision] = dict(files), commit
        return commit

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the main branch."""
        return self.commits[self.branches["main"]]


class Hub:
    """The hub's repositories and faults, and the requests that it got.

    Attributes:
        repositories: By name.
        requests: Method and path of each request, in their order.
        statuses: Statuses to answer the next requests with, by a part of their path.
        cuts: Bytes after which to end a download, one for each, by file name.
        lies: Content to send in place of a file's, by file name.
        objects: Large files by their SHA-256.
        ranges: Range headers that were sent.
        url: For HF_ENDPOINT.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.requests: list[tuple[str, str]] = []
        self.statuses: dict[str, list[int]] = {}
        self.cuts: dict[str, list[int]] = {}
        self.lies: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.url = ""

    @property
    def storage(self) -> str:
        """Address of the large files: another host than the API's."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, name: str, files: Path | Mapping[str, bytes], **facts: Any) -> str:
        """Add a repository, or a commit to it; return the commit."""
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}
        revision = facts.pop("revision", "main")
        return self.repositories.setdefault(name, HubRepository(**facts)).commit(files, revision)

    def downloads(self) -> list[str]:
        """Names of the files whose content was sent, in the order of the requests."""
        names = {
            sha256(data): name
            for r in self.repositories.values()
            for c in r.commits.values()
            for name, data in c.items()
        }
        found = []
        for method, path in self.requests:
            if method == "GET" and (match := RESOLVE.fullmatch(path) or LFS.fullmatch(path)):
                parts = match.groupdict()
                name = parts.get("file") or names[parts["oid"]]
                if name not in found:
                    found.append(name)
        return found


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sha256(data: bytes) -> str:
    """Digest of an LFS object."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Name of a blob in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str) -> bool:
    """True for files that the hub keeps in LFS, by .gitattributes."""
    return path.endswith(LFS_SUFFIXES)


class _RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, unquote(path)))
        try:
            for part, statuses in self.hub.statuses.items():
                if part in path and statuses:
                    raise _RefusalError(statuses.pop(0))
            self._route(path)
        except _RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, {"error": refusal.message}, {k: v for k, v in headers.items() if v})

    def _route(self, path: str) -> None:
        if match := RESOLVE.fullmatch(path):
            self._resolve(**{name: unquote(part) for name, part in match.groupdict().items()})
        elif match := LFS.fullmatch(path):
            self._object(match["oid"])
        elif match := BATCH.fullmatch(path):
            self._batch()
        elif path == "/api/repos/create":
            self._create()
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif match := API.fullmatch(path):
            what = match["what"] or "revision"
            getattr(self, f"_{what}")(match["name"], unquote(match["revision"] or "main"))
        else:
            raise _RefusalError(404, "", "no such page")

    def _allowed(self, name: str, *, write: bool = False, content: bool = True) -> HubRepository:
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if sent and sent != TOKEN:
            raise _RefusalError(401, "", "Invalid credentials in Authorization header")
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not sent):
            # The real one does not tell strangers whether it exists.
            raise _RefusalError(404 if sent else 401, "RepoNotFound", "Repository not found")
        if repository.gated and content:
            raise _RefusalError(403 if sent else 401, "GatedRepo", f"Access to model {name} is restricted")
        if write and not sent:
            raise _RefusalError(401, "", "Invalid username or password.")
        return repository

    @staticmethod
    def _commit_of(repository: HubRepository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _revision(self, name: str, revision: str) -> None:
        repository = self._allowed(name, content=False)
        commit = self._commit_of(repository, revision)
        siblings = [
            {
                "rfilename": path,
                "size": len(data),
                "blobId": git_sha1(data),
                **({"lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 134}} if is_lfs(path) else {}),
            }
            for path, data in repository.commits[commit].items()
        ]
        facts = {"private": repository.private, "gated": "manual" if repository.gated else False}
        self._send(200, {"_id": "0", "id": name, "modelId": name, "sha": commit, "siblings": siblings, **facts})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._allowed(name)
        commit = self._commit_of(repository, revision)
        data = repository.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if data is None:
            self._send(404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"})
        elif is_lfs(file):
            oid = sha256(data)
            self.hub.objects[oid] = data
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data)), "ETag": f'"{git_sha1(data)}"'}
            self._send(302, b"Found", {**headers, **linked, "Location": f"{self.hub.storage}/lfs/{oid}"})
        else:
            self._content(file, data, {**headers, "ETag": f'"{git_sha1(data)}"'})

    def _object(self, oid: str) -> None:
        if self.command == "PUT":
            self.hub.objects[oid] = self.body
            self._send(200, b"")
            return
        if self.headers.get("Authorization"):
            raise _RefusalError(400, "", "a signed address takes no token")
        data = self.hub.objects[oid]
        names = (
            n for r in self.hub.repositories.values() for c in r.commits.values() for n, d in c.items() if d == data
        )
        name = next(names)
        self._content(name, data, {"ETag": f'"{oid}"', "Content-Disposition": f'inline; filename="{name}";'})

    def _content(self, name: str, data: bytes, headers: Mapping[str, str]) -> None:
        data = self.hub.lies.get(name, data)
        start = 0
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                raise _RefusalError(416)
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        cuts = self.hub.cuts.get(name)
        cut = cuts.pop(0) if cuts and self.command == "GET" else None
        self._send(206 if wanted else 200, data[start:], headers, cut=cut)

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _RefusalError(401, "", "Invalid username or password.")
        if name.startswith("foreign/"):
            raise _RefusalError(403, "", f"You don't have the rights to create a model under the namespace {name}")
        found = name in self.hub.repositories
        if not found:
            self.hub.add(name, {".gitattributes": b"*.onnx filter=lfs\n"}, private=bool(asked.get("private")))
        self._send(409 if found else 200, {"url": f"{self.hub.url}/{name}", "name": name, "id": "0"})

    def _branch(self, name: str, revision: str) -> None:
        repository = self._allowed(name, write=True)
        if revision in repository.branches:
            raise _RefusalError(409, "", "Reference already exists")
        repository.branches[revision] = repository.branches["main"]
        self._send(200, {})

    def _preupload(self, name: str, revision: str) -> None:
        self._commit_of(self._allowed(name, write=True), revision)
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if is_lfs(f["path"]) else "regular", "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        self._send(200, {"files": modes})

    def _batch(self) -> None:
        asked = json.loads(self.body)["objects"]
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.storage}/lfs/{o['oid']}", "header": {}}}} for o in asked
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, revision: str) -> None:
        repository = self._allowed(name, write=True)
        files = dict(repository.commits[self._commit_of(repository, revision)])
        for line in self.body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = repository.commit(files, revision)
        # The client reads the name from it, with the endpoint that it was imported with.
        url = f"https://huggingface.co/{name}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _send(self, status: int, content: Any, headers: Mapping[str, str] = {}, *, cut: int | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True
