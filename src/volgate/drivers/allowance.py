"""How much snapshots of a volume may keep of what the volume does not have any more: their own limit, not the volume's.

Who is about to keep something asks for room. Where there is none, snapshots that may go are deleted, one after the
other; then the change that needed the room is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set

import trio

from volgate.core.sizes import format_size
from volgate.errors import NoSpace

NeededBy = Callable[[Set[str]], bool]
"""Whether any of the snapshots with these ids needs what is about to be kept."""


async def _nothing_may_go(size: int, is_needed_by: NeededBy) -> bool:
    return False


class Allowance:
    """The allowance of one volume. Bytes are logical: a file counts its size, whatever the storage shares of it.

    Args:
        kept_bytes: returns what is kept now. serials: returns the numbers of the snapshots that there are.

    Attributes:
        limit_bytes: None = unlimited. It may lie below what is kept: then nothing more is.
        make_room: deletes a snapshot that may go, for so many bytes which others may need or not, and returns whether
            there was one.
    """

    def __init__(self, kept_bytes: Callable[[], int], serials: Callable[[], frozenset[int]]) -> None:
        self._kept_bytes = kept_bytes
        self._serials = serials
        self._promised = 0
        self._making_room = trio.Lock()
        self.limit_bytes: int | None = None
        self.make_room: Callable[[int, NeededBy], Awaitable[bool]] = _nothing_may_go
        self._refused_bytes: int | None = None
        self._refused_among = frozenset[int]()

    @property
    def is_full(self) -> bool:
        """Whether more is kept than may be, or what was refused last would be now and no snapshot was deleted since."""
        refused, serials = self._refused_bytes, self._serials()
        if serials and not self.has_room(0):
            return True
        if refused is None or not serials or not self._refused_among <= serials:
            return False  # who is refused again says so
        return not self.has_room(refused)

    @property
    def kept_bytes(self) -> int:
        """What is kept, in bytes."""
        return self._kept_bytes()

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes fit beside what is kept and being kept."""
        return self.limit_bytes is None or self.kept_bytes + self._promised + size <= self.limit_bytes

    async def make_room_for(self, size: int, is_needed_by: NeededBy) -> None:
        """Have a snapshot go where there is no room. Raises NoSpace: none may go.

        Look again afterwards whether anything is to be kept still, and whether there is room.
        """
        async with self._making_room:
            if not self.has_room(size) and not await self.make_room(size, is_needed_by):
                self._refused_bytes, self._refused_among = size, self._serials()
                raise NoSpace(f"{self.describe()}: delete some, or raise 'volgate snapshot limit'")

    def describe(self) -> str:
        """Say what is kept, and what was refused last where that would be refused now."""
        kept, limit = format_size(self.kept_bytes), format_size(self.limit_bytes)
        needed = self._refused_bytes if self.is_full else None
        return f"snapshots keep {kept} of {limit}" + (f", and {format_size(needed)} more are needed" if needed else "")

    def promise(self, size: int) -> None:
        """Count bytes while they are being kept; without an await since ``has_room``."""
        self._promised += size

    def settle(self, size: int) -> None:
        """End a promise: the bytes are kept, and counted by that, or are not."""
        self._promised -= size
