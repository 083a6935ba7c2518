"""A snapshot of one file, shown as a tree: the directories that lead to it, and nothing but the file in the last one.

Those directories are the share's as they are now, so that who may not pass them now does not reach the file here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

from volgate.drivers.base import BackendDirectory, BackendFile, BaseStorageBackend, Capabilities
from volgate.drivers.hammerspace.share_directory import SnapshotDirectory
from volgate.drivers.read_only import ReadOnlyBackend
from volgate.dto import BackendType, FileAttributes
from volgate.errors import IsADirectory, NoAttribute, NotADirectory, NotFound

_GONE_MODE: Final = stat.S_IFDIR | 0o700
_GONE_INO: Final = 1 << 63


class StepDirectory(BackendDirectory):
    """A directory on the way to the file.

    Attributes:
        tree: what it belongs to. depth: how many directories lie above it.
    """

    __slots__ = ("depth", "tree")

    def __init__(self, tree: FileSnapshotTree, depth: int) -> None:
        self.tree = tree
        self.depth = depth

    def close(self) -> None:
        """See BackendDirectory; what the tree holds is given back with its root."""
        if not self.depth:
            self.tree.folder.close()


class FileSnapshotTree(ReadOnlyBackend):
    """See the module.

    Args:
        live: the volume's backend. root: the volume's root there. path: of the file when it was taken.
        folder, name: where its content is.
    """

    backend_type: ClassVar[BackendType] = "hammerspace"

    def __init__(
        self, live: BaseStorageBackend, root: BackendDirectory, path: str, folder: SnapshotDirectory, name: str
    ) -> None:
        self._live = live
        self._live_root = root
        self._parts = os.fsencode(path).split(b"/")
        self._name = os.fsencode(name)
        self.folder = folder

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return self._live.capabilities

    def _step(self, directory: BackendDirectory, name: bytes) -> int:
        """Return the depth of what a name leads to. Raises NotFound."""
        assert isinstance(directory, StepDirectory)
        if not name:
            return directory.depth
        if name != self._parts[directory.depth]:
            raise NotFound
        return directory.depth + 1

    def _is_file(self, depth: int) -> bool:
        return depth == len(self._parts)

    @contextlib.asynccontextmanager
    async def _live_directory(self, depth: int) -> AsyncIterator[BackendDirectory | None]:
        """Give the share's own directory; None where there is none any more."""
        with contextlib.ExitStack() as opened:
            directory: BackendDirectory | None = self._live_root
            for part in self._parts[:depth]:
                assert directory is not None
                try:
                    directory = await self._live.open_directory(directory, part, 0)
                except (NotFound, NotADirectory):
                    directory = None
                    break
                opened.callback(directory.close)
            yield directory

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> StepDirectory:
        """See BaseStorageBackend."""
        depth = self._step(parent, name)
        if self._is_file(depth):
            raise NotADirectory
        return StepDirectory(self, depth)

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        return [self._parts[self._step(directory, b"")]]

    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        depth = self._step(directory, name)
        if self._is_file(depth):
            return await self._live.get_attributes(self.folder, self._name)
        async with self._live_directory(depth) as live:
            if live is not None:
                return await self._live.get_attributes(live, b"")
        return FileAttributes(_GONE_INO + depth, _GONE_MODE, 2, 0, 0, 0, 0, 0, 0, 0, 0)

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        if not self._is_file(self._step(directory, name)):
            raise IsADirectory
        opened: Any = await self._live.open_file(self.folder, self._name, ino, writable=writable)
        return opened[0], opened[1]

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        depth = self._step(directory, name)
        if self._is_file(depth):
            return await self._live.get_xattr(self.folder, self._name, ino, attribute)
        async with self._live_directory(depth) as live:
            if live is not None:
                return await self._live.get_xattr(live, b"", 0, attribute)
        raise NoAttribute

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        depth = self._step(directory, name)
        if self._is_file(depth):
            return await self._live.list_xattrs(self.folder, self._name, ino)
        async with self._live_directory(depth) as live:
            return [] if live is None else await self._live.list_xattrs(live, b"", 0)
