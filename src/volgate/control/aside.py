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
LOOK_S: Final = 30.0
"""How long a look at storage may take."""
CHANGE_S: Final = 600.0
"""Likewise a change of what storage has: a share is made by its server, a catalogue of objects is probed."""


class Aside:
    """A bounded number of threads. A call that hangs keeps its place."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_THREADS)

    async def call(self, function: Callable[[], T], limit_s: float = LOOK_S) -> T:
        """Return what a blocking function does. Raises TimedOut: it takes too long, and goes on by itself."""
        with trio.move_on_after(limit_s):
            return await trio.to_thread.run_sync(function, limiter=self._limiter, abandon_on_cancel=True)
        raise TimedOut(f"the storage did not answer within {limit_s:g} s")

    async def run(self, function: Callable[[], Awaitable[T]], limit_s: float = LOOK_S) -> T:
        """Likewise of an asynchronous one, in a loop of its own."""
        return await self.call(lambda: trio.run(function), limit_s)
