"""Finding mounts of this host: the sockets of daemons and the kernel's mountinfo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from volgate import paths
from volgate.control.client import ask
from volgate.errors import NotFound, StorageException

FIELDS: Final = (
    "volume_id", "uuid", "mount_point", "pid", "backend_type", "source", "state",
    "used_bytes", "quota_bytes", "file_count", "quota_inodes", "read_only",
)  # fmt: skip
_FILE_SYSTEM_TYPE: Final = "fuse.volgate"


def find_all() -> list[dict[str, Any]]:
    """Return the status of every mount; of one that nobody serves any more, what mountinfo says, in state dead."""
    found: list[dict[str, Any]] = []
    for socket in sorted(paths.runtime_directory().glob("*.sock")):
        try:
            answer: dict[str, Any] = ask(socket, "GET", "/v1/status")
            found.append({**answer, "socket": str(socket)})
        except NotFound:
            continue
        except StorageException:
            found.append({**_unknown(socket.name.removesuffix(".sock")), "state": "degraded", "socket": str(socket)})
    served = {status["mount_point"] for status in found}
    found += [_unknown(name, where) for name, where in _mounted() if where not in served]
    return found


def _mounted() -> list[tuple[str, str]]:
    """Return (volume id, mount point) of our mounts by mountinfo (proc(5)); never touches a mount."""
    mounts = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split()
            separator = fields.index("-")
            if fields[separator + 1] == _FILE_SYSTEM_TYPE:
                mounts.append((fields[separator + 2].removeprefix("volgate:"), _unescape(fields[4])))
    return mounts


def _unescape(text: str) -> str:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape") if "\\" in text else text


def _unknown(volume_id: str, mount_point: str | None = None) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(FIELDS)
    return {**nothing, "volume_id": volume_id, "mount_point": mount_point, "state": "dead"}


def find(target: str) -> dict[str, Any]:
    """Return the status of one mount, by mount point or volume id.

    Raises:
        NotFound: no such mount.
    """
    where = os.path.abspath(target)
    real = str(Path(os.path.realpath(os.path.dirname(where))) / os.path.basename(where))
    status: dict[str, Any]
    for status in reversed(find_all()):
        if status["mount_point"] in (where, real) or (status["volume_id"] == target and "/" not in target):
            return status
    raise NotFound(f"'{target}' is neither a mount of volgate's nor the id of a mounted volume; see 'volgate list'")
