"""Opening what is copied: a part of the volume itself, one of its snapshots, or another volume, for reading."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import psutil
import trio

from volgate.cache.backend import CachedBackend
from volgate.core.names import RESERVED_ROOT_NAMES
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.registry import Source
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import VolumeOperationContext
from volgate.errors import InvalidArgument, NotFound
from volgate.volume.identity import load_identity
from volgate.volume.snapshots.base import Place
from volgate.volume.storage import make_backend

if TYPE_CHECKING:
    from volgate.copies.request import CopyRequest
    from volgate.drivers.base import BackendDirectory, BaseStorageBackend
    from volgate.vfs.file_system import FileSystem


@contextlib.asynccontextmanager
async def opened_source(
    request: CopyRequest, file_system: FileSystem, own_text: str
) -> AsyncIterator[tuple[Place, str]]:
    """Give the tree that a request's source lies in, and its path there.

    The URL of a bucket that nothing lies below may be an object's: then it is that.

    Args:
        own_text: where the volume's own data lies.

    Raises:
        InvalidArgument: the volume's own data lies in the source, or it in that.
        NotFound: there is no such snapshot, directory or bucket. StorageException: it cannot be read; says why.
    """
    volume = file_system.volume
    if request.snapshot_id:
        yield await volume.snapshots.open(request.snapshot_id), request.source_path
        return
    if not request.source_text:
        yield Place(volume.backend, volume.root), request.source_path
        return
    source = Source(request.source_type, request.source_text, dict(request.source_options))
    async with contextlib.AsyncExitStack() as opened:
        backend, root = await opened.enter_async_context(_opened(source, request.source_path, own_text))
        reserved = RESERVED_ROOT_NAMES if await load_identity(backend) else frozenset[bytes]()
        if "://" not in source.text or reserved or await backend.list_names(root):
            yield Place(backend, root, reserved=reserved), request.source_path
            return
        above, _, name = source.text.rpartition("/")
        if request.source_path or not name or above.endswith("/"):
            raise NotFound(f"there is nothing at {source.text}")
        await opened.aclose()
        backend, root = await opened.enter_async_context(_opened(attrs.evolve(source, text=above), name, own_text))
        if await backend.find_attributes(root, os.fsencode(name)) is None:
            raise NotFound(f"there is nothing at {source.text}")
        yield Place(backend, root, reserved=frozenset()), name


@contextlib.asynccontextmanager
async def _opened(
    source: Source, path: str, own_text: str
) -> AsyncIterator[tuple[BaseStorageBackend, BackendDirectory]]:
    """Give the storage, and its root, of a source that is not the volume's own."""
    backend = await trio.to_thread.run_sync(_make, source, path, own_text, abandon_on_cancel=True)
    context = VolumeOperationContext("volume", Path("/"), source.backend_type, f"uid:{os.geteuid()}", read_only=True)
    failed: list[Exception] = []
    try:
        root = await backend.open_volume(context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            try:
                yield backend, root
            except Exception as error:  # noqa: BLE001 - raised below, as it is: a nursery would wrap it
                failed.append(error)
            nursery.cancel_scope.cancel()
        if failed:
            raise failed[0]
    finally:
        with trio.CancelScope(shield=True):
            await backend.close()


def _make(source: Source, path: str, own_text: str) -> BaseStorageBackend:
    """Return a backend that reads a source. Blocks for the storage, which may hang; so it is called in a thread.

    A directory in which others mount is read in threads too: what is mounted there may hang, or be this very process.
    """
    if source.backend_type == "posix":
        place = Path(os.path.realpath(os.path.join(source.text, path)))
        _check_apart(place, own_text)
        mounted = (Path(partition.mountpoint) for partition in psutil.disk_partitions(all=True))
        if any(point != place and point.is_relative_to(place) for point in mounted):
            return cast("BaseStorageBackend", ThreadedBackend(PosixBackend(Path(source.text))))
    backend = make_backend(source)
    if isinstance(backend, CachedBackend):
        backend.reads_once = True
    return backend


def _check_apart(place: Path, own_text: str) -> None:
    """Raise InvalidArgument where the volume would be copied into itself, behind its own back.

    By the directories themselves: mounted a second time (mount --bind) they have other paths.
    """
    if "://" in own_text:
        return
    own = Path(os.path.realpath(own_text))
    if _stands_in(own, place) or _stands_in(place, own):
        raise InvalidArgument(f"{place} and the volume's own data in {own} lie within each other: copy by the volume")


def _stands_in(path: Path, above: Path) -> bool:
    """Return whether a path leads through a directory; one that is not there leads nowhere."""
    if not above.is_dir():
        return path == above
    return any(parent.is_dir() and parent.samefile(above) for parent in (path, *path.parents))
