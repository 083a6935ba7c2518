"""Which objects a volume held at one moment, as a listing has them: key, etag, size and time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from volgate.drivers.object_store import ListedObject, ListPage
from volgate.manifests.database import DraftDatabase, SealedDatabase

FORMAT_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE objects (key BLOB PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL, modified_at INTEGER NOT NULL)
    WITHOUT ROWID;
"""
_BATCH: Final = 1000


class ObjectManifestWriter:
    """A draft.

    Args:
        path: of a file that does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._database = DraftDatabase(path, _TABLES)
        self._database.set_head(FORMAT_VERSION)

    def add(self, objects: Iterable[ListedObject]) -> None:
        """Enter objects. Raises NoSpace."""
        rows = ((found.key.encode(), found.etag, found.size, found.modified_at) for found in objects)
        self._database.insert("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", rows)

    def finish(self) -> None:
        """See DraftDatabase."""
        self._database.finish()

    def discard(self) -> None:
        """See DraftDatabase."""
        self._database.discard()


class ObjectManifest:
    """A manifest that is whole; see SealedDatabase for what is raised.

    Args:
        path: its file on the local disk.
    """

    def __init__(self, path: Path) -> None:
        self._database = SealedDatabase(path, FORMAT_VERSION)

    def find(self, key: str) -> ListedObject | None:
        """Return an object, None if it is not in it."""
        rows = self._database.ask("SELECT key, etag, size, modified_at FROM objects WHERE key = ?", key.encode())
        row = rows.fetchone()
        return None if row is None else _to_object(row)

    def objects(self) -> Iterator[ListedObject]:
        """Yield all, in the order of their keys; others may close the manifest meanwhile. Raises Stale then."""
        after = b""
        while found := self._next(b"", after, _BATCH):
            yield from found
            after = found[-1].key.encode()

    def list_page(self, prefix: str, delimiter: str, page: str | None, limit: int) -> ListPage:
        """See ObjectReader; a page begins after the last key or prefix of the one before."""
        objects: list[ListedObject] = []
        prefixes: list[str] = []
        start, after = prefix.encode(), b"" if page is None else bytes.fromhex(page)
        while len(objects) + len(prefixes) < limit:
            found = self._next(start, after, 1 if prefixes and not objects else _BATCH)
            if not found:
                return ListPage(tuple(objects), tuple(prefixes))
            for each in found:
                key = each.key.encode()
                end = each.key.find(delimiter, len(prefix)) if delimiter else -1
                if end < 0:
                    objects.append(each)
                    after = key
                else:
                    prefixes.append(each.key[: end + len(delimiter)])
                    after = _after_all(prefixes[-1].encode())
                if end >= 0 or len(objects) + len(prefixes) == limit:
                    break
        return ListPage(tuple(objects), tuple(prefixes), after.hex() if self._next(start, after, 1) else None)

    def _next(self, prefix: bytes, after: bytes, count: int) -> list[ListedObject]:
        """Return objects whose keys begin with a prefix and come after a key, in order."""
        rows = self._database.ask(
            "SELECT key, etag, size, modified_at FROM objects WHERE key >= ? AND key > ? AND key < ? "
            "ORDER BY key LIMIT ?", prefix, after, _after_all(prefix), count,
        )  # fmt: skip
        return [_to_object(row) for row in rows]

    def close(self) -> None:
        """See SealedDatabase."""
        self._database.close()


def _after_all(prefix: bytes) -> bytes:
    """Return what comes after all keys with a prefix: 0xff is in no UTF-8 (RFC 3629 §1)."""
    return prefix + b"\xff"


def _to_object(row: tuple[Any, ...]) -> ListedObject:
    key, etag, size, modified_at = row
    return ListedObject(key.decode(), size, etag, modified_at)
