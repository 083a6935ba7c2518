"""Which driver serves which source: built-in ones and those that others register, by entry points."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Final

import attrs

from volgate.drivers.base import BaseStorageBackend
from volgate.dto import BackendType
from volgate.errors import InvalidArgument

ENTRY_POINT_GROUP: Final = "volgate.drivers"
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.DOTALL)


@attrs.frozen
class Source:
    """Where a volume's data lies.

    Attributes:
        backend_type: the driver's name.
        text: what its ``from_source`` is given: a directory's path, or a URL.
    """

    backend_type: BackendType
    text: str


def split_source(text: str) -> Source | None:
    """Return where a SOURCE argument points: with ``://`` a URL, with ``/`` or as ``.`` a directory, else None.

    None means a volume's id, which only a catalog can resolve.
    """
    url = _URL.fullmatch(text)
    if url is not None:
        return Source(url.group(1), text)
    if "/" in text or text in (".", ".."):
        return Source("posix", text)
    return None


def make_backend(source: Source) -> BaseStorageBackend:
    """Return the backend of a source; nothing is opened yet.

    Raises:
        InvalidArgument: no driver of that name; the message names those there are.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    point = found.get(source.backend_type)
    if point is None:
        known = ", ".join(sorted(found))
        raise InvalidArgument(f"no driver serves '{source.backend_type}'; there are: {known}")
    backend = point.load().from_source(source.text)
    assert isinstance(backend, BaseStorageBackend)
    return backend
