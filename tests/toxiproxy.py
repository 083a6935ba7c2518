"""Faults of a real network: toxiproxy, asked over its REST API."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import programs


class Line:
    """One proxied server. Attributes: url: where it is reached through the proxy."""

    def __init__(self, api: str, url: str) -> None:
        self._api = api
        self.url = url

    def cut(self, *, down: bool = True) -> None:
        """Refuse connections, and end those there are; or serve again."""
        self._ask("POST", "", {"enabled": not down})

    def add(self, kind: str, *, stream: str = "downstream", **attributes: int) -> None:
        """Add a toxic: latency, timeout, reset_peer, limit_data, bandwidth, slicer; see toxiproxy's README."""
        toxic = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._ask("POST", "/toxics", toxic)

    def heal(self) -> None:
        """Take all faults away."""
        for toxic in self._ask("GET", "/toxics"):
            self._ask("DELETE", f"/toxics/{toxic['name']}")
        self.cut(down=False)

    def _ask(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self._api}/proxies/s3{path}", data, method=method), timeout=10
        ) as answer:
            content = answer.read()
        return json.loads(content) if content else None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def before(url: str) -> Iterator[Line]:
    """Stand before a server on the loopback."""
    api_port, port = _free_port(), _free_port()
    api = f"http://127.0.0.1:{api_port}"
    process = subprocess.Popen(
        [programs.program("toxiproxy"), "-host", "127.0.0.1", "-port", str(api_port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        proxy = {"name": "s3", "listen": f"127.0.0.1:{port}", "upstream": urlsplit(url).netloc}
        deadline = time.monotonic() + 10
        while True:
            try:
                request = urllib.request.Request(f"{api}/proxies", json.dumps(proxy).encode(), method="POST")
                urllib.request.urlopen(request, timeout=10).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "toxiproxy did not start"
                time.sleep(0.02)
        yield Line(api, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)
