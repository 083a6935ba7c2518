"""One after another: changes of one volume that look first and act then."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio


class Turns:
    """Locks by name, made when they are needed and gone afterwards."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[trio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait until nobody else has this name's turn, and have it."""
        lock, waiting = self._locks.get(name, (trio.Lock(), 0))
        self._locks[name] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[name]
            if waiting == 1:
                del self._locks[name]
            else:
                self._locks[name] = lock, waiting - 1
