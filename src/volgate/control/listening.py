"""Sockets to listen at: those that the service manager gives, or of our own."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from volgate.control.secret_files import read_secret
from volgate.errors import BadConfiguration, Busy
from volgate.errors.errno_map import from_oserror_at

_FIRST_INHERITED: Final = 3
_BACKLOG: Final = 128
_PROBE_S: Final = 1.0
_MODE: Final = 0o660


def take_inherited() -> list[socket.socket]:
    """Return the listening sockets that systemd opened for this process (sd_listen_fds(3)); children get none."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for number in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(number, False)
        sockets.append(socket.socket(fileno=number))
    return sockets


@contextlib.contextmanager
def unix_listener(path: Path, gid: int | None) -> Iterator[socket.socket]:
    """Listen at a path, mode 0660; at the end it is removed. A stale socket is replaced, one that answers is not.

    Args:
        gid: the group that may connect; None = the process's own.

    Raises:
        Busy: another process answers there. StorageException: there can be no socket; the message names it.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX)
        old = os.umask(0o177)  # nobody is let in before the group is right
        try:
            listener.bind(str(path))
        finally:
            os.umask(old)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(_MODE)
        made = path.stat()
        listener.listen(_BACKLOG)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise from_oserror_at(error) from error
    with listener:
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                now = path.stat()
                if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):  # else it is another daemon's by now
                    path.unlink()


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except TimeoutError as error:
            raise Busy(f"a process has {path} and does not answer; end it first") from error
        else:
            raise Busy(f"another control daemon answers at {path} already")


def tcp_listeners(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of a host's name. Raises Busy: the address is taken, or not this host's."""
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise Busy(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return listeners


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how a server speaks TLS: 1.2 or later, HTTP/1.1 alone. Raises BadConfiguration: a file is none."""
    read_secret(key, "the key of TLS")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password="")  # one that asks for one is refused
    except (OSError, ssl.SSLError) as error:
        raise BadConfiguration(f"{certificate} and {key} are no certificate with its key: {error}") from error
    return context
