"""``volgate volume create|adopt|list|show|delete``: volumes that this host knows by name."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volgate import paths
from volgate.cli.arguments import Count, Size
from volgate.cli.mounts import find_all, is_headless
from volgate.cli.output import confirm
from volgate.cli.owners import end_brief
from volgate.cli.sources import catalog, resolve_with_configuration
from volgate.core.sizes import format_size
from volgate.errors import Busy, InvalidArgument, Unsupported
from volgate.errors.errno_map import from_oserror_at

if TYPE_CHECKING:
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

    from volgate.dto.validation import VOLUME_ID
    from volgate.volume.registration import create_volume

    if not VOLUME_ID.fullmatch(name):
        raise InvalidArgument(f"'{name}' is no volume name: 1 to 63 of a-z 0-9 . _ -, the first a-z or 0-9")
    options = _with_endpoint(options, endpoint_url)
    _check_options(options)
    where = resolve_with_configuration(source, options)

    async def make() -> CatalogEntry:
        return await create_volume(
            catalog(),
            name,
            where,
            quota_bytes=None if quota is None else quota[0],
            quota_inodes=None if inodes is None else inodes[0],
            mount_point=_absolute(mount_point),
            options=options,
        )

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

    from volgate.volume.registration import adopt_volume

    options = _with_endpoint(options, endpoint_url)
    _check_options(options)
    where = resolve_with_configuration(source, options)

    async def enter() -> CatalogEntry:
        return await adopt_volume(catalog(), where, mount_point=_absolute(mount_point), options=options)

    _finish(trio.run(enter))


def _check_options(options: str) -> None:
    from volgate.cli.mount_options import parse_options

    parse_options(options)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _finish(entry: CatalogEntry) -> None:
    """Make the mount point, so that the unit of a new volume can be started at once, and say how to mount it."""
    if entry.mount_point:
        try:
            os.makedirs(os.path.dirname(entry.mount_point), exist_ok=True)
            with contextlib.suppress(FileExistsError):  # and nothing more is asked of it: a dead mount may stand there
                os.mkdir(entry.mount_point)
        except OSError as error:
            raise from_oserror_at(error) from error
    where = "" if entry.mount_point else " MOUNTPOINT"
    confirm(f"{entry.volume_id}: {entry.source}; mount it with 'volgate mount {entry.volume_id}{where}'")


@volume.command("list")
@click.option("--json", "as_json", is_flag=True, help="An array of objects; bytes as integers, unlimited as null.")
def list_(as_json: bool) -> None:
    """List the volumes of the catalog, mounted or not.

    \b
    volgate volume list
    volgate volume list --json
    """
    from volgate.cli.listing import print_table

    described = _describe(catalog().list())
    if as_json:
        click.echo(json.dumps(described, indent=1))
        return
    rows = [("NAME", "STATE", "MOUNT POINT", "SOURCE", "OPTIONS")]
    rows += [(v["volume_id"], v["state"], v["mount_point"] or "-", v["source"], v["options"] or "-") for v in described]
    print_table(rows)


@volume.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One object.")
def show(name: str, as_json: bool) -> None:
    """Show one volume of the catalog.

    Limits and usage are those of now, or of its last mount.

    \b
    volgate volume show projects
    """
    import trio

    from volgate.cli.quota import read_stored

    (described,) = _describe([catalog().find(name)])
    if described["used_bytes"] is None:
        described |= trio.run(read_stored, name)
    if as_json:
        click.echo(json.dumps(described, indent=1))
        return
    used = "not counted yet" if described["used_bytes"] is None else format_size(described["used_bytes"])
    click.echo(f"{name}: {described['state']}")
    click.echo(f"  source       {described['source']}")
    click.echo(f"  mount point  {described['mount_point'] or '-'}")
    click.echo(f"  options      {described['options'] or '-'}")
    click.echo(f"  bytes        {used} of {format_size(described['quota_bytes'])}")
    click.echo(f"  uuid         {described['uuid']}")


def _describe(entries: list[CatalogEntry]) -> list[dict[str, Any]]:
    mounts = {mount["volume_id"]: mount for mount in find_all()}
    described = []
    for entry in entries:
        mount = mounts.get(entry.volume_id, {})
        described.append(
            {
                "volume_id": entry.volume_id,
                "uuid": entry.uuid,
                "source": entry.source,
                "mount_point": mount.get("mount_point") or entry.mount_point or None,
                "options": entry.options,
                "state": _state_of(mount),
                **{key: mount.get(key) for key in ("used_bytes", "quota_bytes", "file_count", "quota_inodes")},
            }
        )
    return described


def _state_of(mount: dict[str, Any]) -> str:
    """Return the state of a volume for people; its owner may have no mount."""
    if not mount:
        return "not mounted"
    return f"{mount['state']}, not mounted" if is_headless(mount) else str(mount["state"])


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
    from volgate.ledger.sqlite import database_path

    entry = catalog().find(name)
    end_brief(name)
    if any(mount["volume_id"] == name for mount in find_all()):
        raise Busy(f"volume {name} is mounted; unmount it first: volgate umount {name}")
    if with_share:
        _delete_share(entry, yes=yes)
    catalog().remove(name)
    database = database_path(paths.state_directory(), name)
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    rest = "its share is removed" if with_share else f"its data stays in {entry.source}"
    confirm(f"{name}: taken out of the catalog; {rest}")


def _delete_share(entry: CatalogEntry, *, yes: bool) -> None:
    """Remove what the volume lies in. Raises Unsupported: a directory or bucket; InvalidArgument: not confirmed."""
    import trio

    from volgate.dto import VolumeOperationContext
    from volgate.volume.storage import make_backend

    where = resolve_with_configuration(entry.volume_id)
    if where.backend_type != "hammerspace":
        raise Unsupported(f"{entry.source} is no share; remove its data yourself")
    if not yes and not (sys.stdin.isatty() and click.confirm(f"Remove {entry.source} with all data in it?", err=True)):
        raise InvalidArgument(f"not confirmed; {entry.source} stays; say --yes to remove it with all data in it")
    backend = make_backend(where)
    context = VolumeOperationContext(entry.volume_id, Path("/"), where.backend_type, f"uid:{os.geteuid()}")
    trio.run(backend.delete_volume, context)
