"""What keeps changes apart that the kernel, or the gateway's own work, has under way at once.

Needed only where a driver's calls take turns of the event loop: with ``Capabilities.inline_io`` a change is one step.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode


class NamesHeld:
    """See ``Tree.names_held``. Nothing inside may hold names itself: it would wait for ever."""

    __slots__ = ("_change", "_directories", "_held", "_locked")

    def __init__(self, directories: tuple[Inode, ...], *, locked: bool, change: bool) -> None:
        self._directories = directories
        self._locked = locked
        self._change = change
        self._held: list[trio.Lock] = []

    async def __aenter__(self) -> None:
        if not self._locked:
            return
        try:
            for directory in sorted(set(self._directories), key=lambda directory: directory.ino):
                lock = directory.names_lock = cast("trio.Lock | None", directory.names_lock) or trio.Lock()
                await _acquire(lock)
                self._held.append(lock)
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *error: object) -> None:
        """Let others go on; never a checkpoint."""
        if self._change:
            for directory in self._directories:
                directory.changes += 1
        self._release()

    def _release(self) -> None:
        for lock in self._held:
            lock.release()


class LinkLocks:
    """Over the links of inodes, by the storage's numbers: who counts them acts on that before they change."""

    def __init__(self) -> None:
        self._locks: dict[int, trio.Lock] = {}

    @contextlib.asynccontextmanager
    async def held(self, backing_ino: int) -> AsyncIterator[None]:
        """See ``Tree.links_held``."""
        lock = self._locks.setdefault(backing_ino, trio.Lock())
        await _acquire(lock)
        try:
            yield
        finally:
            lock.release()
            if not lock.locked():  # else it is the next one's already
                del self._locks[backing_ino]


class SizeLock:
    """Over the size of one inode: writes run together, what cuts it or sets its size runs alone, in turn."""

    __slots__ = ("_door", "_unused", "_writes")

    def __init__(self) -> None:
        self._door = trio.Lock()
        self._writes = 0
        self._unused: trio.Event | None = None

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Run a write. No checkpoint, where nobody runs alone."""
        await _acquire(self._door)
        self._door.release()
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1
            if self._unused is not None and not self._writes:
                self._unused.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run what no write and no other such change may come beside."""
        await _acquire(self._door)
        try:
            if self._writes:
                self._unused = trio.Event()
                await self._unused.wait()
            yield
        finally:
            self._unused = None
            self._door.release()


async def _acquire(lock: trio.Lock) -> None:
    """Without a checkpoint, where nobody else has it."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
