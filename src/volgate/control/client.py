"""Asking a mount daemon over its socket; blocking, with a time limit. No HTTP library, so it starts fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from volgate.control.problems import from_problem
from volgate.errors import NotFound, Unavailable

TIMEOUT_S: Final = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


def find_owner(path: Path) -> int | None:
    """Return the process that listens at a socket, also one that answers nobody; None where there is none.

    Source: unix(7), SO_PEERCRED: of a listening socket the credentials at the time of listen(2).
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid or None


def ask(path: Path, method: str, target: str, body: Any = None, *, timeout_s: float | None = TIMEOUT_S) -> Any:
    """Return the JSON answer of a daemon; ``timeout_s``: None waits as long as the daemon lives.

    Raises:
        NotFound: nobody serves that socket, or what was asked for is not there. Unavailable: no answer in time, or its
            storage gives none. Any other of the tree: what the daemon says it is, by its code.
    """
    return send(path, method, target, body, timeout_s=timeout_s)()


class Asked:
    """A question that was sent; calling it waits for the answer, and ``close`` waits no longer."""

    def __init__(self, connection: _UnixConnection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def __call__(self) -> Any:
        """Return the answer; raises as ``ask``."""
        with _closing_at_failure(self._connection, self._path):
            response = self._connection.getresponse()
            content = response.read()
        self.close()
        if response.status >= 400:
            raise from_problem(response.status, content)
        return json.loads(content)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def send(path: Path, method: str, target: str, body: Any = None, *, timeout_s: float | None = TIMEOUT_S) -> Asked:
    """Ask as ``ask`` does and return, once the question is sent, what waits for the answer. Both raise as ``ask``."""
    connection = _UnixConnection(path, timeout_s)
    with _closing_at_failure(connection, path):
        connection.request(method, target, None if body is None else json.dumps(body))
    return Asked(connection, path)


@contextlib.contextmanager
def _closing_at_failure(connection: _UnixConnection, path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotFound(f"no daemon answers at {path}") from error
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise Unavailable(f"the daemon at {path} does not answer: {error}") from error
