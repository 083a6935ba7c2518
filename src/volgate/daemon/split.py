"""The split daemon: a small parent keeps root's rights and only mounts and unmounts; a worker without them serves.

The worker runs as an ordinary user with ``no_new_privs`` and keeps the capabilities that a posix volume needs
(capabilities(7)); it gets /dev/fuse as a descriptor. Whoever takes it over by a bug can do to the volume what its users
can, and cannot mount, load a module or trace a process. The two speak over a socket pair, one JSON object a message.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import logging
import os
import pwd
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from volgate import errors
from volgate.errors import NotFound, NotPermitted, StorageException
from volgate.fuse import mounting

log = logging.getLogger(__name__)

_MESSAGE_BYTES: Final = 65536
_KEPT: Final = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_FSETID": 4,
                "CAP_MKNOD": 27}  # fmt: skip
"""What the worker keeps: to act on files as their owners, to find them by handle, to make the nodes root asks for."""
_LAST_CAP: Final = 63
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class RemoteMounter(mounting.Mounter):
    """The worker's view of its parent: mounting and unmounting by message. Blocks as mount(2) does."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def mount(self, mount_point: Path, *, source: str, read_only: bool, allow_other: bool) -> int:
        """See Mounter. The parent mounts where it was told to when it began, nowhere else."""
        _, descriptors = self._ask({"verb": "mount", "source": source, "read_only": read_only, "all": allow_other})
        return descriptors[0]

    def unmount(self, mount_point: Path, *, lazy: bool) -> None:
        """See Mounter."""
        self._ask({"verb": "unmount", "lazy": lazy})

    def announce(self, line: str) -> None:
        """Let the parent say that the mount answers; take the terminal's place away where the parent gave its up."""
        try:
            answer, _ = self._ask({"verb": "ready", "line": line})
        except errors.Unavailable:
            return  # the parent was killed meanwhile: nobody is left to tell, and the mount serves
        if answer["detached"]:
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), 2)
            os.setsid()
            os.chdir("/")

    def _ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        try:
            self._link.send(json.dumps(message).encode())
            data, descriptors, _, _ = socket.recv_fds(self._link, _MESSAGE_BYTES, 1)
        except OSError:
            data = b""
        if not data:
            raise errors.Unavailable("the parent that mounts is gone; root can unmount with umount(8)")
        answer = json.loads(data)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer, descriptors


def run(
    user: str,
    mount_point: Path | None,
    work: Callable[[RemoteMounter], int],
    on_ready: Callable[[str], None],
) -> int:
    """Fork the worker and mount for it until it ends; returns its exit status.

    Args:
        user: whom the worker runs as.
        mount_point: the only place where anything is mounted; None = nothing is.
        work: runs in the worker; what it raises is raised here.
        on_ready: called here once the mount answers, with the line for people.

    Raises:
        NotPermitted: this process is not root. NotFound: no such user. StorageException: the worker's.
    """
    if os.geteuid() != 0:
        raise NotPermitted(f"only root can serve a mount as user {user}; leave the worker option away")
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise NotFound(
            f"there is no user '{user}' for the worker: systemd-sysusers, or useradd --system {user}"
        ) from error
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_worker(account, theirs, work)
    theirs.close()
    forward = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda got, _: os.kill(pid, got)) for number in forward}
    try:
        _serve(ours, mount_point, on_ready)
        _, status = os.waitpid(pid, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
    code = os.waitstatus_to_exitcode(status)
    if code != 0 and mount_point is not None:
        with contextlib.suppress(StorageException):
            mounting.unmount(mount_point, lazy=True)
    return code if code >= 0 else 2


def _serve(link: socket.socket, mount_point: Path | None, on_ready: Callable[[str], None]) -> None:
    """Do what the worker asks until it ends; raises what it could not recover from."""
    while data := link.recv(_MESSAGE_BYTES):
        message = json.loads(data)
        descriptors: list[int] = []
        answer: dict[str, Any] = {}
        try:
            if mount_point is None and message["verb"] in ("mount", "unmount"):
                raise NotPermitted("nothing is to be mounted")
            if message["verb"] == "mount" and mount_point is not None:
                descriptors.append(
                    mounting.mount(
                        mount_point,
                        source=str(message["source"]),
                        read_only=bool(message["read_only"]),
                        allow_other=bool(message["all"]),
                    )
                )
            elif message["verb"] == "unmount" and mount_point is not None:
                mounting.unmount(mount_point, lazy=bool(message["lazy"]))
            elif message["verb"] == "ready":
                on_ready(str(message["line"]))
                answer["detached"] = os.readlink("/proc/self/fd/2") == os.devnull
            elif message["verb"] == "failed":
                raise getattr(errors, message["error"])(message["message"])
        except StorageException as error:
            if message["verb"] == "failed":
                raise
            answer = {"error": type(error).__name__, "message": str(error)}
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(link, [json.dumps(answer).encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)  # the worker holds the connection now: when it dies, the mount is dead


def _be_worker(account: pwd.struct_passwd, link: socket.socket, work: Callable[[RemoteMounter], int]) -> None:
    """Give rights up and work; never returns."""
    status = 2
    try:
        _drop_privileges(account)
        os.environ["WATCHDOG_PID"] = str(os.getpid())  # systemd wants its sign of life from who serves
        status = work(RemoteMounter(link))
    except StorageException as error:
        link.send(json.dumps({"verb": "failed", "error": type(error).__name__, "message": str(error)}).encode())
        status = 32
    except BaseException:
        log.exception("the worker failed in a way nobody foresaw")
    finally:
        os._exit(status)


def _drop_privileges(account: pwd.struct_passwd) -> None:
    """Become a user that can act on files and nothing else. Raises OSError."""
    os.initgroups(account.pw_name, account.pw_gid)
    _check("keepcaps", _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    for capability in range(_LAST_CAP + 1):
        if capability not in _KEPT.values() and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # beyond the last one this kernel knows
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    wanted = sum(1 << number for number in _KEPT.values())
    header = array.array("I", [_CAPABILITY_VERSION_3, 0])
    # Two of {effective, permitted, inheritable}, for the lower and the upper 32 capabilities (capset(2)).
    data = array.array("I", [wanted, wanted, 0, 0, 0, 0])
    addresses = [ctypes.c_void_p(structure.buffer_info()[0]) for structure in (header, data)]
    _check("capset", _libc.capset(*addresses))
    _check("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _check(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
