"""``volgate list`` and ``volgate status``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from volgate.cli.arguments import Target
from volgate.cli.mounts import FIELDS, UNKNOWN, find, find_all, is_headless
from volgate.core.sizes import format_backlog, format_size

_NOTHING: Final = "nothing is mounted; 'volgate mount DIRECTORY|s3://BUCKET MOUNTPOINT' mounts"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="An array of objects; bytes as integers, unlimited as null.")
def list_(as_json: bool) -> None:
    """List mounts of this host, and owners without one ('-').

    \b
    volgate list
    volgate list --json | jq '.[] | select(.state != "ready")'
    """
    mounts = find_all()
    if as_json:
        click.echo(json.dumps([{field: mount[field] for field in FIELDS} for mount in mounts], indent=1))
        return
    rows: list[tuple[str, ...]] = [("VOLUME", "MOUNT POINT", "STATE", "USED", "LIMIT", "FILES", "SOURCE")]
    rows += [_row(mount) for mount in mounts]
    print_table(rows)
    if not mounts:
        click.echo(_NOTHING, err=True)


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(mount: dict[str, Any]) -> tuple[str, ...]:
    known = mount["used_bytes"] is not None
    return (
        mount["volume_id"],
        str(mount["mount_point"] or "-"),
        mount["state"] + (", read-only" if mount["read_only"] else ""),
        format_size(mount["used_bytes"]) if known else "-",
        format_size(mount["quota_bytes"]) if known else "-",
        str(mount["file_count"]) if known else "-",
        str(mount["source"] or "-"),
    )


@click.command()
@click.argument("target", type=Target(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything the daemon says.")
def status(target: str | None, as_json: bool) -> None:
    """Show what mounts do, and what is wrong with them, in words.

    TARGET is a mount point, a mounted volume's id, or its directory; all mounts without one.

    \b
    volgate status /mnt/data
    volgate status projects --json
    """
    mounts = [find(target)] if target is not None else find_all()
    if as_json:
        click.echo(json.dumps(mounts[0] if target is not None else mounts, indent=1))
        return
    for mount in mounts:
        _show(mount)
    if not mounts:
        click.echo(_NOTHING, err=True)


def _show(mount: dict[str, Any]) -> None:
    place = "without a mount" if is_headless(mount) else f"on {mount['mount_point'] or '-'}"
    click.echo(f"{mount['volume_id']} {place}: {mount['state']}")
    if mount["state"] == "dead":
        click.echo(f"  nobody serves this mount; mount it again, or detach it: volgate umount {mount['mount_point']}")
        return
    if mount["state"] == UNKNOWN:
        click.echo(f"  it belongs to user {mount['uid']}; ask as that user, or as root")
        return
    if mount["used_bytes"] is None:
        click.echo(f"  its daemon (process {mount['pid']}) does not answer; systemd's watchdog ends such a one,")
        click.echo(f"  else end it yourself and mount again: kill -9 {mount['pid']}")
        return
    statistics = mount["statistics"]
    click.echo(f"  source    {mount['source']} ({mount['backend_type']})")
    click.echo(f"  bytes     {format_size(mount['used_bytes'])} of {format_size(mount['quota_bytes'])}")
    limit = "unlimited" if mount["quota_inodes"] is None else mount["quota_inodes"]
    click.echo(f"  inodes    {mount['file_count']} of {limit}")
    click.echo(f"  usage     {mount['usage_found']}")
    click.echo(f"  in use    {statistics['inodes']} inodes, {statistics['open_files']} open files")
    oldest = f", oldest {statistics['oldest_request_s']:.1f} s" if statistics["in_flight"] else ""
    click.echo(f"  requests  {sum(statistics['requests'].values())}, {statistics['in_flight']} under way{oldest}")
    if mount.get("under_way"):  # a daemon of an older version does not say
        click.echo(f"  at work   {', '.join(mount['under_way'])}")
    if mount.get("storage"):
        _show_storage(mount["storage"])
    for problem in mount["problems"]:
        click.echo(f"  problem   {problem['message']}")
    for failure in statistics["recent_errors"][-5:]:
        code = f" ({failure['error_code']})" if failure["error_code"] else ""
        click.echo(f"  failed    {failure['operation']} {failure['path']}: {failure['error_message']}{code}")


def _show_storage(storage: dict[str, Any]) -> None:
    """Show what is on its way to the storage, and what the storage is not capable of."""
    from volgate.daemon.health import PROMISES

    waiting = format_backlog(storage["backlog_files"], storage["backlog_bytes"])
    if storage["oldest_key"]:
        waiting += f"; oldest {storage['oldest_s']:.0f} s: {storage['oldest_key']}"
    if storage["refused"]:
        waiting += f"; refused: {storage['refused']}"
    click.echo(f"  backlog   {waiting if storage['backlog_files'] else 'none: all is stored'}")
    if storage["last_error"]:
        click.echo(f"  error     {storage['last_error']}")
    cached, limit = format_size(storage["cached_bytes"]), format_size(storage["max_cached_bytes"])
    click.echo(f"  cache     {cached} of {limit}, {storage['cache_hits']} hits, {storage['cache_misses']} misses")
    staged, limit = format_size(storage["staged_bytes"]), format_size(storage["max_staged_bytes"])
    click.echo(f"  staging   {staged} of {limit}")
    if storage["lease"] != "none":
        click.echo(f"  lease     {storage['lease']}")
    if storage["keeps_versions"]:
        click.echo(
            "  versions  the bucket keeps what is replaced and deleted: that takes space, and no limit counts it"
        )
    for name in storage["broken_promises"]:
        click.echo(f"  weaker    the server ignores {name}: {PROMISES.get(name, 'see SEMANTICS')}")
    for shown in storage["unshown_first"]:
        click.echo(f"  unshown   {shown['key']!r}: {shown['reason']}")
    rest = storage["unshown"] - len(storage["unshown_first"])
    if rest:
        click.echo(f"  unshown   and {rest} more")
