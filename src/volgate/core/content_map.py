"""Which bytes of a file that is being changed come from where: staged locally, kept from its object, or nothing.

Pure. Ranges are half-open [start, end) in bytes. What is neither staged nor below ``base_end`` reads as zeros.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

Range = tuple[int, int]


class Origin(enum.Enum):
    """Where bytes lie."""

    STAGED = "staged"
    BASE = "base"
    ZEROS = "zeros"


class ContentMap:
    """One file's content.

    Attributes:
        size: of the file, bytes.
        base_end: bytes of the object that still count, [0, base_end); never more than ``size``.
        staged_bytes: how many bytes are staged.
    """

    __slots__ = ("_ends", "_starts", "base_end", "size", "staged_bytes")

    def __init__(self, size: int, base_end: int, staged: tuple[Range, ...] = ()) -> None:
        self.size = size
        self.base_end = min(base_end, size)
        self._starts = [start for start, _ in staged]
        self._ends = [end for _, end in staged]
        self.staged_bytes = sum(end - start for start, end in staged)

    @property
    def staged(self) -> tuple[Range, ...]:
        """The staged ranges, in order, none touching another."""
        return tuple(zip(self._starts, self._ends, strict=True))

    def write(self, start: int, end: int) -> None:
        """Note that [start, end) was staged; the file grows to ``end`` where it was shorter."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            self.staged_bytes -= sum(self._ends[i] - self._starts[i] for i in range(first, last))
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self.staged_bytes += end - start
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        """Set the size; what is cut off never comes back."""
        if size < self.size:
            kept = bisect_left(self._starts, size)
            del self._starts[kept:], self._ends[kept:]
            if kept and self._ends[-1] > size:
                self._ends[-1] = size
            self.staged_bytes = sum(self._ends) - sum(self._starts)
            self.base_end = min(self.base_end, size)
        self.size = size

    def origins(self, start: int, end: int) -> Iterator[tuple[Origin, int, int]]:
        """Yield (where, start, end) of the pieces of [start, end) in order, cut at the end of the file.

        All at once, or while nothing changes: who waits between two pieces takes a list.
        """
        end = min(end, self.size)
        at = bisect_right(self._ends, start)
        while start < end:
            staged_from = self._starts[at] if at < len(self._starts) else end
            if start >= staged_from:
                until = min(end, self._ends[at])
                yield Origin.STAGED, start, until
                at += 1
            else:
                until = min(end, staged_from)
                if start < self.base_end:
                    until = min(until, self.base_end)
                    yield Origin.BASE, start, until
                else:
                    yield Origin.ZEROS, start, until
            start = until

    def is_kept(self, start: int, end: int) -> bool:
        """Return whether all of [start, end) is the object's as it was; never of nothing, nor of what was cut off."""
        return start < end <= self.base_end and all(origin is Origin.BASE for origin, _, _ in self.origins(start, end))
