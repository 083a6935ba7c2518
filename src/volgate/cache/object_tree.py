"""What is read of a tree of nodes: names, attributes, links. The volume as it is, and as a snapshot has it."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from volgate.cache.names import Names
from volgate.cache.nodes import Node
from volgate.cache.reading import Reading
from volgate.drivers.base import BackendDirectory, BaseStorageBackend
from volgate.dto import FileAttributes
from volgate.errors import (
    InputOutput,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NotADirectory,
    NotFound,
    Stale,
    TooManySymlinks,
)


class CachedDirectory(BackendDirectory):
    """A directory held open. Attributes: node."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def close(self) -> None:
        """See BackendDirectory; there is nothing to give back."""


class ObjectTree(BaseStorageBackend):
    """See the module.

    Attributes:
        names: the tree. reading: of contents.
    """

    names: Names
    reading: Reading

    def _node_of(self, directory: BackendDirectory) -> Node:
        assert isinstance(directory, CachedDirectory)
        if directory.node.is_unlinked:
            raise Stale("the directory is gone")
        return directory.node

    async def _find(self, directory: BackendDirectory, name: bytes, ino: int = 0) -> Node:
        parent = self._node_of(directory)
        if not name:
            if not parent.known and parent.parent is not None:
                return await self.names.find(parent.parent, parent.name) or parent
            return parent
        node = await self.names.find(parent, name)
        if node is None:
            raise NotFound
        if ino and node.ino != ino:
            raise Stale
        return node

    async def _find_file(self, directory: BackendDirectory, name: bytes, ino: int) -> Node:
        """Return a regular file's node. Raises what open(2) says of all others."""
        node = await self._find(directory, name, ino)
        if node.directory is not None:
            raise IsADirectory
        if stat.S_ISLNK(node.mode):
            raise TooManySymlinks
        if not stat.S_ISREG(node.mode):
            raise InvalidArgument("not a regular file")
        return node

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> CachedDirectory:
        """See BaseStorageBackend."""
        node = await self._find(parent, name, ino)
        if node.directory is None:
            raise NotADirectory
        return CachedDirectory(node)

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        return await self.names.list_names(self._node_of(directory))

    def marks_of(self, directory: BackendDirectory, names: Sequence[bytes]) -> list[object | None]:
        """See BaseStorageBackend: the object's etag and time, as the last listing had them."""
        listed = self._node_of(directory).directory
        assert listed is not None
        found = [listed.children.get(name) for name in names]
        return [None if node is None else self._mark_of(node) for node in found]

    def content_tag(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> object:
        """See BaseStorageBackend: the object's etag; of what is not stored yet, something that nothing equals."""
        listed = self._node_of(directory).directory
        node = listed.children.get(name) if listed is not None else None
        return object() if node is None or node.work is not None or node.etag is None else node.etag

    def _mark_of(self, node: Node) -> object | None:
        return node.mark

    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        return (await self._find(directory, name)).to_attributes()

    async def find_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes | None:
        """See BaseStorageBackend."""
        node = await self.names.find(self._node_of(directory), name) if name else await self._find(directory, name)
        return node.to_attributes() if node is not None else None

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """See BaseStorageBackend; what is not known is asked for at once."""
        found = await self.names.find_all(self._node_of(directory), names)
        return [node.to_attributes() if node is not None else None for node in found]

    async def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        node = await self._find(directory, name, ino)
        if not stat.S_ISLNK(node.mode):
            raise InvalidArgument("not a symlink")
        if node.symlink_target is None:
            base = node.base
            if base is None:
                raise InputOutput("the symlink's object is not known any more")
            node.symlink_target = await self.reading.read(base, 0, base.size)
        return node.symlink_target

    def xattr_of(self, node: Node, attribute: bytes) -> bytes:
        """Return an extended attribute. Raises NoAttribute."""
        if attribute not in node.xattrs:
            raise NoAttribute
        return node.xattrs[attribute]

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        return self.xattr_of(await self._find(directory, name, ino), attribute)

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        return list((await self._find(directory, name, ino)).xattrs)
