"""How an owner offers its volume: what the daemon and its routes need of a mount, or of what stands in its place."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import attrs

from volgate.daemon import checks
from volgate.fuse.session import FuseSession, SessionStatistics


@attrs.frozen
class Words:
    """What people are told of a session.

    Attributes:
        begun: that it serves, as ``mounted``. place: where, as ``on /mnt``.
        waiting: what a stop waits for. forced: that it waited no longer. ended: that it has ended.
    """

    begun: str
    place: str
    waiting: str
    forced: str
    ended: str


class Session(Protocol):
    """What a volume is served by; ``serve`` runs from ``begin`` until it is stopped.

    Attributes:
        mount_point: where users see the volume; None where they do not.
    """

    @property
    def mount_point(self) -> Path | None:
        """See Attributes."""

    @property
    def words(self) -> Words:
        """For logs and people."""

    def begin(self) -> None:
        """Let users come; they are answered once ``serve`` runs. Raises StorageException."""

    async def serve(self) -> None:
        """Serve until it ends; what users left open stays so."""

    async def wait_until_served(self) -> None:
        """Return once users are answered. After ``begin``, while ``serve`` runs."""

    def refuse_new_opens(self) -> None:
        """Let nobody begin anything from now on; what is under way goes on."""

    def is_serving(self) -> bool:
        """Return whether users still come; never waits for them."""

    async def stop(self, *, lazy: bool) -> bool:
        """End, so that ``serve`` returns; returns False where somebody uses it still, which ``lazy`` disregards."""

    def abort(self) -> None:
        """End at once, whatever is lost to users by it."""

    def holders(self) -> list[str]:
        """Return who uses it, or what keeps it, for people; may block."""

    def forget_attributes(self, backing_ino: int) -> None:
        """Ask the backend anew for an inode, by its number there."""

    async def drop_caches(self, changed: Collection[tuple[int, bytes]] = ()) -> None:
        """Ask the backend anew for what is remembered, and for these names (directory, name)."""

    def statistics(self) -> SessionStatistics:
        """Return what passed through, and what is held."""


class MountedSession(FuseSession):
    """A kernel mount as a Session."""

    @property
    def words(self) -> Words:
        """See Session."""
        return Words(
            begun="mounted",
            place=f"on {self.mount_point}",
            waiting="until nobody has files open",
            forced="detached while files are open",
            ended="unmounted",
        )

    def begin(self) -> None:
        """See Session."""
        self.mount()

    def is_serving(self) -> bool:
        """See Session: the mount stands."""
        return self.is_mounted()

    async def stop(self, *, lazy: bool) -> bool:
        """See Session."""
        return await self.unmount(lazy=lazy)

    def holders(self) -> list[str]:
        """See Session: processes with files open."""
        return checks.holders_of(self.mount_point)
