"""``.snapshots`` as a backend: the root has a directory for each snapshot, and below it the snapshot shows itself."""

from __future__ import annotations

import stat
import time
from collections.abc import Sequence

import attrs

from volgate.core.names import RESERVED_ROOT_NAMES
from volgate.drivers.base import BackendDirectory, BackendFile, BaseStorageBackend, Capabilities
from volgate.drivers.read_only import ReadOnlyBackend, ReadOnlyFile
from volgate.dto import FileAttributes
from volgate.errors import IsADirectory, NoAttribute, NotFound, Stale, Unsupported
from volgate.volume.snapshots.base import SnapshotRoot, Snapshots

_NUMBER_SHIFT = 64
_ROOT_INO = 1
_MODE = stat.S_IFDIR | 0o555


class ShownDirectory(BackendDirectory):
    """A directory of a snapshot, or the one of all snapshots.

    Attributes:
        snapshot: None for that one. inner: the directory as the snapshot's backend has it.
    """

    __slots__ = ("inner", "snapshot")

    def __init__(self, snapshot: SnapshotRoot | None, inner: BackendDirectory | None) -> None:
        self.snapshot = snapshot
        self.inner = inner

    def close(self) -> None:
        """See BackendDirectory."""
        if self.snapshot is not None and self.inner is not None and self.inner is not self.snapshot.root:
            self.inner.close()


class ShownFile(ReadOnlyFile):
    """A file of a snapshot, whose inode has a number of this backend."""

    __slots__ = ("_inner", "_snapshot")

    def __init__(self, snapshot: SnapshotRoot, inner: BackendFile) -> None:
        self._snapshot = snapshot
        self._inner = inner

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile."""
        return await self._inner.read(offset, length)

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return _numbered(self._snapshot, await self._inner.get_attributes())

    async def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return await self._inner.get_xattr(name)

    async def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return await self._inner.list_xattrs()

    async def close(self) -> None:
        """See BackendFile."""
        await self._inner.close()


class ShownSnapshots(ReadOnlyBackend):
    """See the module. An inode's number is made of the snapshot's and of its own there.

    Args:
        live: the volume's backend.
    """

    def __init__(self, live: BaseStorageBackend, snapshots: Snapshots) -> None:
        self.backend_type = live.backend_type  # type: ignore[misc]
        self._capabilities = attrs.evolve(live.capabilities, close_reports_errors=False)
        self._snapshots = snapshots
        self._since_ns = time.time_ns()

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return self._capabilities

    @property
    def root(self) -> ShownDirectory:
        """The directory of all snapshots."""
        return ShownDirectory(None, None)

    def _of_root(self) -> FileAttributes:
        now = self._since_ns
        return FileAttributes(_ROOT_INO, _MODE, 2, 0, 0, 0, 0, 0, now, now, now)

    @staticmethod
    def _place(directory: BackendDirectory) -> tuple[SnapshotRoot, BackendDirectory]:
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None or directory.inner is None:
            raise Unsupported("only directories lie here")
        return directory.snapshot, directory.inner

    @staticmethod
    def _check_hidden(snapshot: SnapshotRoot, directory: BackendDirectory, name: bytes) -> None:
        if directory is snapshot.root and name in RESERVED_ROOT_NAMES:
            raise NotFound

    async def _open_root(self, name: bytes) -> SnapshotRoot:
        try:
            return await self._snapshots.open(name.decode("ascii"))
        except UnicodeDecodeError as error:
            raise NotFound from error

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> ShownDirectory:
        """See BaseStorageBackend."""
        assert isinstance(parent, ShownDirectory)
        if parent.snapshot is None:
            snapshot = await self._open_root(name)
            if ino and ino >> _NUMBER_SHIFT != snapshot.number:
                raise Stale
            return ShownDirectory(snapshot, snapshot.root)
        snapshot, inner = self._place(parent)
        self._check_hidden(snapshot, inner, name)
        return ShownDirectory(snapshot, await snapshot.backend.open_directory(inner, name, _own(ino)))

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            return [info.snapshot_id.encode() for info in await self._snapshots.list_all()]
        snapshot, inner = self._place(directory)
        names = await snapshot.backend.list_names(inner)
        return [name for name in names if name not in RESERVED_ROOT_NAMES] if inner is snapshot.root else names

    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            if not name:
                return self._of_root()
            snapshot = await self._open_root(name)
            return _numbered(snapshot, await snapshot.backend.get_attributes(snapshot.root, b""))
        snapshot, inner = self._place(directory)
        self._check_hidden(snapshot, inner, name)
        return _numbered(snapshot, await snapshot.backend.get_attributes(inner, name))

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            return await super().get_attributes_of(directory, names)
        snapshot, inner = self._place(directory)
        found = await snapshot.backend.get_attributes_of(inner, names)
        return [None if attributes is None else _numbered(snapshot, attributes) for attributes in found]

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            raise IsADirectory
        snapshot, inner = self._place(directory)
        self._check_hidden(snapshot, inner, name)
        file, attributes = await snapshot.backend.open_file(inner, name, _own(ino), writable=False)
        return ShownFile(snapshot, file), _numbered(snapshot, attributes)

    async def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        snapshot, inner = self._place(directory)
        return await snapshot.backend.read_link(inner, name, _own(ino))

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            raise NoAttribute
        snapshot, inner = self._place(directory)
        return await snapshot.backend.get_xattr(inner, name, _own(ino), attribute)

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        assert isinstance(directory, ShownDirectory)
        if directory.snapshot is None:
            return []
        snapshot, inner = self._place(directory)
        return await snapshot.backend.list_xattrs(inner, name, _own(ino))


def _own(ino: int) -> int:
    """Return the number that the snapshot itself has for an inode."""
    return ino & ((1 << _NUMBER_SHIFT) - 1)


def _numbered(snapshot: SnapshotRoot, found: FileAttributes) -> FileAttributes:
    return FileAttributes(
        snapshot.number << _NUMBER_SHIFT | found.ino, found.mode, found.nlink, found.uid, found.gid, found.rdev,
        found.size, found.blocks, found.atime_ns, found.mtime_ns, found.ctime_ns, found.provisional,
    )  # fmt: skip
