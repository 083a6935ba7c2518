"""Work that may block, kept off the event loop: files and databases of our own, storage, daemons asked by ``client``.

What opens storage runs in an event loop of its own, in the thread: a driver may call the storage where it stands, and
storage may hang.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from volgate.errors import TimedOut

T = TypeVar("T")
_THREADS: Final = 32
_STORAGE_THREADS: Final = 16
LOOK_S: Final = 30.0
"""How long a look at storage may take."""
CHANGE_S: Final = 120.0
"""Likewise a change of what storage has: a server makes a share, a bucket is probed."""


class Aside:
    """Bounded numbers of threads. A call that hangs keeps its place; storage that hangs takes none of the others."""

    def __init__(self) -> None:
        self._own = trio.CapacityLimiter(_THREADS)
        self._storage = trio.CapacityLimiter(_STORAGE_THREADS)

    async def call(self, function: Callable[[], T], limit_s: float = LOOK_S) -> T:
        """Return what a function does that blocks on what is this host's own.

        Raises:
            TimedOut: it takes too long, and goes on by itself.
        """
        return await _within(limit_s, function, self._own)

    async def run(self, function: Callable[[], Awaitable[T]], limit_s: float = LOOK_S) -> T:
        """Likewise of an asynchronous one that opens storage, in a loop of its own."""
        return await _within(limit_s, lambda: trio.run(function), self._storage)


async def _within(limit_s: float, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    with trio.move_on_after(limit_s):
        return await trio.to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
    raise TimedOut(f"it was not done within {limit_s:g} s, and may go on; look at it later")
