"""Finding mounts of this host: the sockets of daemons and the kernel's mountinfo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from volgate import paths
from volgate.control.client import ask, find_owner
from volgate.daemon.checks import resolve_mount_point
from volgate.errors import Busy, NotFound, StorageException
from volgate.fuse.mounting import FILE_SYSTEM_TYPE, list_mounts

FIELDS: Final = (
    "volume_id", "uuid", "mount_point", "pid", "backend_type", "source", "state",
    "used_bytes", "quota_bytes", "file_count", "quota_inodes", "read_only",
)  # fmt: skip
UNKNOWN: Final = "another user's"
"""State of a mount whose daemon belongs to somebody else: only that user and root may ask it."""


def find_all() -> list[dict[str, Any]]:
    """Return the status of every mount; of one that does not answer us, what mountinfo says."""
    found: list[dict[str, Any]] = []
    for socket in _sockets():
        try:
            answer: dict[str, Any] = ask(socket, "GET", "/v1/status")
            found.append({**answer, "socket": str(socket)})
        except NotFound:
            continue
        except StorageException:
            silent_one = {"state": "degraded", "socket": str(socket), "pid": find_owner(socket)}
            found.append({**_unknown(socket.name.removesuffix(".sock")), **silent_one})
    silent = {status["volume_id"]: status for status in found if status["mount_point"] is None}
    served = {status["mount_point"] for status in found}
    mine = os.geteuid()
    for entry in list_mounts():
        if entry.file_system_type != FILE_SYSTEM_TYPE:
            continue
        name, where, uid = entry.source.removeprefix("volgate:"), entry.mount_point, entry.user_id
        if name in silent:
            silent.pop(name)["mount_point"] = where
        elif where not in served:
            found.append({**_unknown(name, where), "state": "dead" if mine in (0, uid) else UNKNOWN, "uid": uid})
    return found


def _sockets() -> list[Path]:
    """Return the sockets of this user's mounts; root's view takes in those of all users."""
    folders = [paths.runtime_directory()]
    if os.geteuid() == 0:
        folders += sorted(Path("/run/user").glob("*/volgate"))
    return [socket for folder in folders for socket in sorted(folder.glob("*.sock"))]


def _unknown(volume_id: str, mount_point: str | None = None) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(FIELDS)
    return {**nothing, "volume_id": volume_id, "mount_point": mount_point, "state": "dead"}


def find(target: str) -> dict[str, Any]:
    """Return the status of one mount, by mount point, volume id, or the directory or URL of its data.

    Raises:
        NotFound: no such mount. Busy: several mounts of that volume; the message names them.
    """
    mounts = find_all()
    where, place = os.path.abspath(target), str(resolve_mount_point(target))
    found = [status for status in mounts if status["mount_point"] in (where, place)]
    if found:
        return found[-1]
    found = [s for s in mounts if (s["volume_id"] == target and "/" not in target) or s["source"] in (where, target)]
    if not found:
        raise NotFound(f"'{target}' is neither a mount of volgate's nor the id of a mounted volume; see 'volgate list'")
    if len(found) > 1:
        names = ", ".join(str(status["mount_point"]) for status in found)
        raise Busy(f"volume {found[0]['volume_id']} is mounted several times: {names}; name one of them")
    return found[0]
