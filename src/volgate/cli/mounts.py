"""Finding mounts of this host, and owners without one: the sockets of daemons and the kernel's mountinfo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from volgate import paths
from volgate.control.mounts import FIELDS, UNKNOWN, is_headless, join
from volgate.core.names import GATEWAY_NAME, IDENTITY_NAME
from volgate.daemon.checks import list_ours, resolve_mount_point
from volgate.dto.validation import VOLUME_ID
from volgate.errors import Busy, InvalidArgument, NotFound
from volgate.fuse.mounting import find_mount
from volgate.mount_table import FILE_SYSTEM_TYPE, list_mounts

__all__ = [
    "FIELDS",
    "UNKNOWN",
    "describe_detached",
    "find",
    "find_all",
    "is_data",
    "is_headless",
    "is_known",
    "mount_of",
]


def find_all(volume_id: str | None = None) -> list[dict[str, Any]]:
    """Return the status of every mount, or of one volume's; of one that does not answer us, what mountinfo says.

    Owners without a mount are among them.
    """
    return join(list_ours, None if volume_id is None else {volume_id})


def is_known(volume_id: str) -> bool:
    """Return whether the catalog has a volume."""
    from volgate.volume.catalog import Catalog

    return any(entry.volume_id == volume_id for entry in Catalog(paths.catalog_path()).list())


def describe_detached(status: dict[str, Any]) -> str:
    """Return what keeps the daemon of a mount that was detached, and what ends it; "" where it is not detached."""
    where, pid = status["mount_point"], status["pid"]
    if where is None or "statistics" not in status or find_mount(Path(where)) is not None:
        return ""
    count = status["statistics"]["open_files"]
    files = f"its {count} open files are closed, and " if count else ""
    return (
        f"{where} is detached already; its daemon ({pid}) ends when {files}no container has a copy of the mount any "
        f"more; 'kill {pid}' ends it now"
    )


def is_data(directory: str) -> bool:
    """Return whether a volume's data lies in a directory."""
    return os.path.lexists(f"{directory}/{GATEWAY_NAME.decode()}/{IDENTITY_NAME.decode()}")


def mount_of(path: str) -> str | None:
    """Return the mount point of ours that a path lies in; touches no mount."""
    above = [entry for entry in list_mounts() if Path(path).is_relative_to(entry.mount_point)]
    if not above:
        return None
    innermost = max(enumerate(above), key=lambda found: (len(found[1].mount_point), found[0]))[1]
    return innermost.mount_point if innermost.file_system_type == FILE_SYSTEM_TYPE else None


def find(target: str, *, owner: bool = False) -> dict[str, Any]:
    """Return the status of one mount, by mount point, volume id, or the directory or URL of its data.

    Only the daemons of the volume meant are asked where the target tells which that is: others may hang.

    Args:
        owner: of a volume, who owns it is meant, and not who only reads it; else its only mount.

    Raises:
        NotFound: no such mount. InvalidArgument: it lies in one.
        Busy: several mounts of that volume; the message names them.
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
        within = None if name != target or "/" not in target or "://" in target else mount_of(where)
        if within is not None:
            raise InvalidArgument(f"'{target}' lies in the mount {within}: name that")
        _refuse(target, sources)
    if len(found) > 1:
        names = ", ".join(str(status["mount_point"]) for status in found)
        raise Busy(f"volume {found[0]['volume_id']} is mounted several times: {names}; name one of them")
    return found[0]


def _refuse(target: str, places: tuple[str, ...]) -> NoReturn:
    """Raise NotFound for what is not mounted: says which volume it is, and what mounts it.

    Args:
        places: the mount points, directories and URLs that may be meant.
    """
    from volgate.cli.sources import catalog, to_mount

    known = catalog()
    for entry in known.list():
        if entry.volume_id == target or entry.source.rstrip("/") in places or entry.mount_point in places:
            raise NotFound(f"volume {entry.volume_id} is not mounted; '{to_mount(entry)}' mounts it")
    if "/" not in target and target not in (".", ".."):
        known.find(target)
    if is_data(places[0]):
        raise NotFound(f"the volume in {target} is not mounted; 'volgate mount {target} MOUNTPOINT' mounts it")
    raise NotFound(f"'{target}' is neither a mount of volgate's nor the data of a mounted volume; see 'volgate list'")
