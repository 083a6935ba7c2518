"""``volgate umount``: returns when the daemon has ended, so that all is settled."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from typing import Any, Final

import click

from volgate.cli.arguments import Target
from volgate.cli.mounts import find
from volgate.cli.output import Progress
from volgate.cli.storage import describe_backlog, describe_left
from volgate.control.client import ask, send
from volgate.errors import Busy, NotFound, StorageException

_SILENT_S: Final = 0.5
"""A wait shorter than this needs no explanation."""
_WAIT_S: Final = 60.0


@click.command()
@click.argument("target", type=Target())
@click.option("-l", "--lazy", is_flag=True, help="Detach at once, whoever uses it; files that are open go on working.")
@click.option("--dead", "only_dead", is_flag=True, help="Only if its daemon is gone; nothing happens otherwise.")
def umount(target: str, lazy: bool, only_dead: bool) -> None:
    """Unmount and wait until the daemon has ended. TARGET: a mount point, or a volume by its id or directory.

    What was written is stored when it returns; what a bucket does not take is named, and the next mount stores it. It
    is refused while somebody has files open, naming who.

    \b
    volgate umount /mnt/data
    volgate umount projects --lazy
    """
    from volgate.daemon.checks import holders_of
    from volgate.fuse import mounting

    try:
        mount = find(target)
    except NotFound:
        if only_dead:
            return
        raise
    if only_dead and mount["state"] != "dead":
        return
    if mount["mount_point"] is None:
        raise StorageException(f"{target} is not mounted here")
    mount_point = Path(mount["mount_point"])
    dead, entry = mount["state"] == "dead", mounting.find_mount(mount_point)
    if entry is None and not dead and "statistics" in mount and mount["statistics"]["open_files"]:
        count, pid = mount["statistics"]["open_files"], mount["pid"]
        rest = "are closed, and no container has a copy of the mount any more"
        raise Busy(f"{mount_point} is detached already; its daemon ({pid}) ends when its {count} open files {rest}")
    left = None
    if mount.get("storage") and not dead and not lazy:
        with contextlib.suppress(StorageException):
            left = _Left(Path(mount["socket"]))
    try:
        mounting.unmount(mount_point, lazy=lazy or dead)
    except Busy as error:
        holders = ", ".join(holders_of(mount_point)) or "unknown processes"
        raise Busy(f"{mount_point} is busy: {holders}; end them, or detach with --lazy") from error
    if not dead and not lazy and mount["pid"] is not None:
        _wait_for_end(mount["pid"], entry.device_minor if entry is not None else None, left)
        storage = left.at_end() if left is not None else {}
        if storage.get("backlog_files"):
            why = describe_left(target, storage)
            click.echo(f"volgate: {why}; it is kept in this host's cache; mount again to store or to see it", err=True)


class _Left:
    """What a daemon that is about to end does not store; it is asked before it is, since it may be quick."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._receive = send(socket, "GET", "/v1/drained", timeout_s=None)
        ask(socket, "GET", "/v1/status")  # answered after the question above was read

    def at_end(self) -> dict[str, Any]:
        """Return what the ended daemon had said; empty where it had not."""
        with contextlib.suppress(StorageException):
            storage: dict[str, Any] = self._receive()
            return storage
        return {}

    def now(self) -> dict[str, Any] | None:
        """Return what the daemon says now, None where it does not."""
        with contextlib.suppress(StorageException):
            storage: dict[str, Any] | None = ask(self._socket, "GET", "/v1/status", timeout_s=1.0)["storage"]
            return storage
        return None


def _wait_for_end(pid: int, device_minor: int | None, left: _Left | None) -> None:
    """Wait until the daemon has ended, which has settled everything then. Raises Busy after a minute of no progress."""
    from volgate.daemon.checks import copies_of

    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(process, select.POLLIN)
            if poller.poll(_SILENT_S * 1000):
                return
            holders = copies_of(device_minor) if device_minor is not None else []
            copies = [holder for holder in holders if not holder.startswith(f"{pid} ")]
            why = f"; these have the mount in a namespace of their own: {', '.join(copies)}" if copies else ""
            with Progress() as progress:
                ended = _poll(poller, f"unmounted; waiting for its daemon, process {pid}{why}", left, progress)
            if not ended:
                raise Busy(f"unmounted, but its daemon (process {pid}) has not ended after {_WAIT_S:g} s{why}")
        finally:
            os.close(process)


def _poll(poller: select.poll, text: str, left: _Left | None, progress: Progress) -> bool:
    """Return whether the daemon ended; a minute is waited from the last time that something was stored."""
    seen, deadline = None, time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        storage = left.now() if left is not None else None
        if storage and storage["backlog_files"]:
            progress.update(f"unmounted; storing what is left: {describe_backlog(storage)}")
            now = storage["backlog_files"], storage["stored_bytes"]
            if now != seen:
                seen, deadline = now, time.monotonic() + _WAIT_S
        else:
            progress.update(text)
        if poller.poll(_SILENT_S * 1000):
            return True
    return False
