"""``volgate quota show|set|check``."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volgate import paths
from volgate.cli.arguments import ENDPOINT, Count, Size, Target
from volgate.cli.mounts import find, is_headless
from volgate.cli.output import confirm
from volgate.cli.owners import end_headless, find_served
from volgate.control.client import ask
from volgate.core.sizes import format_size
from volgate.errors import InvalidArgument, NotFound, ReadOnly, Unavailable

if TYPE_CHECKING:
    from volgate.drivers.base import BackendDirectory, BaseStorageBackend
    from volgate.dto import Usage
    from volgate.volume.identity import VolumeIdentity


@click.group()
def quota() -> None:
    """Show, change or verify a volume's limits. TARGET: a mount point, a volume's id, or its directory or URL."""


@quota.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.option("--json", "as_json", is_flag=True, help="Bytes as integers, unlimited as null.")
def show(target: str, as_json: bool) -> None:
    """Show limits and usage.

    \b
    volgate quota show /mnt/data
    volgate quota show /srv/data --json
    """
    known = _mounted(target)
    if known is None:
        import trio

        known = trio.run(read_stored, target)
    fields = ("volume_id", "used_bytes", "quota_bytes", "file_count", "quota_inodes")
    if as_json:
        click.echo(json.dumps({field: known[field] for field in fields}, indent=1))
        return
    used = "not counted yet" if known["used_bytes"] is None else format_size(known["used_bytes"])
    files = "not counted yet" if known["file_count"] is None else known["file_count"]
    limit = "unlimited" if known["quota_inodes"] is None else known["quota_inodes"]
    click.echo(f"{known['volume_id']}: {used} of {format_size(known['quota_bytes'])}, inodes: {files} of {limit}")


@quota.command("set")
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("size", type=Size(), required=False)
@click.option("--inodes", type=Count(), help="Limit of files, directories and links together: 100000, none.")
def set_(target: str, size: tuple[int | None] | None, inodes: tuple[int | None] | None) -> None:
    """Set a limit, at once. SIZE: 10G, 10GiB, none.

    A limit below what is in use is allowed: then only growth is refused.

    \b
    volgate quota set /mnt/data 20GiB
    volgate quota set projects --inodes 1M
    """
    if size is None and inodes is None:
        raise InvalidArgument("say which limit: SIZE, --inodes N, or both")
    body: dict[str, Any] = {} if size is None else {"quota_bytes": size[0]}
    if inodes is not None:
        body["quota_inodes"] = inodes[0]
    after = ask(Path(find_served(target)["socket"]), "PUT", "/v1/quota", body)
    _warn_if_above(after)
    limit = "unlimited" if after["quota_inodes"] is None else after["quota_inodes"]
    confirm(f"{after['volume_id']}: limit {format_size(after['quota_bytes'])}, inodes {limit}")


def _warn_if_above(after: dict[str, Any]) -> None:
    if None not in (after["used_bytes"], after["quota_bytes"]) and after["used_bytes"] > after["quota_bytes"]:
        click.echo(
            f"volgate: {format_size(after['used_bytes'])} are in use, more than the limit: only growth is refused",
            err=True,
        )
    if None not in (after["file_count"], after["quota_inodes"]) and after["file_count"] > after["quota_inodes"]:
        click.echo(f"volgate: {after['file_count']} inodes are in use, more than the limit: none can be made", err=True)


@quota.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.option(
    "--repair", is_flag=True, help="Take the counted usage for the ledger's; a directory must not be mounted."
)
@click.option("--json", "as_json", is_flag=True, help="Both as objects; 'equal' is null where the ledger cannot tell.")
def check(target: str, repair: bool, as_json: bool) -> int:
    """Count a volume and compare with its ledger.

    Exit status 1 where they differ. On a mounted volume that is in use the count is an estimate: files change while
    it walks.

    \b
    volgate quota check /mnt/data
    volgate quota check /srv/data --repair
    """
    import trio

    mounted = _mounted(target)
    if mounted is not None and mounted["read_only"] and not mounted["storage"]:
        target = mounted["source"]  # a reader knows what it counted at its start: the owner's ledger is meant
        mounted = _mounted(target, owner=True)
    if mounted is not None and repair and is_headless(mounted) and not mounted["storage"]:
        end_headless(mounted)  # nobody misses it while its ledger is repaired
        mounted = None
    ledger: tuple[int | None, int | None]
    is_counted_live = mounted is not None and not (mounted["storage"] and mounted["read_only"])
    is_repaired_live = mounted is not None and mounted["storage"] and not mounted["read_only"]
    if mounted is not None and repair and not is_repaired_live:
        raise InvalidArgument(f"{target} is mounted; unmount it to repair its ledger")
    if mounted is not None and is_counted_live:
        counted, ledger = _count_mounted(mounted, repair)
    else:
        counted, ledger = trio.run(_compare, mounted["source"] if mounted is not None else target, mounted, repair)
    fits = ledger[0] is None or (counted.bytes_, counted.inodes) == ledger
    if as_json:
        click.echo(
            json.dumps(
                {
                    "counted": {"used_bytes": counted.bytes_, "file_count": counted.inodes},
                    "ledger": {"used_bytes": ledger[0], "file_count": ledger[1]},
                    "equal": None if ledger[0] is None else fits,
                    "repaired": repair and (not fits or ledger[0] is None),
                },
                indent=1,
            )
        )
    else:
        click.echo(f"counted: {counted.bytes_} bytes, {counted.inodes} inodes")
        if ledger[0] is None:
            click.echo("repaired" if repair else "ledger:  nothing settled; the next mount counts or measures it")
            return 0
        click.echo(f"ledger:  {ledger[0]} bytes, {ledger[1]} inodes")
        is_to_end = mounted is not None and not is_headless(mounted) and not is_repaired_live
        how = "unmount it; then " if is_to_end else ""
        click.echo(
            "equal" if fits else "repaired" if repair else f"different; {how}'quota check --repair' takes the count"
        )
    return 0 if fits or repair else 1


def _mounted(target: str, *, owner: bool = False) -> dict[str, Any] | None:
    try:
        status = find(target, owner=owner)
    except NotFound:
        return None
    if status["state"] == "dead":
        raise Unavailable(f"nobody serves {target} any more; mount it again, and its usage is measured")
    if status.get("socket") and status["source"] is None:
        raise Unavailable(f"the daemon of {target} (process {status['pid']}) does not answer; see 'volgate status'")
    return status if status.get("socket") else None


def _as_status(identity: VolumeIdentity, usage: Usage | None) -> dict[str, Any]:
    return {
        "volume_id": identity.volume_id,
        "used_bytes": None if usage is None else usage.bytes_,
        "quota_bytes": identity.quota_bytes,
        "file_count": None if usage is None else usage.inodes,
        "quota_inodes": identity.quota_inodes,
    }


async def read_stored(target: str) -> dict[str, Any]:
    """Return limits, and usage as last stored, of a volume that is not mounted."""
    from volgate.cli.sources import resolve_with_configuration
    from volgate.volume import unmounted

    state = await unmounted.read_stored(resolve_with_configuration(target), paths.state_directory())
    return _as_status(state.identity, state.usage)


async def _compare(
    target: str, mounted: dict[str, Any] | None, repair: bool
) -> tuple[Usage, tuple[int | None, int | None]]:
    """Return the counted usage, and (bytes, inodes) of the ledger; store the count where repair is asked for."""
    from volgate.cli.sources import opened
    from volgate.ledger.sqlite import database_path, read_stored_usage
    from volgate.volume.counting import count_usage
    from volgate.volume.epoch import load_epoch_id

    async with contextlib.AsyncExitStack() as stack:
        try:
            backend, root, identity = await stack.enter_async_context(opened(target, owned=mounted is None))
        except ReadOnly:  # nor can an owner's mark be set; where it is a read-only bind, others may write beside
            if repair:
                raise
            backend, root, identity = await stack.enter_async_context(opened(target))
        if mounted is not None:
            return await count_usage(backend, root), (mounted["used_bytes"], mounted["file_count"])
        if backend.capabilities.keeps_usage:
            stored = backend.load_usage()
            counted = await backend.count_usage(lambda _: None, keep=repair)
        else:
            database = database_path(paths.state_directory(), identity.volume_id)
            stored = read_stored_usage(database, await load_epoch_id(backend), settled=True)
            counted = await count_usage(backend, root)
            if repair:
                await _repair(backend, root, identity, counted)
        return counted, (None, None) if stored is None else (stored.bytes_, stored.inodes)


async def _repair(
    backend: BaseStorageBackend, root: BackendDirectory, identity: VolumeIdentity, counted: Usage
) -> None:
    from volgate.ledger.sqlite import SqliteLedger, database_path, slots_path
    from volgate.volume.epoch import load_epoch_id, name_epoch

    database = database_path(paths.state_directory(), identity.volume_id)
    slots = slots_path(paths.runtime_directory(), identity.volume_id)
    ledger = SqliteLedger(database, slots, identity.uuid, backend.key_of_name(root, b"", 0))
    await ledger.recover(backend.measure_key, await load_epoch_id(backend))
    ledger.begin(counted)
    await name_epoch(backend, ledger.close())
    ledger.release()


def _count_mounted(mounted: dict[str, Any], repair: bool) -> tuple[Usage, tuple[int, int]]:
    """Have the daemon count: it has the volume open, and knows what its backend keeps back."""
    from volgate.cli.storage import ask_patiently
    from volgate.dto import Usage

    socket = Path(mounted["socket"])
    now = ask(socket, "GET", "/v1/status")
    counted = ask_patiently(socket, "/v1/count", {"keep": repair}, lambda: None)
    return Usage(counted["used_bytes"], counted["file_count"]), (now["used_bytes"], now["file_count"])
