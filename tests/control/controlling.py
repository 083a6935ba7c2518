"""A real control daemon for tests, on a socket of its own, and a plain client of it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from mounting import ALARM, volgate

READY_S = 30.0
SERVE = (sys.executable, "-m", "volgate", "control", "serve")
_numbers = itertools.count()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float = 60) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content) if self.content else None

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return self.json["code"]


@attrs.define
class Api:
    """A control daemon."""

    path: Path
    log_path: Path
    process: subprocess.Popen[bytes]

    def ask(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = UnixConnection(self.path)
        with contextlib.closing(connection):
            return converse(connection, method, target, body, headers)

    def ok(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.ask(method, target, body, headers)
        assert answer.status < 300, answer
        return answer.json

    def all_items(self, target: str, limit: int) -> list[Any]:
        """Return a whole list, page by page."""
        items, cursor = [], ""
        while True:
            page = self.ok("GET", f"{target}{'&' if '?' in target else '?'}limit={limit}{cursor}")
            assert len(page["items"]) <= limit
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


def converse(connection, method, target, body=None, headers=None) -> Answer:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    known = {} if content is None else {"Content-Type": "application/json"}
    connection.request(method, target, content, {**known, **(headers or {})})
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def start(path: Path, environment: Mapping[str, str] | None = None, command: Sequence[str] = SERVE) -> Api:
    log_path = path.with_suffix(".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "VOLGATE_CONTROL__SOCKET": str(path), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    api = Api(path, log_path, process)
    deadline, known = time.monotonic() + READY_S, api.log().count("the control daemon serves")
    while api.log().count("the control daemon serves") == known:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"no control daemon at {path}; it said:\n{api.log()}")
        time.sleep(0.02)
    return api


@contextlib.contextmanager
def serving(place: Path, environment: Mapping[str, str] | None = None) -> Iterator[Api]:
    """Run a control daemon; at the end it has to stop when it is asked to, having said nothing alarming."""
    api = start(place / "control.sock", environment)
    try:
        yield api
    except BaseException:
        api.process.kill()
        api.process.wait()
        print(f"--- log of the control daemon\n{api.log()}")
        raise
    if api.process.poll() is None:
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(60) == 0, api.log()
        assert not api.path.exists()
    assert not ALARM.search(api.log()), f"the control daemon raised an alarm:\n{api.log()}"


@contextlib.contextmanager
def started(path: Path, command: Sequence[str]) -> Iterator[Api]:
    """Run a control daemon by another command, in a box that ends with it; it may not say anything alarming."""
    api = start(path, command=command)
    try:
        yield api
    finally:
        api.process.kill()
        api.process.wait()
    assert not ALARM.search(api.log()), f"the control daemon raised an alarm:\n{api.log()}"


def new_name() -> str:
    """Return the name of no volume of this host."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def forget(name: str) -> None:
    """Unmount a volume of a test, and take it out of this host's catalog."""
    if volgate("umount", name).returncode:
        volgate("umount", name, "--lazy")
    deadline = time.monotonic() + READY_S
    while (done := volgate("volume", "delete", name)).returncode and "is known here" not in done.stderr:
        assert time.monotonic() < deadline, done  # a daemon whose mount was detached has not ended yet
        time.sleep(0.1)
