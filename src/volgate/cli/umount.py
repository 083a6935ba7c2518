"""``volgate umount``: returns when the daemon has ended, so that all is settled."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from volgate.cli import ending
from volgate.cli.arguments import Target
from volgate.cli.mounts import describe_detached, find, is_headless
from volgate.cli.output import Progress
from volgate.cli.storage import describe_left
from volgate.control.client import ask
from volgate.errors import Busy, NotFound, StorageException


@click.command()
@click.argument("target", type=Target())
@click.option("-l", "--lazy", is_flag=True, help="Detach at once, whoever uses it; files that are open go on working.")
@click.option("--dead", "only_dead", is_flag=True, help="Only if its daemon is gone; nothing happens otherwise.")
def umount(target: str, lazy: bool, only_dead: bool) -> None:
    """Unmount and wait until the daemon has ended. TARGET: a mount point, or a volume by its id or directory.

    What was written is stored when it returns; what a bucket does not take is named, and the next mount stores it. It
    is refused while somebody has files open, naming who. An owner without a mount ('volgate serve') is ended.

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
    if is_headless(mount):
        _end_headless(target, mount, lazy=lazy)
        return
    if mount["mount_point"] is None:
        pid = mount["pid"]
        raise StorageException(
            f"{target} is not mounted here, and its owner (process {pid}) does not answer; end it yourself: kill {pid}"
        )
    mount_point = Path(mount["mount_point"])
    dead, entry = mount["state"] == "dead", mounting.find_mount(mount_point)
    if detached := describe_detached(mount):
        raise Busy(detached)
    left = None
    if mount.get("storage") and not dead and not lazy:
        with contextlib.suppress(StorageException):
            left = ending.Left(Path(mount["socket"]))
    try:
        mounting.unmount(mount_point, lazy=lazy or dead)
    except Busy as error:
        holders = ", ".join(holders_of(mount_point)) or "unknown processes"
        raise Busy(f"{mount_point} is busy: {holders}; end them, or detach with --lazy") from error
    if not dead and not lazy and mount["pid"] is not None:
        _wait_for_end(mount["pid"], entry.device_minor if entry is not None else None, left)
        _tell_left(target, left.at_end() if left is not None else {})


def _end_headless(target: str, owner: dict[str, Any], *, lazy: bool) -> None:
    from volgate.cli.owners import end_headless

    if lazy:
        ask(Path(owner["socket"]), "POST", "/v1/release")
    else:
        _tell_left(target, end_headless(owner))


def _tell_left(target: str, storage: dict[str, Any]) -> None:
    """Tell what an ended daemon did not store."""
    if storage.get("backlog_files"):
        why = describe_left(target, storage)
        click.echo(f"volgate: {why}; it is kept in this host's cache; mount again to store or to see it", err=True)


def _wait_for_end(pid: int, device_minor: int | None, left: ending.Left | None) -> None:
    """Wait until the daemon has ended, which has settled everything then. Raises Busy after a minute of no progress."""
    from volgate.daemon.checks import copies_of

    with ending.watched_process(pid) as process:
        if process is None or ending.has_ended(process, ending.SILENT_S):
            return
        holders = copies_of(device_minor) if device_minor is not None else []
        copies = [holder for holder in holders if not holder.startswith(f"{pid} ")]
        why = f"; these have the mount in a namespace of their own: {', '.join(copies)}" if copies else ""
        with Progress() as progress:
            ended = ending.wait_for_end(
                process, left, progress, "unmounted", f"waiting for its daemon, process {pid}{why}"
            )
        if not ended:
            raise Busy(
                f"unmounted, but its daemon (process {pid}) has not ended after {ending.WAIT_S:g} s{why}; where it "
                f"hangs, 'kill -9 {pid}' ends it, and the next mount has all that was acknowledged"
            )
