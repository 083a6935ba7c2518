"""Copies of objects as snapshots have them, kept in the bucket before the objects change.

A copy is named by what it is of, key and etag, and by the serial of the newest snapshot of its time: that and older
ones have it so. A snapshot finds what it had in the first copy from its own serial on, or else in the live object.
Content and metadata are the copy's for that snapshot; the content is the same in all copies of one name.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Final

from volgate.cache.copying import copy_object
from volgate.core.object_version import ObjectVersion
from volgate.drivers.object_store import ObjectStore

PLACE: Final = ".volgate/snapshots/"
_KEPT: Final = f"{PLACE}kept/"
_NAME: Final = re.compile(r"([0-9a-f]{40})-([0-9]{10})")


class KeptObjects:
    """The copies of one volume.

    Args:
        store: open.

    Attributes:
        bytes_by_serial: how much is kept, by the serial in the name.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._serials: dict[str, list[int]] = {}
        self._sizes: dict[tuple[str, int], int] = {}
        self.bytes_by_serial: Counter[int] = Counter()

    async def load(self) -> None:
        """Find what there is."""
        async for listed in self._store.list_objects(_KEPT):
            match = _NAME.fullmatch(listed.key.removeprefix(_KEPT))
            if match is not None:
                self._add(match[1], int(match[2]), listed.size)

    def find(self, key: str, etag: str, serial: int) -> int | None:
        """Return the serial of the first copy from a snapshot's own on; None: the live object counts."""
        serials = self._serials.get(_digest(key, etag), [])
        at = bisect_left(serials, serial)
        return serials[at] if at < len(serials) else None

    def key_of(self, key: str, etag: str, serial: int) -> str:
        """Return where a copy lies."""
        return _key(_digest(key, etag), serial)

    def any_of(self, key: str, etag: str) -> str | None:
        """Return where some copy of a content lies; None: there is none."""
        digest = _digest(key, etag)
        serials = self._serials.get(digest)
        return _key(digest, serials[-1]) if serials else None

    async def keep(self, version: ObjectVersion, serial: int) -> None:
        """Copy the live object, durably. Raises Stale, NotFound: it is another already, or gone."""
        digest = _digest(version.key, version.etag)
        await copy_object(self._store, version, _key(digest, serial))
        self._add(digest, serial, version.size)

    def _add(self, digest: str, serial: int, size: int) -> None:
        if (digest, serial) not in self._sizes:
            serials = self._serials.setdefault(digest, [])
            serials.insert(bisect_left(serials, serial), serial)
            self._sizes[digest, serial] = size
            self.bytes_by_serial[serial] += size

    @property
    def kept_bytes(self) -> int:
        """How much is kept."""
        return self.bytes_by_serial.total()

    @property
    def last_serial(self) -> int:
        """The highest serial in a name, 0 where nothing is kept."""
        return max((serial for _, serial in self._sizes), default=0)

    def measure(self, names: Iterable[tuple[str, int]]) -> int:
        """Return how many bytes copies have; those that are gone count nothing."""
        return sum(self._sizes.get(name, 0) for name in names)

    def names(self) -> list[tuple[str, int]]:
        """Return all names; for ``drop``."""
        return list(self._sizes)

    def name(self, key: str, etag: str, serial: int) -> tuple[str, int]:
        """Return a name; for ``drop``."""
        return _digest(key, etag), serial

    async def drop(self, digest: str, serial: int) -> None:
        """Delete a copy that nobody needs."""
        if (digest, serial) not in self._sizes:
            return  # another deletion was faster
        self._serials[digest].remove(serial)
        if not self._serials[digest]:
            del self._serials[digest]
        self.bytes_by_serial[serial] -= self._sizes.pop((digest, serial))
        await self._store.delete(_key(digest, serial))


def _digest(key: str, etag: str) -> str:
    return hashlib.blake2b(f"{etag}\0{key}".encode(), digest_size=20).hexdigest()


def _key(digest: str, serial: int) -> str:
    return f"{_KEPT}{digest}-{serial:010}"
