"""Open-file numbers: a 64-bit counter, never an fd and never used twice, so that a stale number hits nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NewType, TypeVar

Fh = NewType("Fh", int)
T = TypeVar("T")


class HandleTable(Generic[T]):
    """Open things by number. Pure; steps of one event loop.

    Args:
        first: the first number that is given.
    """

    def __init__(self, first: int = 1) -> None:
        self._open: dict[int, T] = {}
        self._next = first

    def __len__(self) -> int:
        return len(self._open)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers that are open."""
        yield from self._open

    def add(self, opened: T) -> Fh:
        """Return a number that was never given before."""
        fh = Fh(self._next)
        self._next += 1
        self._open[fh] = opened
        return fh

    def get(self, fh: int) -> T | None:
        """Return what was opened under a number, None if it is closed or never was."""
        return self._open.get(fh)

    def remove(self, fh: int) -> T | None:
        """Forget a number and return what it meant."""
        return self._open.pop(fh, None)
