"""A snapshot made of a manifest, as a backend: names and attributes from it, contents from whoever has them."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Sequence

from volgate.drivers.base import BackendDirectory, BackendFile, BaseStorageBackend, Capabilities
from volgate.drivers.read_only import ReadOnlyBackend, ReadOnlyFile
from volgate.dto import FileAttributes
from volgate.errors import InvalidArgument, IsADirectory, NoAttribute, NotADirectory, NotFound, Stale
from volgate.volume.snapshots.manifest import Manifest, ManifestNode

OpenContent = Callable[[ManifestNode], Awaitable[BackendFile]]
"""Returns what has the content of a regular file as it was. Raises Stale: nobody has it any more."""


class RecordedDirectory(BackendDirectory):
    """A directory. Attributes: ino."""

    __slots__ = ("ino",)

    def __init__(self, ino: int) -> None:
        self.ino = ino

    def close(self) -> None:
        """See BackendDirectory; there is nothing to give back."""


class RecordedFile(ReadOnlyFile):
    """A file: its content comes from elsewhere, all else from the manifest."""

    __slots__ = ("_content", "_node")

    def __init__(self, node: ManifestNode, content: BackendFile) -> None:
        self._node = node
        self._content = content

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile."""
        return await self._content.read(offset, length)

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return self._node.attributes

    async def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return _find(self._node, name)

    async def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return [name for name, _ in self._node.xattrs]

    async def close(self) -> None:
        """See BackendFile."""
        await self._content.close()


class RecordedBackend(ReadOnlyBackend):
    """See the module.

    Args:
        live: the volume's backend. manifest: open; closed by whoever opened it. open_content: see there.
    """

    def __init__(self, live: BaseStorageBackend, manifest: Manifest, open_content: OpenContent) -> None:
        self.backend_type = live.backend_type  # type: ignore[misc]
        self._live = live
        self._manifest = manifest
        self._open_content = open_content

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return self._live.capabilities

    @property
    def root(self) -> RecordedDirectory:
        """The snapshot's root."""
        return RecordedDirectory(self._manifest.root)

    def _node(self, directory: BackendDirectory, name: bytes, ino: int = 0) -> ManifestNode:
        assert isinstance(directory, RecordedDirectory)
        node = self._manifest.find(directory.ino, name) if name else self._manifest.node(directory.ino)
        if node is None:
            raise NotFound
        if ino and node.attributes.ino != ino:
            raise Stale
        return node

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> RecordedDirectory:
        """See BaseStorageBackend."""
        node = self._node(parent, name, ino)
        if not node.is_directory:
            raise NotADirectory
        return RecordedDirectory(node.attributes.ino)

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        assert isinstance(directory, RecordedDirectory)
        return self._manifest.names(directory.ino)

    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        return self._node(directory, name).attributes

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """See BaseStorageBackend."""
        assert isinstance(directory, RecordedDirectory)
        found = [self._manifest.find(directory.ino, name) for name in names]
        return [None if node is None else node.attributes for node in found]

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = self._node(directory, name, ino)
        if not node.is_file:
            raise IsADirectory if node.is_directory else InvalidArgument("not a regular file")
        return RecordedFile(node, await self._open_content(node)), node.attributes

    def key_of_node(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend: of the inode that it was."""
        return self._node(directory, name).key

    async def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        node = self._node(directory, name, ino)
        if not stat.S_ISLNK(node.attributes.mode):
            raise InvalidArgument("not a symlink")
        return node.target or b""

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        return _find(self._node(directory, name, ino), attribute)

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        return [found for found, _ in self._node(directory, name, ino).xattrs]


def _find(node: ManifestNode, attribute: bytes) -> bytes:
    for name, value in node.xattrs:
        if name == attribute:
            return value
    raise NoAttribute
