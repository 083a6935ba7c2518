"""What a volume's snapshots can do, whatever they are made of.

Called in the owner's process only. While a snapshot is taken nobody changes the volume: the caller says how that is
done (``Freeze``).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Set
from typing import Final

import attrs

from volgate.core.names import DRAFT_PREFIX, RESERVED_ROOT_NAMES
from volgate.drivers.allowance import Allowance
from volgate.drivers.base import BackendDirectory, BackendFile, BaseStorageBackend
from volgate.dto import FileAttributes, SnapshotInfo, VolumeSnapshotContext
from volgate.errors import NotFound, Stale, Unsupported

FREEZE_S: Final = 30.0
"""How long a volume may stand still for a snapshot; what takes longer is not taken."""
Freeze = Callable[[], contextlib.AbstractAsyncContextManager[None]]
"""Enter it to wait until no change is under way and let none begin; raises Busy where that takes too long."""


@attrs.frozen
class Place:
    """A tree: of a volume as it is, of a snapshot, or a part of one.

    Attributes:
        backend: whose calls work in it. root: its root directory there.
        reserved: names in its root that are not the users'.
    """

    backend: BaseStorageBackend
    root: BackendDirectory
    reserved: frozenset[bytes] = attrs.field(default=RESERVED_ROOT_NAMES, kw_only=True)

    def hides(self, directory: BackendDirectory, name: bytes) -> bool:
        """Return whether a name is the gateway's own, or the storage's."""
        if name.startswith(DRAFT_PREFIX) or name in self.backend.capabilities.magic_names:
            return True
        return directory is self.root and name in self.reserved


@attrs.frozen
class SnapshotRoot(Place):
    """A snapshot that is open for reading; what changes raises ReadOnly.

    Attributes:
        number: unique among all snapshots ever opened by this process.
        path: of the one file that it holds; b"" = it holds all of the volume.
    """

    number: int
    path: bytes = b""


class Snapshots(ABC):
    """All snapshots of one volume.

    Attributes:
        generation: another number whenever what has to be preserved before a change is no longer the same; 0 = nothing.
    """

    generation: int = 0

    @property
    def allowance(self) -> Allowance | None:
        """How much they may keep; None where the storage keeps what it likes."""
        return None

    @abstractmethod
    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """Take a snapshot: what was acknowledged before is in it, and nothing that begins later; whole or not at all.

        Durable after return.

        Raises:
            AlreadyExists: the id is taken. Busy: it would stand still for longer than ``FREEZE_S``.
            NotFound, InvalidArgument: there is no file of the path, or the storage cannot be told of it.
            Unsupported: this volume cannot have snapshots, or not of a file alone; says why.
        """

    @abstractmethod
    async def list_all(self) -> list[SnapshotInfo]:
        """Return all snapshots, the oldest first."""

    @abstractmethod
    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot. Raises NotFound; who reads in it gets Stale, or goes on with what it has open."""

    @abstractmethod
    async def open(self, snapshot_id: str) -> SnapshotRoot:
        """Return a snapshot's root for reading; the same one at each call. Raises NotFound."""

    @contextlib.asynccontextmanager
    async def held(self, snapshot_id: str) -> AsyncIterator[SnapshotRoot]:
        """Give a snapshot's root. What was read of it counts only if this ends without an error.

        Raises NotFound, Stale: others removed or replaced it meanwhile. A storage may show one that is gone as empty.
        """
        root = await self.open(snapshot_id)
        yield root
        if await self.open(snapshot_id) is not root:
            raise Stale(f"others replaced the snapshot {snapshot_id} while it was read; try again")

    def changed_since(self, snapshot_id: str, later_id: str | None) -> Mapping[int, bytes | None]:
        """Return which inodes of a snapshot are known to have changed since, up to a later one or to now.

        Each with its ``key_of_node``: a number may be another inode's by now. Raises NotFound.
        """
        return {}

    async def measure_kept(self, snapshot_ids: Set[str]) -> int:
        """Return how many bytes would be kept if there were no snapshots but these."""
        raise Unsupported

    async def get(self, snapshot_id: str) -> SnapshotInfo:
        """Return what is known of a snapshot. Raises NotFound."""
        for info in await self.list_all():
            if info.snapshot_id == snapshot_id:
                return info
        raise NotFound(f"there is no snapshot {snapshot_id}")

    async def before_change(self, ino: int, file: BackendFile) -> None:  # noqa: B027 - nothing is to be kept
        """Keep a file's content for the snapshots that have it, before it changes. Blocks for the storage.

        Args:
            ino: the backend's number. file: open, readable; it goes on having the content.
        """

    async def before_removal(  # noqa: B027 - nothing is to be kept
        self, directory: BackendDirectory, name: bytes, attributes: FileAttributes, file: BackendFile | None
    ) -> None:
        """Keep an inode for the snapshots that have it, before its last name goes.

        Args:
            file: open, where somebody has it open and may go on writing into it.
        """

    def links_of(self, ino: int) -> int:
        """Return how many of an inode's names are no user's: the backend counts them in ``nlink``."""
        return 0

    async def after_failed_removal(self, ino: int) -> None:  # noqa: B027 - nothing was kept
        """Forget what ``before_removal`` did: the name stands there still."""

    async def close(self) -> None:  # noqa: B027 - nothing is held
        """Give back what is held."""


class NoSnapshots(Snapshots):
    """A volume that cannot have any.

    Args:
        reason: why, for people.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """See Snapshots."""
        raise Unsupported(self.reason)

    async def list_all(self) -> list[SnapshotInfo]:
        """See Snapshots."""
        return []

    async def delete(self, snapshot_id: str) -> None:
        """See Snapshots."""
        raise Unsupported(self.reason)

    async def open(self, snapshot_id: str) -> SnapshotRoot:
        """See Snapshots."""
        raise Unsupported(self.reason)
