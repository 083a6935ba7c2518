"""A backend of which nothing can be changed: what snapshots are shown by."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from volgate.drivers.base import BackendDirectory, BackendFile, BackendSpace, BaseStorageBackend, NodeOwner
from volgate.dto import AttributeChanges, BackendType, FileAttributes, VolumeOperationContext
from volgate.errors import ReadOnly, Unsupported


class ReadOnlyFile(BackendFile):
    """A file that nobody writes into."""

    __slots__ = ()

    async def write(self, offset: int, data: bytes) -> NoReturn:
        """See BackendFile."""
        raise ReadOnly

    async def truncate(self, size: int) -> NoReturn:
        """See BackendFile."""
        raise ReadOnly

    async def set_attributes(self, changes: AttributeChanges) -> NoReturn:
        """See BackendFile."""
        raise ReadOnly

    async def set_xattr(self, name: bytes, value: bytes) -> NoReturn:
        """See BackendFile."""
        raise ReadOnly

    async def remove_xattr(self, name: bytes) -> NoReturn:
        """See BackendFile."""
        raise ReadOnly

    async def sync(self, *, data_only: bool) -> None:
        """See BackendFile: it is durable."""


class ReadOnlyBackend(BaseStorageBackend):
    """See the module."""

    backend_type: ClassVar[BackendType]

    async def create_volume(self, context: VolumeOperationContext) -> NoReturn:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def open_volume(self, context: VolumeOperationContext) -> BackendDirectory:
        """See BaseStorageBackend: its root is known to whoever made this."""
        raise Unsupported

    async def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """See BaseStorageBackend; without a change it only answers."""
        if changes != _NO_CHANGES:
            raise ReadOnly
        return await self.get_attributes(directory, name)

    async def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def rename(
        self,
        source: BackendDirectory,
        source_name: bytes,
        target: BackendDirectory,
        target_name: bytes,
        flags: int = 0,
    ) -> None:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def set_xattr(
        self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes
    ) -> None:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """See BaseStorageBackend."""
        raise ReadOnly

    async def get_space(self) -> BackendSpace:
        """See BaseStorageBackend: nothing is free where nothing can be written."""
        return BackendSpace(0, 0, 0, 0)


_NO_CHANGES = AttributeChanges()
