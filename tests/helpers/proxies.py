"""A reverse proxy that shows a server below a path, which it takes off the requests that it passes on."""

from __future__ import annotations

import shutil
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def stripping_proxy(address: str, prefix: str) -> Iterator[str]:
    """Show the server at an address below a prefix, such as ``/video``; yield the address of the prefix.

    What is outside the prefix is 404, as there is another site.
    """
    host, _, port = address.removeprefix("http://").rpartition(":")

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method, path, version = self.rfile.readline().decode("latin-1").split()
            if not path.startswith(f"{prefix}/"):
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                return
            header = list(iter(self.rfile.readline, b"\r\n"))
            if not any(line.lower().startswith(b"upgrade:") for line in header):
                # One request a connection, as the next would need its path changed, too.
                header = [line for line in header if not line.lower().startswith(b"connection:")]
                header.append(b"Connection: close\r\n")
            first = f"{method} {path.removeprefix(prefix)} {version}\r\n".encode("latin-1")
            with socket.create_connection((host, int(port))) as server, server.makefile("rb", 0) as answers:
                server.sendall(b"".join([first, *header, b"\r\n"]))
                threading.Thread(target=_pass, args=(self.rfile, server), daemon=True).start()
                with suppress(OSError):
                    shutil.copyfileobj(answers, self.wfile)

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A browser may open a connection and send nothing."""

    with Proxy(("127.0.0.1", 0), Connection) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}{prefix}"
        proxy.shutdown()


def _pass(requests, server: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while part := requests.read1(1 << 16):
            server.sendall(part)
