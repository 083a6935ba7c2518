"""Giving a volume a name on this host, a new one or one whose data exists; changing and forgetting what is known of it.

Asks no daemon: who calls ``delete_volume`` has seen that the volume is not mounted.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import attrs

from volgate.drivers.registry import Source
from volgate.dto import VolumeOperationContext
from volgate.errors import AlreadyExists, InvalidArgument, NotFound, Unsupported
from volgate.errors.errno_map import from_oserror_at
from volgate.ledger.sqlite import database_path
from volgate.volume.catalog import Catalog, CatalogEntry
from volgate.volume.counting import count_what_becomes_a_volume
from volgate.volume.identity import VolumeIdentity, load_identity, new_identity, store_identity
from volgate.volume.storage import check_there, make_backend

RESERVED_NAMES: Final = frozenset({"control"})
"""Their sockets are other daemons'."""


async def create_volume(
    catalog: Catalog, context: VolumeOperationContext, source: Source, *, mount_point: str, options: str
) -> CatalogEntry:
    """Make a volume: its place where that is missing, its identity beside the data, its line in the catalog.

    A directory with files in it may become a volume; they are counted at the first mount.

    Args:
        context: with the volume's id and limits.

    Raises:
        AlreadyExists: the name is taken, or the data is a volume already.
        InvalidArgument: nobody may have that name, or a volume lies within.
    """
    volume_id = context.volume_id
    _check_name(volume_id)
    if any(entry.volume_id == volume_id for entry in catalog.list()):
        raise AlreadyExists(f"volume {volume_id} exists; see 'volgate volume show {volume_id}'")
    backend = make_backend(source)
    try:
        await backend.create_volume(context)
        root = await backend.open_volume(context)
        known = await load_identity(backend)
        if known is not None:
            entered = next((entry for entry in catalog.list() if entry.uuid == known.uuid), None)
            remedy = (
                f"enter it with 'volgate volume adopt {source.text}'"
                if entered is None
                else f"see 'volgate volume show {entered.volume_id}'"
            )
            raise AlreadyExists(f"{source.text} is volume {known.volume_id} already; {remedy}")
        if not backend.capabilities.keeps_usage:
            await count_what_becomes_a_volume(backend, root, source.text)
        identity = new_identity(volume_id, context.quota_bytes, context.quota_inodes, volume_id=volume_id)
        await store_identity(backend, identity)
    finally:
        await backend.close()
    return _enter(catalog, identity, source, mount_point, options)


async def adopt_volume(catalog: Catalog, source: Source, *, mount_point: str, options: str) -> CatalogEntry:
    """Enter a volume that exists into the catalog, under the name it has.

    Raises:
        NotFound: there is no volume at the source. AlreadyExists: it is entered already.
    """
    check_there(source)
    backend = make_backend(source)
    context = VolumeOperationContext("volume", Path("/"), source.backend_type, f"uid:{os.geteuid()}", read_only=True)
    try:
        await backend.open_volume(context)
        identity = await load_identity(backend)
    finally:
        await backend.close()
    if identity is None:
        raise NotFound(f"{source.text} is no volume yet; 'volgate volume create NAME {source.text}' makes it one")
    return _enter(catalog, identity, source, mount_point, options)


def _enter(catalog: Catalog, identity: VolumeIdentity, source: Source, mount_point: str, options: str) -> CatalogEntry:
    _check_name(identity.volume_id)
    entry = CatalogEntry(identity.volume_id, identity.uuid, source.text, mount_point, options)
    catalog.add(entry)
    return entry


def change_volume(
    catalog: Catalog, volume_id: str, *, mount_point: str | None = None, options: str | None = None
) -> CatalogEntry:
    """Change where, and with which options, a volume is mounted from the next mount on; None = as it is.

    Raises:
        NotFound: the catalog does not know it.
    """
    entry = catalog.find(volume_id)
    entry = attrs.evolve(
        entry,
        mount_point=entry.mount_point if mount_point is None else mount_point,
        options=entry.options if options is None else options,
    )
    catalog.replace(entry)
    return entry


async def delete_volume(
    catalog: Catalog, entry: CatalogEntry, state_directory: Path, *, share: Source | None = None
) -> None:
    """Take a volume out of the catalog. Its data and limits stay where they are, and 'adopt' enters it again.

    Args:
        share: what it lies in, to be removed first WITH ALL DATA in it; None = the data stays.

    Raises:
        Unsupported: a share was given, and it is none (a directory or a bucket); nothing was done.
    """
    if share is not None:
        check_share(share)
        owner = f"uid:{os.geteuid()}"
        backend = make_backend(share)
        await backend.delete_volume(VolumeOperationContext(entry.volume_id, Path("/"), share.backend_type, owner))
    catalog.remove(entry.volume_id)
    database = database_path(state_directory, entry.volume_id)
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink(missing_ok=True)


def check_share(source: Source) -> None:
    """Raise Unsupported where a volume does not lie in a share, which could be removed as a whole."""
    if source.backend_type != "hammerspace":
        raise Unsupported(f"{source.text} is no share; remove its data yourself")


def make_mount_point(path: str) -> None:
    """Make a mount point and what leads to it, so that the unit of a new volume can be started at once."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):  # and nothing more is asked of it: a dead mount may stand there
            os.mkdir(path)
    except OSError as error:
        raise from_oserror_at(error) from error


def _check_name(volume_id: str) -> None:
    """Refuse a name that the runtime directory has another use for."""
    if volume_id in RESERVED_NAMES:
        raise InvalidArgument(f"no volume may be called '{volume_id}': its socket would be the control daemon's")
