"""Opening what is copied: a part of the volume itself, one of its snapshots, or another volume, for reading."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from volgate.drivers.registry import Source
from volgate.dto import VolumeOperationContext
from volgate.volume.snapshots.base import Place
from volgate.volume.storage import make_backend

if TYPE_CHECKING:
    from volgate.copies.request import CopyRequest
    from volgate.vfs.file_system import FileSystem


@contextlib.asynccontextmanager
async def opened_source(request: CopyRequest, file_system: FileSystem) -> AsyncIterator[Place]:
    """Give the tree that a request's source path lies in.

    Raises:
        NotFound: there is no such snapshot, directory or bucket. StorageException: it cannot be read; says why.
    """
    volume = file_system.volume
    if request.snapshot_id:
        yield await volume.snapshots.open(request.snapshot_id)
    elif not request.source_text:
        yield Place(volume.backend, volume.root)
    else:
        source = Source(request.source_type, request.source_text, dict(request.source_options))
        backend = make_backend(source)
        context = VolumeOperationContext(
            "volume", Path("/"), source.backend_type, f"uid:{os.geteuid()}", read_only=True
        )
        failed: list[Exception] = []
        try:
            root = await backend.open_volume(context)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.run)
                try:
                    yield Place(backend, root)
                except Exception as error:  # noqa: BLE001 - raised below, as it is: a nursery would wrap it
                    failed.append(error)
                nursery.cancel_scope.cancel()
            if failed:
                raise failed[0]
        finally:
            with trio.CancelScope(shield=True):
                await backend.close()
