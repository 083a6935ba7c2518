"""One writable owner a volume: taken at open, refused with the holder's name."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from volgate.core.lease_record import Seen
from volgate.core.sizes import format_size
from volgate.drivers.base import BaseStorageBackend
from volgate.dto import Usage
from volgate.errors import Busy, VolumeInUse


async def acquire_ownership(backend: BaseStorageBackend, volume_id: str, mount_path: Path | None) -> None:
    """Become the volume's owner.

    Args:
        mount_path: where it is seen; None = nowhere.

    Raises:
        VolumeInUse: another is; the message names it and what to do.
    """
    place = None if mount_path is None else str(mount_path)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "mount_point": place, "since": time.time()}
    try:
        await backend.acquire_ownership(json.dumps(holder).encode() + b"\n")
    except Busy as error:
        raise VolumeInUse(_explain(str(error), volume_id)) from error


def _explain(line: str, volume_id: str) -> str:
    """Return why the volume cannot be had, and what helps."""
    found = _parse(line)
    if found is None:
        return line if "in use by process" in line else f"volume {volume_id} is in use by another process"
    if found.get("unreadable"):
        return (
            f"volume {volume_id}: what says who owns it cannot be read; if no host has it mounted, --take-over makes "
            "this host the owner"
        )
    if not found.get("expired"):
        remedy = "unmount it there first" if found.get("mount_point") else f"'volgate umount {volume_id}' there ends it"
        return f"volume {volume_id} is in use {describe_holder(line)}; {remedy}"
    host, files, size = (
        found.get("host", "?"),
        found.get("backlog_files", 0),
        format_size(found.get("backlog_bytes", 0)),
    )
    return (
        f"host {host} no longer owns volume {volume_id}, but its cache still has {files} files ({size}) that are not "
        f"in the bucket. Start {volume_id} on {host} to upload them; --take-over makes this host the owner, and what "
        f"{host} holds will not come"
    )


def describe_holder(line: str) -> str:
    """Return who owns a volume, of the line that names it: ``at /mnt by process 7 on host ann since ...``.

    Of an owner without a mount ``without a mount by process 7 ...``.
    """
    holder = _parse(line) or {}
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        place = "without a mount" if holder["mount_point"] is None else f"at {holder['mount_point']}"
        return f"{place} by process {holder['pid']} on host {holder['host']} since {since}"
    except (KeyError, TypeError, ValueError):
        return "by another process"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


async def load_released_usage(backend: BaseStorageBackend) -> Usage | None:
    """Return how full a volume was when its last owner gave it up, where that kept it; None where nobody did."""
    body = await backend.load_reserved("lease")
    record = None if body is None else Seen.from_bytes("", body).record
    return record.usage if record is not None and record.released else None
