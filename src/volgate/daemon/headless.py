"""An owner without a mount: nobody sees files, and all that is done to the volume comes over the daemon's socket."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import trio

from volgate.daemon.activity import Activity
from volgate.daemon.session import Words
from volgate.fuse.session import SessionStatistics
from volgate.vfs.file_system import FileSystem

_WORDS: Final = Words(
    begun="serving",
    place="without a mount",
    waiting="until what is under way is done",
    forced="ended what was under way",
    ended="given up",
)


class HeadlessSession:
    """A Session that offers nothing; what it waits for at its end are requests of the socket.

    Args:
        file_system: what the owner itself works on.
        activity: what is under way.
    """

    mount_point = None
    words = _WORDS

    def __init__(self, file_system: FileSystem, activity: Activity) -> None:
        self._file_system = file_system
        self._activity = activity
        self._stopped = trio.Event()

    def begin(self) -> None:
        """See Session."""

    async def serve(self) -> None:
        """See Session."""
        await self._stopped.wait()

    async def wait_until_served(self) -> None:
        """See Session."""

    def refuse_new_opens(self) -> None:
        """See Session."""
        self._activity.refuse()

    def is_serving(self) -> bool:
        """See Session."""
        return not self._stopped.is_set()

    async def stop(self, *, lazy: bool) -> bool:
        """See Session."""
        if self._activity.is_awaited and not lazy:
            return False
        self._activity.give_up()
        self.abort()
        return True

    def abort(self) -> None:
        """See Session."""
        self._stopped.set()

    def holders(self) -> list[str]:
        """See Session: requests under way."""
        return self._activity.names

    def forget_attributes(self, backing_ino: int) -> None:
        """See Session: nobody remembers any."""

    async def drop_caches(self, changed: Collection[tuple[int, bytes]] = ()) -> None:
        """See Session: nobody remembers anything."""

    def statistics(self) -> SessionStatistics:
        """See Session: nothing passed through; what a restore has open is held."""
        used = self._file_system.statistics()
        return SessionStatistics(
            requests={}, errors={}, in_flight=0, waiting=0, oldest_request_s=0.0, read_bytes=0, written_bytes=0,
            lookups=used.lookups, forgets=used.forgets, inodes=used.inodes, open_files=used.open_files,
            recent_errors=(),
        )  # fmt: skip
