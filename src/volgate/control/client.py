"""Asking a mount daemon over its socket; blocking, with a time limit. Standard library only, so it starts fast."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from pathlib import Path
from typing import Any, Final

from volgate.errors import InvalidArgument, NotFound, Unavailable

TIMEOUT_S: Final = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
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


def ask(path: Path, method: str, target: str, body: Any = None, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return the JSON answer of a daemon.

    Raises:
        NotFound: nobody serves that socket. Unavailable: no answer in time. InvalidArgument: it refused; says why.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        response = connection.getresponse()
        content = response.read()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotFound(f"no daemon answers at {path}") from error
    except OSError as error:
        raise Unavailable(f"the daemon at {path} does not answer: {error}") from error
    finally:
        connection.close()
    answer = json.loads(content)
    if response.status >= 400:
        raise InvalidArgument(str(answer.get("detail", content)))
    return answer
