"""A forward proxy on the loopback (RFC 9110 §7.6, CONNECT in §9.3.6), as sites put before the internet."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class ForwardProxy(socketserver.ThreadingTCPServer):
    """Attributes: asked: first lines of the requests; credentials: values of Proxy-Authorization."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.credentials: list[str] = []

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        first = self.rfile.readline().decode()
        headers = list(iter(self.rfile.readline, b"\r\n"))
        self.server.asked.append(first.strip())
        own = [header for header in headers if header.lower().startswith(b"proxy-authorization:")]
        self.server.credentials += [header.split(b":", 1)[1].strip().decode() for header in own]
        method, url, version = first.split()
        with self._connect(method, url) as upstream:
            self._send_first(upstream, method, url, version, [header for header in headers if header not in own])
            pump = threading.Thread(target=self._pump, args=(upstream,), daemon=True)
            pump.start()
            with contextlib.suppress(OSError):
                while data := self.rfile.read1(1 << 16):
                    upstream.sendall(data)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            pump.join()

    def _connect(self, method: str, url: str) -> socket.socket:
        parts = urlsplit(f"//{url}" if method == "CONNECT" else url)
        return socket.create_connection((parts.hostname, parts.port or 80))

    def _send_first(self, upstream: socket.socket, method: str, url: str, version: str, headers: list[bytes]) -> None:
        if method == "CONNECT":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            return
        parts = urlsplit(url)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        upstream.sendall(f"{method} {path} {version}\r\n".encode() + b"".join(headers) + b"Connection: close\r\n\r\n")

    def _pump(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(1 << 16):
                self.connection.sendall(data)
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running() -> Iterator[ForwardProxy]:
    with ForwardProxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
