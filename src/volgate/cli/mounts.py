"""Finding mounts of this host, and owners without one: the sockets of daemons and the kernel's mountinfo."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any, Final

from volgate import paths
from volgate.control.client import ask, find_owner
from volgate.daemon.checks import resolve_mount_point
from volgate.dto.validation import VOLUME_ID
from volgate.errors import Busy, NotFound, StorageException
from volgate.fuse.mounting import FILE_SYSTEM_TYPE, list_mounts

FIELDS: Final = (
    "volume_id", "uuid", "mount_point", "pid", "backend_type", "source", "state",
    "used_bytes", "quota_bytes", "file_count", "quota_inodes", "read_only",
)  # fmt: skip
UNKNOWN: Final = "another user's"
"""State of a mount whose daemon belongs to somebody else: only that user and root may ask it."""

_READ_ONLY: Final = re.compile(r"\.ro-\d+$")
"""Ends the name of a read-only mount's socket, since a volume may have several of them."""


def is_headless(status: dict[str, Any]) -> bool:
    """Return whether this is the status of an owner that has no mount, which it said itself."""
    return status["mount_point"] is None and status["source"] is not None


def find_all(volume_id: str | None = None) -> list[dict[str, Any]]:
    """Return the status of every mount, or of one volume's; of one that does not answer us, what mountinfo says.

    Owners without a mount are among them.
    """
    found = _ask_all(_sockets(volume_id))
    silent = [status for status in found if status["source"] is None]
    served = {status["mount_point"] for status in found}
    mine = os.geteuid()
    for entry in list_mounts():
        name, where, uid = entry.source.removeprefix("volgate:"), entry.mount_point, entry.user_id
        if entry.file_system_type != FILE_SYSTEM_TYPE or volume_id not in (None, name):
            continue
        if where in served:
            continue
        hung = next((status for status in silent if status["volume_id"] == name), None)
        if hung is not None:
            hung["mount_point"] = where
            silent.remove(hung)
        else:
            found.append({**_unknown(name, where), "state": "dead" if mine in (0, uid) else UNKNOWN, "uid": uid})
    return found


def _ask_all(sockets: list[Path]) -> list[dict[str, Any]]:
    """Return what each daemon says of itself. All are asked at once: several that hang cost one time limit."""
    answers: list[dict[str, Any] | None] = [None] * len(sockets)

    def ask_one(number: int) -> None:
        socket = sockets[number]
        try:
            answer: dict[str, Any] = ask(socket, "GET", "/v1/status")
            answers[number] = {**answer, "socket": str(socket)}
        except NotFound:
            return
        except StorageException:
            volume_id = _READ_ONLY.sub("", socket.stem)
            silent = {"state": "degraded", "socket": str(socket), "pid": find_owner(socket)}
            answers[number] = {**_unknown(volume_id), **silent}

    threads = [threading.Thread(target=ask_one, args=(number,)) for number in range(len(sockets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


def _sockets(volume_id: str | None) -> list[Path]:
    """Return the sockets of this user's mounts, or of one volume's; root's view takes in those of all users."""
    folders = [paths.runtime_directory()]
    if os.geteuid() == 0:
        folders += sorted(Path("/run/user").glob("*/volgate"))
    names = ["*.sock"] if volume_id is None else [f"{volume_id}.sock", f"{volume_id}.ro-*.sock"]
    return [socket for folder in folders for name in names for socket in sorted(folder.glob(name))]


def _unknown(volume_id: str, mount_point: str | None = None) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(FIELDS)
    return {**nothing, "volume_id": volume_id, "mount_point": mount_point, "state": "dead"}


def _is_known(volume_id: str) -> bool:
    from volgate.volume.catalog import Catalog

    return any(entry.volume_id == volume_id for entry in Catalog(paths.catalog_path()).list())


def find(target: str, *, owner: bool = False) -> dict[str, Any]:
    """Return the status of one mount, by mount point, volume id, or the directory or URL of its data.

    Only the daemons of the volume meant are asked where the target tells which that is: others may hang.

    Args:
        owner: of a volume, who owns it is meant, and not who only reads it; else its only mount.

    Raises:
        NotFound: no such mount. Busy: several mounts of that volume; the message names them.
    """
    where, place = os.path.abspath(target), str(resolve_mount_point(target))
    at = [entry for entry in list_mounts() if entry.mount_point in (where, place)]
    name = at[-1].source.removeprefix("volgate:") if at and at[-1].file_system_type == FILE_SYSTEM_TYPE else target
    mounts = (find_all(name) if VOLUME_ID.fullmatch(name) else []) or find_all()
    found = [status for status in mounts if status["mount_point"] in (where, place)]
    if found:
        return found[-1]
    sources = (where, place, target.rstrip("/"))
    found = [
        s
        for s in mounts
        if (s["volume_id"] == target and "/" not in target)
        or (s["source"] is not None and s["source"].rstrip("/") in sources)
    ]
    if owner:
        found = [s for s in found if not s["read_only"]]
        found = [s for s in found if s.get("socket")] or found
    elif len(found) > 1:
        found = [s for s in found if s["mount_point"] is not None]
    if not found:
        if VOLUME_ID.fullmatch(target) and _is_known(target):
            raise NotFound(f"volume {target} is not mounted; 'volgate mount {target}' mounts it")
        raise NotFound(f"'{target}' is neither a mount of volgate's nor the id of a mounted volume; see 'volgate list'")
    if len(found) > 1:
        names = ", ".join(str(status["mount_point"]) for status in found)
        raise Busy(f"volume {found[0]['volume_id']} is mounted several times: {names}; name one of them")
    return found[0]
