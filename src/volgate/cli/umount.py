"""``volgate umount``: returns when the daemon has ended, so that all is settled."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import Final

import click

from volgate.cli.arguments import Target
from volgate.cli.mounts import find
from volgate.cli.output import Progress
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

    What was written is stored when it returns. It is refused while somebody has files open, naming who.

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
    if entry is None and not dead and "statistics" in mount:
        count, pid = mount["statistics"]["open_files"], mount["pid"]
        rest = "are closed, and no container has a copy of the mount any more"
        raise Busy(f"{mount_point} is detached already; its daemon ({pid}) ends when its {count} open files {rest}")
    try:
        mounting.unmount(mount_point, lazy=lazy or dead)
    except Busy as error:
        holders = ", ".join(holders_of(mount_point)) or "unknown processes"
        raise Busy(f"{mount_point} is busy: {holders}; end them, or detach with --lazy") from error
    if entry is not None and not dead and not lazy and mount["pid"] is not None:
        _wait_for_end(mount["pid"], entry.device_minor)


def _wait_for_end(pid: int, device_minor: int) -> None:
    """Wait until the daemon has ended, which has settled everything then. Raises Busy after a minute."""
    from volgate.daemon.checks import copies_of

    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(process, select.POLLIN)
            if poller.poll(_SILENT_S * 1000):
                return
            copies = [holder for holder in copies_of(device_minor) if not holder.startswith(f"{pid} ")]
            why = f"; these have the mount in a namespace of their own: {', '.join(copies)}" if copies else ""
            with Progress() as progress:
                progress.update(f"unmounted; waiting for its daemon, process {pid}{why}")
                ended = poller.poll((_WAIT_S - _SILENT_S) * 1000)
            if not ended:
                raise Busy(f"unmounted, but its daemon (process {pid}) has not ended after {_WAIT_S:g} s{why}")
        finally:
            os.close(process)
