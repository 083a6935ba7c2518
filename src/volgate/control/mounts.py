"""What is mounted on this host: the sockets of mount daemons, joined with the kernel's table of mounts.

Blocking, and bounded by the time limit of one question; standard library only, so that verbs start fast. The control
daemon calls it in a thread.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final

from volgate import paths
from volgate.control.client import TIMEOUT_S, ask, find_owner
from volgate.errors import NotFound, StorageException

FIELDS: Final = (
    "volume_id", "uuid", "mount_point", "pid", "backend_type", "source", "state",
    "used_bytes", "quota_bytes", "file_count", "quota_inodes", "read_only",
)  # fmt: skip
UNKNOWN: Final = "another user's"
"""State of a mount whose daemon belongs to somebody else: only that user and root may ask it."""
READ_ONLY: Final = re.compile(r"\.ro-\d+$")
"""Ends the name of a read-only mount's socket, since a volume may have several of them."""

_AT_ONCE: Final = 64
MountTable = Callable[[], Iterable[tuple[str, str, int]]]
"""Gives the kernel's mounts of ours: (volume's id, mount point, user who mounted it)."""


def join(
    table: MountTable, volume_ids: Collection[str] | None = None, timeout_s: float = TIMEOUT_S
) -> list[dict[str, Any]]:
    """Return the status of every mount, or of some volumes'; of one that does not answer us, what mountinfo says.

    Owners without a mount are among them.
    """
    found = _ask_all(find_sockets(volume_ids), timeout_s)
    silent = [status for status in found if status["source"] is None]
    served = {status["mount_point"] for status in found}
    mine = os.geteuid()
    for name, where, uid in table():
        if (volume_ids is not None and name not in volume_ids) or where in served:
            continue
        hung = next((status for status in silent if status["volume_id"] == name), None)
        if hung is not None:
            hung["mount_point"] = where
            silent.remove(hung)
        else:
            found.append({**_unknown(name, where), "state": "dead" if mine in (0, uid) else UNKNOWN, "uid": uid})
    return found


def is_headless(status: dict[str, Any]) -> bool:
    """Return whether this is the status of an owner that has no mount, which it said itself."""
    return status["mount_point"] is None and status["source"] is not None


def _ask_all(sockets: list[Path], timeout_s: float) -> list[dict[str, Any]]:
    """Return what each daemon says of itself. They are asked at once: several that hang cost one time limit."""
    answers: list[dict[str, Any] | None] = [None] * len(sockets)

    def ask_one(number: int) -> None:
        socket = sockets[number]
        try:
            answer: dict[str, Any] = ask(socket, "GET", "/v1/status", timeout_s=timeout_s)
            answers[number] = {**answer, "socket": str(socket)}
        except NotFound:
            return
        except StorageException:
            volume_id = READ_ONLY.sub("", socket.stem)
            silent = {"state": "degraded", "socket": str(socket), "pid": find_owner(socket)}
            answers[number] = {**_unknown(volume_id), **silent}

    numbers = iter(range(len(sockets)))

    def work() -> None:
        for number in numbers:  # which all threads share: next() of such an iterator is atomic
            ask_one(number)

    threads = [threading.Thread(target=work) for _ in range(min(_AT_ONCE, len(sockets)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


def find_sockets(volume_ids: Collection[str] | None = None) -> list[Path]:
    """Return the sockets of this user's mounts, or of some volumes'; root's view takes in those of all users."""
    folders = [paths.runtime_directory()]
    if os.geteuid() == 0:
        folders += sorted(Path("/run/user").glob("*/volgate"))
    found = [socket for folder in folders for socket in sorted(folder.glob("*.sock"))]
    return [
        socket
        for socket in found
        if socket.name != paths.CONTROL_SOCKET and (volume_ids is None or READ_ONLY.sub("", socket.stem) in volume_ids)
    ]


def _unknown(volume_id: str, mount_point: str | None = None) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(FIELDS)
    return {**nothing, "volume_id": volume_id, "mount_point": mount_point, "state": "dead"}
