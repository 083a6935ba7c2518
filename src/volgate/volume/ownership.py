"""One writable owner a volume: taken at open, refused with the holder's name."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from volgate.drivers.base import BaseStorageBackend
from volgate.errors import Busy


async def acquire_ownership(backend: BaseStorageBackend, volume_id: str, mount_path: Path) -> None:
    """Become the volume's owner.

    Raises:
        Busy: another is; the message names it and what to do.
    """
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "mount_point": str(mount_path), "since": time.time()}
    try:
        await backend.acquire_ownership(json.dumps(holder).encode() + b"\n")
    except Busy as error:
        raise Busy(f"volume {volume_id} is in use {_describe(str(error))}; unmount it there first") from error


def _describe(line: str) -> str:
    try:
        holder = json.loads(line)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"at {holder['mount_point']} by process {holder['pid']} on host {holder['host']} since {since}"
    except (ValueError, KeyError, TypeError):
        return "by another process"
