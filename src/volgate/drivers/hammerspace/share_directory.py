"""The mounted share as a directory: the posix driver, but for ``.snapshot`` at its root and ``.fsnapshot`` everywhere.

The storage shows its snapshots there. They are hidden from who lists or looks up, and opened by name instead; what lies
in one is of class ``SnapshotDirectory`` and read only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from volgate.drivers.base import BackendDirectory, BaseStorageBackend
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.posix.errors import converted_async
from volgate.drivers.posix.open_file import PosixDirectory
from volgate.dto import BackendType, FileAttributes, VolumeOperationContext
from volgate.errors import CrossDevice, IllegalName, InvalidArgument, NotFound, ReadOnly
from volgate.mount_table import list_mounts

SNAPSHOTS: Final = b".snapshot"
FILE_SNAPSHOTS: Final = b".fsnapshot"
_READS: Final = ("get_attributes", "find_attributes", "read_link", "get_xattr", "list_xattrs")
_CHANGES: Final = (
    "set_attributes",
    "create_file",
    "create_node",
    "create_symlink",
    "remove",
    "set_xattr",
    "remove_xattr",
)
_OPEN_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SnapshotDirectory(PosixDirectory):
    """A directory in a snapshot."""

    __slots__ = ()


class _ShareDirectoryBase(PosixBackend):
    backend_type: ClassVar[BackendType] = "hammerspace"

    def __init__(self, source: Path, mount_hint: str) -> None:
        super().__init__(source)
        self._mount_hint = mount_hint
        self._snapshot_devices: set[int] = set()

    async def open_volume(self, context: VolumeOperationContext) -> PosixDirectory:
        """See BaseStorageBackend. Raises NotFound where the share is not mounted: the local disk is not the share."""
        if not _is_mounted(self.source):
            raise NotFound(f"the share is not mounted at {self.source}; {self._mount_hint}")
        return await super().open_volume(context)

    @property
    def root(self) -> PosixDirectory:
        """The share's root; only while the volume is open."""
        assert self._root is not None
        return self._root

    def hides(self, directory: BackendDirectory, name: bytes) -> bool:
        """Return whether the storage has its snapshots under a name."""
        return name == FILE_SNAPSHOTS or (name == SNAPSHOTS and directory is self._root)

    def check_place(self, directory: BackendDirectory, name: bytes, *, changes: bool) -> None:
        """Refuse what would reach a snapshot by its name, or change one."""
        if changes and isinstance(directory, SnapshotDirectory):
            raise ReadOnly("a snapshot is read only")
        if self.hides(directory, name):
            raise IllegalName("the storage keeps its snapshots under that name") if changes else NotFound

    def _check(self, status: os.stat_result, ino: int) -> os.stat_result:
        try:
            return super()._check(status, ino)
        except CrossDevice:
            if status.st_dev not in self._snapshot_devices:
                raise
            return status

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> PosixDirectory:
        """See BaseStorageBackend."""
        self.check_place(parent, name, changes=False)
        opened = await super().open_directory(parent, name, ino)
        return _as_snapshot(opened) if isinstance(parent, SnapshotDirectory) else opened

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        return [name for name in await super().list_names(directory) if not self.hides(directory, name)]

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """See BaseStorageBackend."""
        return await BaseStorageBackend.get_attributes_of(self, directory, names)

    async def open_file(self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool) -> Any:
        """See BaseStorageBackend."""
        self.check_place(directory, name, changes=writable)
        return await super().open_file(directory, name, ino, writable=writable)

    async def rename(
        self, source: BackendDirectory, source_name: bytes, target: BackendDirectory, target_name: bytes, flags: int = 0
    ) -> None:
        """See BaseStorageBackend."""
        self.check_place(source, source_name, changes=True)
        self.check_place(target, target_name, changes=True)
        await super().rename(source, source_name, target, target_name, flags)

    async def link(
        self, source: BackendDirectory, source_name: bytes, ino: int, target: BackendDirectory, target_name: bytes
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        self.check_place(source, source_name, changes=True)
        self.check_place(target, target_name, changes=True)
        return await super().link(source, source_name, ino, target, target_name)

    @converted_async
    def open_snapshot(self, name: str) -> SnapshotDirectory:
        """See BaseStorageBackend; the name is a path below the share: of a snapshot of it, or of those of a file."""
        parts = os.fsencode(name).split(b"/")
        is_one = FILE_SNAPSHOTS in parts or (parts[0] == SNAPSHOTS and len(parts) == 2)
        if not is_one or any(part in (b"", b".", b"..") for part in parts):
            raise InvalidArgument(f"{name!r} is no place of a snapshot")
        fd = os.dup(self.root.fd)
        for part in parts:
            above = fd
            try:
                fd = os.open(part, _OPEN_DIRECTORY, dir_fd=above)
            finally:
                os.close(above)
        snapshot = SnapshotDirectory(fd)
        self._snapshot_devices.add(os.fstat(fd).st_dev)
        return snapshot


def _guarded(name: str, *, changes: bool) -> Callable[..., Coroutine[Any, Any, Any]]:
    plain = getattr(PosixBackend, name)

    async def call(self: _ShareDirectoryBase, directory: BackendDirectory, at: bytes, *args: Any, **kwargs: Any) -> Any:
        if name == "find_attributes" and self.hides(directory, at):
            return None
        self.check_place(directory, at, changes=changes)
        return await plain(self, directory, at, *args, **kwargs)

    call.__name__ = name
    return call


ShareDirectory: Any = type(
    "ShareDirectory",
    (_ShareDirectoryBase,),
    {
        **{name: _guarded(name, changes=False) for name in _READS},
        **{name: _guarded(name, changes=True) for name in _CHANGES},
    },
)


def _as_snapshot(opened: PosixDirectory) -> SnapshotDirectory:
    try:
        return SnapshotDirectory(os.dup(opened.fd))
    finally:
        opened.close()


def _is_mounted(path: Path) -> bool:
    """Return whether something is mounted exactly there."""
    wanted = os.path.realpath(path)
    return any(entry.mount_point == wanted for entry in list_mounts())
