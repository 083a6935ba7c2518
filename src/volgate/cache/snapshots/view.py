"""A snapshot of a bucket as a tree: the listing of then, and each object from whoever has it now."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import attrs

from volgate.cache.entries import Entries
from volgate.cache.names import Names
from volgate.cache.object_tree import CachedDirectory, ObjectTree
from volgate.cache.reading import Reading, Stream
from volgate.drivers.base import BackendDirectory, BackendFile, Capabilities
from volgate.drivers.object_store import ListedObject, ListPage, ObjectInfo, ObjectReader, ObjectStore
from volgate.drivers.read_only import ReadOnlyBackend, ReadOnlyFile
from volgate.dto import FileAttributes
from volgate.errors import NotFound, Stale

if TYPE_CHECKING:
    from volgate.cache.nodes import Node
    from volgate.cache.snapshots.bucket import TakenSnapshot
    from volgate.cache.snapshots.kept import KeptObjects

_LOST: Final = "volgate-lost"
"""Metadata of an object that nobody has any more as it was: what is known of it comes from the listing."""
_CLOCKS_S: Final = 1
"""How far the times of a listing and of a single answer may differ: a server may round one of them."""
_MAX_VERSIONS: Final = 1000
_SETTLED_S: Final = 2
"""An object so young when it was listed may have changed since without another etag or time."""


class KeptContents(ObjectReader):
    """The live store, where what was replaced is read from the copies that snapshots keep.

    What others replaced is read from the bucket's own versions, where it keeps such.

    Args:
        live: open.
    """

    def __init__(self, live: ObjectStore, kept: KeptObjects) -> None:
        self._live = live
        self._kept = kept
        self._versions: dict[tuple[str, str], str] = {}

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectReader."""
        return await self._live.head(key)

    async def list_page(
        self, prefix: str = "", *, delimiter: str = "", page: str | None = None, limit: int = 1000
    ) -> ListPage:
        """See ObjectReader."""
        return await self._live.list_page(prefix, delimiter=delimiter, page=page, limit=limit)

    async def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """See ObjectReader."""
        while etag is not None and (copy := self._kept.any_of(key, etag)) is not None:
            try:
                return await self._live.get_range(copy, offset, length)
            except NotFound:
                if self._kept.any_of(key, etag) == copy:  # others deleted it
                    break
        try:
            return await self._live.get_range(key, offset, length, etag=etag)
        except (Stale, NotFound):
            if etag is None:
                raise
            if self._kept.any_of(key, etag) is None:
                version = await self._find_version(key, etag)
                if version is None:
                    raise
                return await self._live.get_version(key, version, offset, length)
        return await self.get_range(key, offset, length, etag=etag)  # it was kept and replaced meanwhile

    async def _find_version(self, key: str, etag: str) -> str | None:
        found = self._versions.get((key, etag)) or await self._live.find_version(key, etag, 0)
        if found is not None:
            if len(self._versions) >= _MAX_VERSIONS:
                self._versions.clear()
            self._versions[key, etag] = found
        return found

    async def head_replaced(self, then: ListedObject) -> ObjectInfo | None:
        """Return what is known of an object that others replaced, from the bucket's versions; None: it is lost."""
        version = await self._live.find_version(then.key, then.etag, then.modified_at)
        return None if version is None else await self._live.head_version(then.key, version)


class SnapshotReader(ObjectReader):
    """The objects of a snapshot. Times are those of then; what is lost to others has no metadata any more.

    Args:
        taken: not damaged. contents: of all versions.
    """

    def __init__(self, taken: TakenSnapshot, contents: KeptContents, kept: KeptObjects) -> None:
        self._taken = taken
        self._contents = contents
        self._kept = kept

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectReader."""
        assert self._taken.manifest is not None
        then = self._taken.manifest.find(key)
        if then is None:
            raise NotFound(f"the snapshot has no object {key}")
        info = ObjectInfo(key, then.size, then.etag, then.modified_at)
        while True:
            serial = self._kept.find(key, then.etag, self._taken.serial)
            place = key if serial is None else self._kept.key_of(key, then.etag, serial)
            found = None
            with contextlib.suppress(NotFound):
                found = await self._contents.head(place)
            if self._kept.find(key, then.etag, self._taken.serial) != serial:
                continue  # it was kept, and changed, meanwhile
            if serial is None and (found is None or _is_another(found, then)):
                found = await self._contents.head_replaced(then)
            if found is None:
                return attrs.evolve(info, metadata={_LOST: "1"})
            return attrs.evolve(info, content_type=found.content_type, metadata=found.metadata)

    async def list_page(
        self, prefix: str = "", *, delimiter: str = "", page: str | None = None, limit: int = 1000
    ) -> ListPage:
        """See ObjectReader."""
        assert self._taken.manifest is not None
        return self._taken.manifest.list_page(prefix, delimiter, page, limit)

    async def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """See ObjectReader."""
        return await self._contents.get_range(key, offset, length, etag=etag)


def _is_another(found: ObjectInfo, then: ListedObject) -> bool:
    """Return whether others replaced an object, be it by the same content, whose attributes are others then.

    Times of directories say nothing: versitygw gives those of the directory that it keeps the object in.
    """
    is_later = abs(found.modified_at - then.modified_at) > _CLOCKS_S and not then.key.endswith("/")
    return found.etag != then.etag or is_later


class _NothingChanged:
    """In place of an overlay: nothing was changed here."""

    def __init__(self) -> None:
        self.entries = Entries()

    def set_base_key(self, node: Node, key: str | None) -> None:
        """See Overlay."""
        node.base_key = key


class SnapshotTree(ObjectTree, ReadOnlyBackend):
    """See the module.

    Args:
        live: the volume. taken: not damaged. contents: of all versions. kept: the copies. reading: of contents.
    """

    def __init__(
        self, live: ObjectTree, taken: TakenSnapshot, contents: KeptContents, kept: KeptObjects, reading: Reading
    ) -> None:
        self.backend_type = live.backend_type  # type: ignore[misc]
        self._capabilities = attrs.evolve(live.capabilities, native_snapshots=False)
        self.names = Names(SnapshotReader(taken, contents, kept), _NothingChanged(), ttl_s=float("inf"))
        self.reading = reading
        self._taken = taken
        self._kept = kept

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return self._capabilities

    def _mark_of(self, node: Node) -> object | None:
        """Return none for what was kept: it changed, and not every server gives it another time for that."""
        is_settled = node.modified_at <= self._taken.listed_at - _SETTLED_S
        is_kept = node.etag is not None and self._kept.find(node.key, node.etag, self._taken.serial) is not None
        return node.mark if is_settled and not is_kept else None

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        return self.list_xattrs_of(await self._find(directory, name, ino))

    def list_xattrs_of(self, node: Node) -> list[bytes]:
        """Return the names of a node's attributes. Raises Stale where they are lost: those shown are default ones."""
        if _LOST in node.extra:
            raise Stale("others changed this object behind the mount: the attributes that the snapshot had are lost")
        return list(node.xattrs)

    async def open_root(self) -> SnapshotTop:
        """Return the root."""
        await self.names.open()
        return SnapshotTop(self)

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = await self._find_file(directory, name, ino)
        return _SnapshotFile(self, node), node.to_attributes()


class SnapshotTop(CachedDirectory):
    """A snapshot's root. Attributes: tree: whose calls work in it."""

    __slots__ = ("tree",)

    def __init__(self, tree: SnapshotTree) -> None:
        super().__init__(tree.names.root)
        self.tree = tree


class _SnapshotFile(ReadOnlyFile):
    """A file as it was."""

    def __init__(self, tree: SnapshotTree, node: Node) -> None:
        self._tree = tree
        self._node = node
        self._stream = Stream()

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile. Raises Stale: others changed it behind the mount."""
        base = self._node.base
        assert base is not None
        try:
            return await self._tree.reading.read(base, offset, length, self._stream)
        except Stale as error:
            raise Stale("others changed this object behind the mount: what the snapshot had is lost") from error

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return self._node.to_attributes()

    async def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return self._tree.xattr_of(self._node, name)

    async def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return self._tree.list_xattrs_of(self._node)

    async def close(self) -> None:
        """See BackendFile."""
