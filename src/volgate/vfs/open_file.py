"""What an open(2) and an opendir(3) of a user hold."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendFile
    from volgate.dto import FileAttributes

T = TypeVar("T")


def privileges_to_clear(mode: int) -> int:
    """Return the suid and sgid bits that a write or truncate by an ordinary user clears (write(2), inode(7)).

    The kernel would keep sgid without group execute for members of the file's group; who is one is not known here, so
    it is cleared: the safe side of a bit that means nothing since mandatory locking is gone.
    """
    return mode & (stat.S_ISUID | stat.S_ISGID)


class OpenFile:
    """One open regular file.

    Attributes:
        inode: what is open.
        file: the driver's handle.
        writable: opened for writing.
        executing: opened by execve(2); it lasts as long as the program runs.
        privileged: the opener has CAP_FSETID (taken from uid 0), so its writes keep suid and sgid.
        strip_mode: the next write has to clear suid and sgid first.
        written: content changed through this handle.
        poisoned: a write of it was given up and may still happen.
        preserved: the generation of snapshots that have the file's content as they need it.
        is_closing: nobody may use the handle any more but who does already.
    """

    __slots__ = (
        "_unused",
        "_users",
        "executing",
        "file",
        "inode",
        "is_closing",
        "poisoned",
        "preserved",
        "privileged",
        "strip_mode",
        "writable",
        "written",
    )

    def __init__(self, inode: Inode, file: BackendFile, *, writable: bool, privileged: bool) -> None:
        self.inode = inode
        self.file = file
        self.writable = writable
        self.privileged = privileged
        self.executing = False
        self.strip_mode = False
        self.written = False
        self.poisoned = False
        self.preserved = 0
        self.is_closing = False
        self._users = 0
        self._unused: trio.Event | None = None

    async def use(self, call: Callable[[BackendFile], Awaitable[T]]) -> T:
        """Run a call of somebody who has not opened it: it is not closed before that returns."""
        self._users += 1
        try:
            return await call(self.file)
        finally:
            self._users -= 1
            if self._unused is not None and not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Close the handle once nobody else uses it. Raises what the driver's close does."""
        self.is_closing = True
        while self._users:
            self._unused = trio.Event()
            await self._unused.wait()
        await self.file.close()


class OpenDirectory:
    """One open directory: a listing taken at its start, so that a cursor means the same entry until it is rewound.

    Attributes:
        inode: the directory.
        names: the listing, None before the first read.
        ahead: entries fetched but not yet taken, by position. changes: of the directory's names when they were.
    """

    __slots__ = ("ahead", "changes", "inode", "names")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.names: list[bytes] | None = None
        self.ahead: dict[int, FileAttributes | None] = {}
        self.changes = 0
