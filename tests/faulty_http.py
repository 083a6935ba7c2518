"""A proxy on the loopback that spoils chosen requests: what a network and a tired server do to S3."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Fault:
    """What happens to a request in place of being answered.

    Attributes:
        spoil: called with the handler, and a function that asks the real server and returns (status, headers, body).
        method: which requests it meets. times: how many of them.
    """

    def __init__(self, spoil: Callable, method: str = "", times: int = 1) -> None:
        self.spoil, self.method, self.times = spoil, method, times


def lose_reply(handler, ask):
    """The server does it, and nobody hears."""
    ask()
    handler.connection.close()


def reset(handler, ask):
    """The connection ends before the server has the request."""
    handler.connection.close()


def cut_body(handler, ask):
    """The answer ends in the middle of its body."""
    status, headers, body = ask()
    handler.answer(status, headers, body, sent=len(body) // 2)
    handler.connection.close()


def slow_down(handler, ask):
    """503, as S3 has it."""
    body = (
        b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )
    handler.answer(503, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}, body)


def say_done_with_an_error(handler, ask):
    """Status 200 with an error in the body, as CopyObject and CompleteMultipartUpload may answer."""
    body = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>"
    handler.answer(200, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}, body)


def know_no_upload(handler, ask):
    """404: an upload that is completed is gone; some servers remember it for a while, some do not."""
    body = b"<?xml version='1.0'?><Error><Code>NoSuchUpload</Code><Message>No such upload.</Message></Error>"
    handler.answer(404, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}, body)


def talk_nonsense(handler, ask):
    """An answer that is well-formed and makes no sense."""
    text = b"<R><IsTruncated>false</IsTruncated><Contents><Key>some/prefix/f</Key><Size>-x</Size><ETag>e</ETag>"
    body = text + b"<LastModified>yesterday</LastModified></Contents></R>"
    handler.answer(200, {"Content-Length": str(len(body)), "Last-Modified": "yesterday"}, body)


def hang(handler, ask):
    """No answer, for longer than anybody waits."""
    handler.server.released.wait(30)
    handler.connection.close()


@contextlib.contextmanager
def proxy(url: str) -> Iterator[tuple[str, list[Fault], list[str]]]:
    """Stand before a server; return (own URL, faults to come, requests seen as "METHOD path")."""
    faults: list[Fault] = []
    seen: list[str] = []
    upstream = urlsplit(url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(f"{self.command} {self.path}")

            def ask() -> tuple[int, dict[str, str], bytes]:
                connection = http.client.HTTPConnection(upstream, timeout=20)
                connection.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
                response = connection.getresponse()
                answer = response.status, dict(response.getheaders()), response.read()
                connection.close()
                return answer

            for fault in faults:
                if fault.times and fault.method in ("", self.command):
                    fault.times -= 1
                    fault.spoil(self, ask)
                    self.close_connection = True
                    return
            self.answer(*ask())

        def __getattr__(self, name: str) -> Callable:
            if name.startswith("do_"):
                return self.handle_any
            raise AttributeError(name)

        def answer(self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body[:sent])
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.released = threading.Event()
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults, seen
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
        time.sleep(0.01)
