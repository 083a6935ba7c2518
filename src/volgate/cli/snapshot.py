"""``volgate snapshot create|list|show|diff|restore|delete|schedule``: what a volume held at one moment."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from volgate.cli.arguments import ENDPOINT, Size, Target
from volgate.cli.output import change_line, confirm
from volgate.cli.owners import find_served
from volgate.cli.storage import ask_patiently
from volgate.control.client import ask
from volgate.core.sizes import format_count, format_size
from volgate.errors import InvalidArgument, NotFound, QuotaExceeded, Unavailable


@click.group()
def snapshot() -> None:
    """Keep what a volume holds at one moment, and look at it later.

    A snapshot is read as files below .snapshots/ID at the root of the mount, which no listing shows. It costs what is
    changed or removed afterwards; that is not charged to the volume. TARGET is a mount point, or a volume's id or
    source; it need not be mounted.
    """


def _to_pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("snapshot_id", metavar="[ID]", required=False)
@click.option("--file", "path", metavar="PATH", help="Only this file: below the mount point, or relative to the root.")
@click.option("--metadata", "pairs", metavar="KEY=VALUE", multiple=True, help="Kept with it; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="The snapshot as 'show --json' has it, and 'took_s'.")
def create(target: str, snapshot_id: str | None, path: str | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """Take a snapshot.

    Without ID it is named by the moment, as 2026-11-25T160000Z. All that was written before is in it, and nothing that
    is written later. Changes wait meanwhile: some seconds for each 100,000 files where the storage takes no snapshots
    by itself. Hammerspace takes snapshots of single files, too.

    \b
    volgate snapshot create /mnt/data
    volgate snapshot create /mnt/data before-upgrade --metadata ticket=4711
    volgate snapshot create /mnt/data --file reports/2026.csv
    """
    status = find_served(target)
    file = _within(path, status["mount_point"])
    if path is not None and not file:
        raise InvalidArgument(f"{path or 'an empty PATH'} is no file; leave --file out to take all of the volume")
    body = {"snapshot_id": snapshot_id, "path": file, "metadata": dict(_to_pair(pair) for pair in pairs)}
    taken = ask_patiently(Path(status["socket"]), "/v1/snapshots", body, lambda: None)
    if as_json:
        click.echo(json.dumps(taken, indent=1))
        return
    confirm(f"{target}: took {taken['snapshot_id']} in {taken['took_s']:.1f} s")


@snapshot.command("list")
@click.argument("target", type=Target())
@ENDPOINT
@click.option("--json", "as_json", is_flag=True, help="An array of what 'show --json' has.")
def list_(target: str, as_json: bool) -> None:
    """List the snapshots, the oldest first.

    PRESERVED is what only they have any more: a file counts for the newest snapshot that was there when it changed. BY
    says "schedule" where that took it, and may delete it. STATE names the file where a snapshot holds only that.

    \b
    volgate snapshot list /mnt/data
    """
    from volgate.cli.listing import print_table

    status = find_served(target)
    found = _list(status)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    rows = [("ID", "TAKEN", "FILES", "SIZE", "PRESERVED", "BY", "STATE"), *(_to_row(info) for info in found)]
    if found:
        print_table(rows)
        allowance = status["snapshots"]
        if allowance is not None:
            confirm(f"{format_size(allowance['kept_bytes'])} kept of {format_size(allowance['limit_bytes'])}", err=True)
    else:
        click.echo(f"{target} has no snapshots", err=True)


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("snapshot_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="An object of {snapshot_id, created_at, file_count, ...}.")
def show(target: str, snapshot_id: str, as_json: bool) -> None:
    """Say what is known of a snapshot.

    \b
    volgate snapshot show /mnt/data before-upgrade
    """
    status = find_served(target)
    info = next((info for info in _list(status) if info["snapshot_id"] == snapshot_id), None)
    if info is None:
        raise NotFound(f"{target} has no snapshot {snapshot_id}; see 'volgate snapshot list {target}'")
    if as_json:
        click.echo(json.dumps(info, indent=1))
        return
    click.echo(f"{snapshot_id}: taken {_to_time(info['created_at'])}")
    place = "at the root of the mount, " if status["mount_point"] is None else f"{status['mount_point']}/"
    click.echo(f"  files      {place}.snapshots/{snapshot_id}{'/' if info['path'] else ''}{info['path']}")
    if info["file_count"] is not None:
        click.echo(f"  holds      {format_size(info['used_bytes'])} in {format_count(info['file_count'], 'file')}")
    if info["preserved_bytes"] is not None:
        click.echo(f"  preserved  {format_size(info['preserved_bytes'])}")
    for key, value in info["metadata"].items():
        click.echo(f"  {key}={value}")
    if info["damaged"]:
        click.echo(f"  damaged    {info['damaged']}")


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("snapshot_id", metavar="ID")
@click.argument("later_id", metavar="[LATER]", required=False)
@click.option("--json", "as_json", is_flag=True, help="An array of {path, change, what}.")
def diff(target: str, snapshot_id: str, later_id: str | None, as_json: bool) -> None:
    """Say what changed since a snapshot, or from it to a later one.

    '+' was added, '-' was removed, 'M' was changed: in what, follows.

    \b
    volgate snapshot diff /mnt/data before-upgrade
    volgate snapshot diff /mnt/data monday tuesday
    """
    body = {"snapshot_id": snapshot_id, "later_id": later_id}
    found = ask_patiently(Path(find_served(target)["socket"]), "/v1/snapshots/diff", body, lambda: None)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for change in found:
        click.echo(change_line(change))


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("snapshot_id", metavar="ID")
@click.argument("path", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="An object of {created, replaced, removed, adjusted, changes}.")
def restore(target: str, snapshot_id: str, path: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make a file, a directory or all of the volume what it was.

    PATH is relative to the root of the volume, or below the mount point; without it all is restored. What is not in
    the snapshot is removed, what differs is replaced, each file whole. Who interrupts it leaves what is done as it is;
    one that the end of the daemon cuts off goes on when the volume is mounted again. Take a snapshot first to be able
    to go back.

    \b
    volgate snapshot restore /mnt/data before-upgrade reports/2026.csv
    volgate snapshot restore /mnt/data before-upgrade --dry-run
    """
    status = find_served(target)
    body = {"snapshot_id": snapshot_id, "path": _within(path, status["mount_point"]), "dry_run": True}
    done = ask_patiently(Path(status["socket"]), "/v1/snapshots/restore", body, lambda: None)
    if not dry_run and done["refused"]:
        raise QuotaExceeded(done["refused"])
    if not dry_run and done["changes"]:
        lost = done["removed"] + done["replaced"]
        question = f"Replace or remove {format_count(lost, 'file')} in {target}?"
        if lost and not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
            raise InvalidArgument("not confirmed; see what it would do with --dry-run, then say --yes")
        socket = Path(find_served(target)["socket"])  # anew: people take their time to answer
        try:
            done = ask_patiently(socket, "/v1/snapshots/restore", {**body, "dry_run": False}, lambda: None)
        except Unavailable as error:
            raise Unavailable(f"{error}; the restore goes on when the volume is mounted, or served, again") from error
    if as_json:
        click.echo(json.dumps(done, indent=1))
        return
    if dry_run:
        for change in done["changes"]:
            click.echo(change_line(change))
    counts = ", ".join(f"{done[name]} {name}" for name in ("created", "replaced", "removed", "adjusted"))
    place = f"{target} at {path}" if body["path"] else target
    confirm(f"{place}: {'would be' if dry_run else 'is'} as in {snapshot_id}: {counts}", err=dry_run)
    if done["refused"]:
        click.echo(f"volgate: it would be refused: {done['refused']}", err=True)


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("snapshot_ids", metavar="ID...", nargs=-1, required=True)
def delete(target: str, snapshot_ids: tuple[str, ...]) -> None:
    """Delete snapshots; what earlier ones need of them stays.

    \b
    volgate snapshot delete /mnt/data before-upgrade
    """
    status = find_served(target)
    socket = Path(status["socket"])
    snapshot_ids = tuple(dict.fromkeys(snapshot_ids))
    missing = sorted(set(snapshot_ids) - {info["snapshot_id"] for info in _list(status)})
    if missing:
        raise NotFound(f"there is no snapshot {', '.join(missing)}; nothing was deleted")
    for snapshot_id in snapshot_ids:
        ask_patiently(socket, "/v1/snapshots/delete", {"snapshot_id": snapshot_id}, lambda: None)
    confirm(f"{target}: deleted {', '.join(snapshot_ids)}")


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("policy", required=False)
@click.option("--off", is_flag=True, help="End the schedule; its snapshots stay.")
@click.option("--json", "as_json", is_flag=True, help="An object of {policy}.")
def schedule(target: str, policy: str | None, off: bool, as_json: bool) -> None:
    """Take snapshots regularly and let old ones go.

    Without POLICY the schedule is shown. POLICY says of how many hours, days, weeks and months (UTC) the newest
    snapshot is kept; one is taken in each of the shortest of them while the volume is mounted, or served ('volgate
    serve'). What people took is never let go.

    \b
    volgate snapshot schedule /mnt/data hourly=24,daily=7,weekly=4,monthly=12
    volgate snapshot schedule /mnt/data --off
    """
    status = find_served(target)
    socket = Path(status["socket"])
    if off and policy is not None:
        raise InvalidArgument("either a POLICY or --off")
    if off or policy is not None:
        now = ask(socket, "PUT", "/v1/snapshots/schedule", {"policy": policy})
    else:
        now = ask(socket, "GET", "/v1/snapshots/schedule")
    if as_json:
        click.echo(json.dumps(now))
    else:
        click.echo(f"{target}: {now['policy'] or 'no schedule'}")
    if policy is not None and status.get("until_idle_s") is not None:
        click.echo(
            f"volgate: it is kept only while {target} is mounted, or served: 'volgate serve {target} -d'", err=True
        )


@snapshot.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("size", type=Size(), required=False)
@click.option("--json", "as_json", is_flag=True, help="An object of {kept_bytes, limit_bytes, is_full}.")
def limit(target: str, size: tuple[int | None] | None, as_json: bool) -> None:
    """Limit what snapshots keep.

    That is what was changed or removed since, for all of them together. SIZE: 10G, 10GiB, none; without it the limit is
    shown. It is not the volume's: that holds for what the volume has now. Where it is reached, snapshots that the
    schedule took are deleted, the oldest first, if that makes room. Else nobody can change or remove what a snapshot
    holds (ENOSPC); for a bucket such changes wait on this host, and no snapshot can be taken. CephFS and Hammerspace
    keep what they like.

    \b
    volgate snapshot limit /mnt/data 100GiB
    """
    socket = Path(find_served(target)["socket"])
    if size is None:
        now = ask(socket, "GET", "/v1/snapshots/limit")
    else:
        now = ask(socket, "PUT", "/v1/snapshots/limit", {"limit_bytes": size[0]})
    if as_json:
        click.echo(json.dumps(now))
    elif now is None:
        click.echo(f"{target}: the storage keeps what snapshots need, and tells nobody how much")
    else:
        click.echo(f"{target}: {format_size(now['kept_bytes'])} kept of {format_size(now['limit_bytes'])}")
        if now["limit_bytes"] is not None and now["kept_bytes"] > now["limit_bytes"]:
            click.echo("volgate: more is kept than the limit: what they hold cannot be changed or removed", err=True)


def _list(status: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(Path(status["socket"]), "GET", "/v1/snapshots")
    return found


def _to_row(info: dict[str, Any]) -> tuple[str, ...]:
    return (
        info["snapshot_id"], _to_time(info["created_at"]), _or_dash(info["file_count"], str),
        _or_dash(info["used_bytes"], format_size), _or_dash(info["preserved_bytes"], format_size),
        info["metadata"].get("taken-by", "-"), _to_state(info),
    )  # fmt: skip


def _to_state(info: dict[str, Any]) -> str:
    if info["damaged"]:
        return "damaged"
    return f"only {info['path']}" if info["path"] else "whole"


def _within(path: str | None, mount_point: str | None) -> str:
    """Return a path relative to the volume's root; "" = all of it, which only no path at all and "." mean."""
    if path is None or path == ".":
        return ""
    if not path:
        raise InvalidArgument("PATH is empty; leave it out to restore all of the volume")
    if not path.startswith("/"):
        return path.strip("/").removeprefix("./")
    if mount_point is None:
        raise InvalidArgument(f"the volume is not mounted: say where {path} lies below its root")
    relative = os.path.relpath(path, mount_point)
    if relative == ".." or relative.startswith("../"):
        raise InvalidArgument(f"{path} does not lie below {mount_point}")
    return "" if relative == "." else relative


def _to_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


def _or_dash(value: Any, convert: Any) -> str:
    return "-" if value is None else str(convert(value))
