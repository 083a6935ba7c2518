"""Which driver serves which source: built-in ones and those that others register, by entry points."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, cast

import attrs

from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.ceph.mounted import MountedCephBackend, lies_on_cephfs
from volgate.drivers.object_store import ObjectStore
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import BackendType
from volgate.errors import InvalidArgument

BACKENDS: Final = "volgate.drivers"
STORES: Final = "volgate.object_stores"
"""Groups of entry points: classes of ``BaseStorageBackend``, and of ``ObjectStore``."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.DOTALL)


@attrs.frozen
class Source:
    """Where a volume's data lies.

    Attributes:
        backend_type: the driver's name.
        text: what its ``from_source`` is given: a directory's path, or a URL.
        options: what the driver, and a cache, are told besides, by the names of mount options.
    """

    backend_type: BackendType
    text: str
    options: Mapping[str, str] = attrs.field(factory=dict)


def split_source(text: str) -> Source | None:
    """Return where a SOURCE argument points: with ``://`` a URL, with ``/`` or as ``.`` a directory, else None.

    None means a volume's id, which only a catalog can resolve.

    Raises:
        InvalidArgument: it looks like a URL, but for a slash.
    """
    url = _URL.fullmatch(text)
    if url is not None:
        return Source(url.group(1), text)
    scheme, colon, rest = text.partition(":/")
    if colon and scheme in _drivers(STORES) and not os.path.exists(text):
        raise InvalidArgument(f"'{text}' is no directory; a URL has two slashes: {scheme}://{rest}")
    if "/" in text or text in (".", ".."):
        return Source("posix", text)
    return None


def load_backend(source: Source) -> BaseStorageBackend:
    """Return the backend that a driver makes of a source; nothing is opened yet.

    Raises:
        InvalidArgument: no driver of that name; the message names those there are. BadConfiguration: an option is none.
    """
    if source.backend_type == "posix" and lies_on_cephfs(source.text):
        return cast("BaseStorageBackend", ThreadedBackend(MountedCephBackend(Path(source.text))))
    found = _drivers(BACKENDS)
    point = found.get(source.backend_type)
    if point is None:
        known = ", ".join(sorted([*found, *_drivers(STORES)]))
        raise InvalidArgument(f"no driver serves '{source.backend_type}'; there are: {known}")
    backend = point.load().from_source(source.text, source.options)
    assert isinstance(backend, BaseStorageBackend)
    return backend


def is_bucket(source: Source) -> bool:
    """Return whether a source holds objects, so that it is served through a cache."""
    return source.backend_type in _drivers(STORES)


def load_store(source: Source) -> ObjectStore | None:
    """Return the object store of a source, None where no driver of objects serves it; nothing is asked yet.

    Raises:
        BadConfiguration: the URL, or an option, is none. PermissionDenied: there are no credentials.
    """
    point = _drivers(STORES).get(source.backend_type)
    if point is None:
        return None
    store = point.load().from_source(source.text, source.options)
    assert isinstance(store, ObjectStore)
    return store


def _drivers(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
