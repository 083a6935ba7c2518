"""Who changes the volume passes here, so that it can be had standing still: for a snapshot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import trio

from volgate.errors import Busy

_WAIT_S: Final = 30.0
"""How long a snapshot waits for the changes that are under way; others wait behind it meanwhile."""


class Turnstile:
    """Changes pass at the same time; ``closed`` waits for those under way, and those that come later wait for it.

    Attributes:
        opened: None while it is open, else set when it is again.
        inside: changes under way: each has entered, and will leave.
    """

    __slots__ = ("_empty", "inside", "opened")

    def __init__(self) -> None:
        self.inside = 0
        self.opened: trio.Event | None = None
        self._empty = trio.Event()

    async def enter(self) -> None:
        """Begin a change; waits while the volume has to stand still."""
        while self.opened is not None:
            await self.opened.wait()
        self.inside += 1

    def leave(self) -> None:
        """End a change."""
        self.inside -= 1
        if not self.inside and self.opened is not None:
            self._empty.set()

    @contextlib.asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Run a change that is inside."""
        await self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Run what is inside while nobody changes the volume. Raises Busy: a change is under way for too long."""
        if self.opened is not None:
            raise Busy("another snapshot is being taken")
        self.opened = opened = trio.Event()
        self._empty = trio.Event()
        try:
            if self.inside:
                with trio.move_on_after(_WAIT_S) as limit:
                    await self._empty.wait()
                if limit.cancelled_caught:
                    raise Busy(f"a change of the volume is under way for more than {_WAIT_S:g} s; try again")
            yield
        finally:
            self.opened = None
            opened.set()
