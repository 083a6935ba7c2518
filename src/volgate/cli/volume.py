"""``volgate volume create|adopt|list|show|delete``: volumes that this host knows by name."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volgate import paths
from volgate.cli.arguments import Count, Size
from volgate.cli.output import confirm
from volgate.cli.sources import catalog, locator, to_mount
from volgate.core.sizes import format_size
from volgate.errors import InvalidArgument, NotFound, StorageException

if TYPE_CHECKING:
    from volgate.control.volumes import VolumeDescription, Volumes
    from volgate.volume.catalog import CatalogEntry

_MOUNT_POINT = click.option(
    "--mount-point", default="", help="Where 'volgate mount NAME' and its unit mount it; made where it is missing."
)
_OPTIONS = click.option("-o", "options", default="", help="Mount options, as for 'volgate mount -o'.")
_ENDPOINT = click.option("--endpoint-url", metavar="URL", help="The S3 server of a bucket, unless it is Amazon's.")


@click.group()
def volume() -> None:
    """Keep volumes by name, for units and fstab.

    \b
    volgate volume create projects /srv/projects --quota 1TiB --mount-point /mnt/projects
    systemctl enable --now volgate@projects
    """


def _with_endpoint(options: str, endpoint_url: str | None) -> str:
    """Return mount options that name the server too: a later mount by name has to find it."""
    return ",".join(filter(None, [options, f"endpoint_url={endpoint_url}" if endpoint_url else ""]))


@volume.command()
@click.argument("name")
@click.argument("source")
@click.option("--quota", type=Size(), help="Limit in bytes: 10G, 10GiB, none.")
@click.option("--inodes", type=Count(), help="Limit of files, directories and links together: 100000, none.")
@_MOUNT_POINT
@_OPTIONS
@_ENDPOINT
def create(
    name: str,
    source: str,
    quota: tuple[int | None] | None,
    inodes: tuple[int | None] | None,
    mount_point: str,
    options: str,
    endpoint_url: str | None,
) -> None:
    """Make the directory, or bucket, SOURCE a volume called NAME.

    What is in it already belongs to the volume. Nothing is mounted yet.

    \b
    volgate volume create projects /srv/projects --quota 1TiB --mount-point /mnt/projects
    volgate volume create media s3://bucket/prefix --endpoint-url https://s3.example.org
    volgate mount projects -d
    """
    import trio

    from volgate.dto import VolumeOperationContext
    from volgate.dto.validation import VOLUME_ID

    if not VOLUME_ID.fullmatch(name):
        raise InvalidArgument(f"'{name}' is no volume name: 1 to 63 of a-z 0-9 . _ -, the first a-z or 0-9")
    volumes, options, where = _volumes(), _with_endpoint(options, endpoint_url), _absolute(mount_point)
    context = VolumeOperationContext(
        name,
        Path(where or "/"),
        volumes.check_source(source, options),
        f"uid:{os.geteuid()}",
        None if quota is None else quota[0],
        quota_inodes=None if inodes is None else inodes[0],
    )

    async def make() -> CatalogEntry:
        return await volumes.create(context, source, mount_point=where, options=options)

    _finish(trio.run(make))


@volume.command()
@click.argument("source")
@_MOUNT_POINT
@_OPTIONS
@_ENDPOINT
def adopt(source: str, mount_point: str, options: str, endpoint_url: str | None) -> None:
    """Enter the volume at SOURCE under the name it has.

    It comes from another host, or the catalog was lost; limits are kept beside the data.

    \b
    volgate volume adopt /srv/projects --mount-point /mnt/projects
    """
    import trio

    volumes, options = _volumes(), _with_endpoint(options, endpoint_url)

    async def enter() -> CatalogEntry:
        return await volumes.adopt(source, mount_point=_absolute(mount_point), options=options)

    _finish(trio.run(enter))


def _volumes() -> Volumes:
    from volgate.control.volumes import Volumes
    from volgate.daemon.checks import list_ours

    return Volumes(catalog(), locator(), list_ours, paths.state_directory())


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _finish(entry: CatalogEntry) -> None:
    """Say how to mount it."""
    confirm(f"{entry.volume_id}: {entry.source}; mount it with '{to_mount(entry)}'")


@volume.command("list")
@click.option("--json", "as_json", is_flag=True, help="An array of objects; bytes as integers, unlimited as null.")
def list_(as_json: bool) -> None:
    """List the volumes of the catalog, mounted or not.

    \b
    volgate volume list
    volgate volume list --json
    """
    from volgate.cli.listing import print_table

    volumes = _volumes()
    described = [_to_json(found) for found in volumes.describe(volumes.list_entries())]
    if as_json:
        click.echo(json.dumps(described, indent=1))
        return
    rows = [("NAME", "STATE", "MOUNT POINT", "SOURCE", "OPTIONS")]
    rows += [(v["volume_id"], v["state"], v["mount_point"] or "-", v["source"], v["options"] or "-") for v in described]
    print_table(rows)


@volume.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One object.")
def show(name: str, as_json: bool) -> int:
    """Show one volume of the catalog.

    Limits and usage are those of now, or of its last mount; exit status 69 where its storage cannot say them.

    \b
    volgate volume show projects
    """
    import trio

    from volgate.cli.quota import read_stored

    volumes, status = _volumes(), os.EX_OK
    described = _to_json(*volumes.describe([volumes.find_entry(name)]))
    if described["used_bytes"] is None:
        try:
            described |= trio.run(read_stored, name)
        except StorageException as error:
            gone = f"; where it is gone for good, 'volgate volume delete {name}'" if isinstance(error, NotFound) else ""
            click.echo(f"volgate: limits and usage are not known: {error}{gone}", err=True)
            status = os.EX_UNAVAILABLE
    if as_json:
        click.echo(json.dumps(described, indent=1))
        return status
    used = "not counted yet" if described["used_bytes"] is None else format_size(described["used_bytes"])
    size = "not known" if status else f"{used} of {format_size(described['quota_bytes'])}"
    click.echo(f"{name}: {described['state']}")
    click.echo(f"  source       {described['source']}")
    click.echo(f"  mount point  {described['mount_point'] or '-'}")
    click.echo(f"  options      {described['options'] or '-'}")
    click.echo(f"  bytes        {size}")
    click.echo(f"  uuid         {described['uuid']}")
    return status


def _to_json(found: VolumeDescription) -> dict[str, Any]:
    entry, quota = found.entry, found.quota
    return {
        "volume_id": entry.volume_id,
        "uuid": entry.uuid,
        "source": entry.source,
        "mount_point": found.mount_point,
        "options": entry.options,
        "state": found.state,
        "used_bytes": None if quota is None else quota.used_bytes,
        "quota_bytes": None if quota is None else quota.quota_bytes,
        "file_count": None if quota is None else quota.file_count,
        "quota_inodes": None if quota is None else quota.quota_inodes,
    }


@volume.command()
@click.argument("name")
@click.option("--with-share", is_flag=True, help="Remove its share from the storage too, with ALL DATA in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, with_share: bool, yes: bool) -> None:
    """Take a volume out of the catalog.

    Its data and limits stay where they are; 'adopt' enters it again. With --with-share they are removed.

    \b
    volgate volume delete projects
    volgate volume delete projects --with-share
    """
    import trio

    volumes = _volumes()
    volumes.end_brief(name)
    entry = volumes.find_deletable(name, with_share=with_share)
    question = f"Remove {entry.source} with all data in it?"
    if with_share and not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        raise InvalidArgument(f"not confirmed; {entry.source} stays; say --yes to remove it with all data in it")

    async def remove() -> None:
        await volumes.delete(name, with_share=with_share)

    trio.run(remove)
    rest = "its share is removed" if with_share else f"its data stays in {entry.source}"
    confirm(f"{name}: taken out of the catalog; {rest}")
