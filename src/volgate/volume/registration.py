"""Giving a volume a name on this host: a new one, or one whose data exists."""

from __future__ import annotations

import os
from pathlib import Path

from volgate.drivers.registry import Source
from volgate.dto import VolumeOperationContext
from volgate.errors import AlreadyExists, NotFound
from volgate.volume.catalog import Catalog, CatalogEntry
from volgate.volume.identity import VolumeIdentity, load_identity, new_identity, store_identity
from volgate.volume.storage import make_backend


async def create_volume(
    catalog: Catalog,
    volume_id: str,
    source: Source,
    *,
    quota_bytes: int | None,
    quota_inodes: int | None,
    mount_point: str,
    options: str,
) -> CatalogEntry:
    """Make a volume: its place where that is missing, its identity beside the data, its line in the catalog.

    A directory with files in it may become a volume; they are counted at the first mount.

    Raises:
        AlreadyExists: the name is taken, or the data is a volume already.
    """
    if any(entry.volume_id == volume_id for entry in catalog.list()):
        raise AlreadyExists(f"volume {volume_id} exists; see 'volgate volume show {volume_id}'")
    backend = make_backend(source)
    context = VolumeOperationContext(volume_id, Path("/"), source.backend_type, f"uid:{os.geteuid()}")
    try:
        await backend.create_volume(context)
        await backend.open_volume(context)
        known = await load_identity(backend)
        if known is not None:
            raise AlreadyExists(
                f"{source.text} is volume {known.volume_id} already; enter it with 'volgate volume adopt {source.text}'"
            )
        identity = new_identity(volume_id, quota_bytes, quota_inodes, volume_id=volume_id)
        await store_identity(backend, identity)
    finally:
        await backend.close()
    return _enter(catalog, identity, source, mount_point, options)


async def adopt_volume(catalog: Catalog, source: Source, *, mount_point: str, options: str) -> CatalogEntry:
    """Enter a volume that exists into the catalog, under the name it has.

    Raises:
        NotFound: there is no volume at the source. AlreadyExists: it is entered already.
    """
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
    entry = CatalogEntry(identity.volume_id, identity.uuid, source.text, mount_point, options)
    catalog.add(entry)
    return entry
