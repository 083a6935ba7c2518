"""From a source to the backend that serves it: a driver, or files made of an object store."""

from __future__ import annotations

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.registry import Source, load_backend, load_store


def make_backend(source: Source) -> BaseStorageBackend:
    """Return the backend of a source; nothing is opened yet.

    Raises:
        InvalidArgument: no driver of that name; the message names those there are. BadConfiguration: an option is none.
    """
    store = load_store(source)
    return load_backend(source) if store is None else CachedBackend(store, CacheSettings.from_options(source.options))
