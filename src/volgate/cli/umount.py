"""``volgate umount``: returns when the daemon has ended, so that all is settled."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import Final

import click

from volgate.cli.mounts import find
from volgate.errors import Busy, NotFound, StorageException

_WAIT_S: Final = 60.0


@click.command()
@click.argument("target")
@click.option("-l", "--lazy", is_flag=True, help="Detach at once, whoever uses it; files that are open go on working.")
@click.option("--dead", "only_dead", is_flag=True, help="Only if its daemon is gone; nothing happens otherwise.")
def umount(target: str, lazy: bool, only_dead: bool) -> None:
    """Unmount a mount point, or a volume by its id or directory, and wait until its daemon has ended."""
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
    dead = mount["state"] == "dead"
    if not dead and mounting.find_mount(mount_point) is None:
        count, pid = mount["statistics"]["open_files"], mount["pid"]
        raise Busy(f"{mount_point} is detached already; its daemon ({pid}) ends when its {count} open files are closed")
    try:
        mounting.unmount(mount_point, lazy=lazy or dead)
    except Busy as error:
        holders = ", ".join(holders_of(mount_point)) or "unknown processes"
        raise Busy(f"{mount_point} is busy: {holders}; end them, or detach with --lazy") from error
    if not dead and not lazy:
        _wait_for_end(mount["pid"])


def _wait_for_end(pid: int) -> None:
    """Wait until a process has ended. Raises Busy after a minute."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(process, select.POLLIN)
            if not poller.poll(_WAIT_S * 1000):
                raise Busy(f"unmounted, but the daemon (process {pid}) has not ended after {_WAIT_S:g} s")
        finally:
            os.close(process)
