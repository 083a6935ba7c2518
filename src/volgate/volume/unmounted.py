"""A volume that nobody has mounted: opened for a look, or for a change that needs its owner's place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from volgate.drivers.base import BackendDirectory, BaseStorageBackend
from volgate.drivers.registry import Source
from volgate.dto import Usage, VolumeOperationContext
from volgate.ledger.sqlite import database_path, read_stored_usage
from volgate.volume.epoch import load_epoch_id
from volgate.volume.identity import VolumeIdentity, load_identity
from volgate.volume.ownership import acquire_ownership, load_released_usage
from volgate.volume.storage import check_there, make_backend, none_yet


@attrs.frozen
class StoredState:
    """What is known of a volume without its owner.

    Attributes:
        identity: with its limits. backend_type: name of the driver.
        usage: as last stored, None where it was never counted.
    """

    identity: VolumeIdentity
    backend_type: str
    usage: Usage | None


@contextlib.asynccontextmanager
async def opened(
    source: Source, *, owned: bool = False, place: str = ""
) -> AsyncIterator[tuple[BaseStorageBackend, BackendDirectory, VolumeIdentity]]:
    """Open a volume that is not mounted, for reading, or ``owned`` for changing it as well.

    Args:
        place: as people call it.

    Raises:
        NotFound: there is no volume. Busy: another owns it.
    """
    check_there(source)
    backend = make_backend(source)
    owner = f"uid:{os.geteuid()}"
    context = VolumeOperationContext("volume", Path("/"), source.backend_type, owner, read_only=not owned)
    try:
        root = await backend.open_volume(context)
        identity = await load_identity(backend)
        if identity is None:
            raise none_yet(place or source.text)
        if owned:
            await acquire_ownership(backend, identity.volume_id, None)
        try:
            yield backend, root, identity
        finally:
            if owned:
                await backend.release_ownership()
    finally:
        await backend.close()


async def read_stored(source: Source, state_directory: Path) -> StoredState:
    """Return limits, and usage as last stored. Raises NotFound: there is no volume."""
    async with opened(source) as (backend, _, identity):
        usage = (
            await load_released_usage(backend)
            if backend.capabilities.keeps_usage
            else read_stored_usage(database_path(state_directory, identity.volume_id), await load_epoch_id(backend))
        )
        return StoredState(identity, source.backend_type, usage)
