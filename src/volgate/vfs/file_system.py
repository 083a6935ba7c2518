"""A mounted volume without its kernel: the vfs classes, composed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from volgate.core.inode_table import FIRST_SHOWN_INO
from volgate.core.names import SNAPSHOTS_NAME
from volgate.dto import StorageOperationError
from volgate.errors import StorageException, errno_map
from volgate.vfs.attributes import Attributes
from volgate.vfs.directories import Directories
from volgate.vfs.file_io import FileIo
from volgate.vfs.namespace import Namespace
from volgate.vfs.tree import Tree
from volgate.vfs.turnstile import Turnstile

if TYPE_CHECKING:
    from volgate.core.id_map import IdMap
    from volgate.volume.volume import Volume


_SHOWN_S: Final = 1.0
"""How long the kernel may remember what lies in snapshots, which come and go."""


@attrs.frozen
class FileSystemStatistics:
    """How much of the volume is in use.

    Attributes:
        inodes: inodes the kernel or an open file refers to, the root included.
        lookups: references ever given to the kernel. forgets: those it gave back.
        open_files: open regular files. open_directories: open directories.
    """

    inodes: int
    lookups: int
    forgets: int
    open_files: int
    open_directories: int


class FileSystem:
    """All that a door to the kernel needs; ``namespace``, ``attributes``, ``file_io``, ``directories`` do the work.

    Args:
        volume: open; closed by whoever opened it, after ``close``.
        mount_point: where users see it.
        attr_timeout_s: how long the kernel may trust attributes, seconds >= 0; changes behind the mount are seen then.
        entry_timeout_s: likewise for names, and for names that do not exist.
        id_map: whose files are shown and made; None = everybody as stored.
        first_number: of its inodes and open files; None where it is the volume itself.

    Attributes:
        shown: the volume's snapshots, as a file system of their own; None where there can be none.
        turnstile: who changes the volume passes it.
        own_names: as ``namespace``, for the gateway's own work, which has drafts.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        mount_point: Path,
        attr_timeout_s: float,
        entry_timeout_s: float,
        id_map: IdMap | None = None,
        first_number: int | None = None,
    ) -> None:
        self.volume = volume
        self.id_map = id_map
        self.attr_timeout_s = attr_timeout_s
        self.entry_timeout_s = entry_timeout_s
        self.read_only = volume.read_only
        self.turnstile = Turnstile()
        self.tree = Tree(volume, mount_point, first_number)
        self.attributes = Attributes(self.tree)
        self.namespace = Namespace(self.tree)
        self.own_names = Namespace(self.tree, drafts=True)
        self.file_io = FileIo(self.tree, self.attributes)
        self.directories = Directories(self.tree)
        snapshots = volume.shown_snapshots()
        self.shown: FileSystem | None = None
        if snapshots is not None:
            self.shown = FileSystem(
                snapshots, mount_point=mount_point / os.fsdecode(SNAPSHOTS_NAME), attr_timeout_s=_SHOWN_S,
                entry_timeout_s=_SHOWN_S, id_map=id_map, first_number=FIRST_SHOWN_INO,
            )  # fmt: skip

    def side(self, number: int) -> FileSystem:
        """Return the file system that gave an inode, an open file or directory its number."""
        return self if number < FIRST_SHOWN_INO or self.shown is None else self.shown

    def describe(self, operation: str, ino: int, name: bytes, error: StorageException) -> StorageOperationError:
        """Return where and how an operation failed, for logs and ``status``."""
        if error.context is not None:
            return error.context
        return StorageOperationError(
            operation=operation,
            volume_id=self.volume.identity.volume_id,
            path=str(self.tree.location(ino, name).relative_path),
            backend_type=self.volume.backend.backend_type,
            error_message=str(error),
            error_code=errno_map.errno_name(errno_map.to_errno(error)),
        )

    def statistics(self) -> FileSystemStatistics:
        """Return how much is in use."""
        table = self.tree.inodes
        return FileSystemStatistics(
            len(table), table.lookups, table.forgets, len(self.tree.files), len(self.tree.directories)
        )

    async def close(self) -> None:
        """Close what the kernel left open: it is gone, so nobody can."""
        if self.shown is not None:
            await self.shown.close()
        for fh in list(self.tree.files.numbers()):
            await self.tree.release(fh)
        for fh in list(self.tree.directories.numbers()):
            self.directories.release(fh)
