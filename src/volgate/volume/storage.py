"""From a source to the backend that serves it: a driver, or files made of an object store."""

from __future__ import annotations

import os
from typing import Final

import trio

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.registry import Source, load_backend, load_store
from volgate.errors import NotFound, StorageException

_AGAIN_S: Final = 5.0


def make_backend(source: Source) -> BaseStorageBackend:
    """Return the backend of a source; nothing is opened yet.

    Raises:
        InvalidArgument: no driver of that name; the message names those there are. BadConfiguration: an option is none.
    """
    store = load_store(source)
    return load_backend(source) if store is None else CachedBackend(store, CacheSettings.from_options(source.options))


def check_there(source: Source) -> None:
    """Raise NotFound where a volume's directory is missing: only who makes a volume is told to make one."""
    if source.backend_type == "posix" and not os.path.lexists(source.text):
        raise NotFound(f"{source.text} does not exist")


async def load_patiently(backend: BaseStorageBackend, name: str) -> bytes | None:
    """Return a reserved file's content once the storage answers; None where there is none.

    Raises:
        StorageException: it answers that it cannot be read.
    """
    while True:
        try:
            return await backend.load_reserved(name)
        except StorageException as error:
            if not error.retryable:
                raise
        await trio.sleep(_AGAIN_S)


def none_yet(place: str) -> NotFound:
    """Return what is to be raised where somebody means a volume, and the place, as people call it, holds none."""
    return NotFound(
        f"{place} is no volume of volgate's yet, and none is mounted there; 'volgate volume list' and 'volgate list' "
        "show what there is"
    )
