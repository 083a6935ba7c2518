"""Content of objects: from memory, from the local disk, else in ranges from the bucket, ahead of who reads on.

All ranges are of one version: the bucket is asked with the etag, so nobody reads a mixture. A read at a random place
asks for the blocks it touches; one that goes on where the last ended is followed by a window that doubles as long as it
does, fetched in parallel. What was fetched lies in memory until it is pushed out, and in the block store.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from volgate.cache.block_store import BLOCK_BYTES
from volgate.errors import InputOutput, NotFound, Stale, StorageException

if TYPE_CHECKING:
    from volgate.cache.block_store import BlockStore
    from volgate.core.object_version import ObjectVersion
    from volgate.drivers.object_store import ObjectReader

_FIRST_BYTES: Final = 1 << 20
_MAX_WINDOW_BYTES: Final = 32 << 20
_MAX_FETCH_BYTES: Final = 2 << 20
"""Of 4 MiB, the runtime spends twice the CPU on a byte (measured)."""
_MEMORY_BYTES: Final = 64 << 20
_PARALLEL: Final = 8
"""More at once overrun the queue of a line with 20 ms of round trip: 75-87 MB/s in place of 100-105 (measured)."""
_DISORDER_BYTES: Final = 1 << 20
"""How far from where the last one ended a read may begin and yet go on: the kernel reads ahead several at once."""


class Stream:
    """How one open file is being read. Attributes: expected: where it goes on; window: bytes to fetch ahead."""

    __slots__ = ("expected", "fetched_to", "window")

    def __init__(self) -> None:
        self.expected = 0
        self.window = 0
        self.fetched_to = 0

    def advance(self, start: int, end: int) -> bool:
        """Note a read; returns whether it goes on from the one before."""
        goes_on = abs(start - self.expected) <= _DISORDER_BYTES
        if not goes_on:
            self.expected, self.window, self.fetched_to = end, 0, end
        else:
            self.expected = max(self.expected, end)
        return goes_on

    def widen(self) -> int:
        """Return the end up to which to fetch ahead: where that was until half of it is read, then twice as far."""
        if self.fetched_to - self.expected > self.window // 2:
            return self.fetched_to
        self.window = min(_MAX_WINDOW_BYTES, max(_FIRST_BYTES, 2 * self.window))
        return self.expected + self.window


@attrs.frozen
class ReadingStatistics:
    """Attributes: fetches: ranges asked for. fetched_bytes: that came. memory_bytes: of them held in memory."""

    fetches: int
    fetched_bytes: int
    memory_bytes: int


class _Fetch:
    """A range that is being fetched.

    Attributes: is_begun: a task is at it; data: once it is there; error: if it failed.
    """

    __slots__ = ("data", "done", "end", "error", "is_begun", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.is_begun = False
        self.done = trio.Event()
        self.data = b""
        self.error: StorageException | None = None


class Reading:
    """See the module. Without ``run`` nothing is fetched ahead.

    Args:
        store: open. blocks: open.
        keeps_small: objects that come in one piece are kept on disk, too, which costs as much as fetching them; large
            ones always are, where they wait to be read on.
    """

    def __init__(self, store: ObjectReader, blocks: BlockStore, *, keeps_small: bool = True) -> None:
        self._store = store
        self._blocks = blocks
        self._keeps_small = keeps_small
        self._nursery: trio.Nursery | None = None
        self._ahead = trio.CapacityLimiter(_PARALLEL)
        self._writes = trio.CapacityLimiter(2)
        self._fetches: dict[tuple[str, str, int], _Fetch] = {}
        self._memory: OrderedDict[_Fetch, ObjectVersion] = OrderedDict()
        self._memory_bytes = 0
        self.fetches = 0
        self.fetched_bytes = 0

    async def run(self) -> None:
        """Fetch ahead until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def read(self, version: ObjectVersion, offset: int, length: int, stream: Stream | None = None) -> bytes:
        """Return the bytes [offset, offset + length) that exist.

        Raises:
            Stale: the object was replaced or deleted. Unavailable, InputOutput: the bucket does not give them.
        """
        end = min(offset + length, version.size)
        if offset >= end:
            return b""
        goes_on = stream is not None and stream.advance(offset, end)
        data = None
        if (version.key, version.etag, offset // BLOCK_BYTES * BLOCK_BYTES) not in self._fetches:
            data = self._blocks.read(version, offset, end - offset)
        if data is None:
            data = await self._gather(version, offset, end, ahead=goes_on)
        if goes_on and stream is not None and self._nursery is not None:
            self._fetch_ahead(version, stream)
        return data

    async def _gather(self, version: ObjectVersion, offset: int, end: int, *, ahead: bool) -> bytes:
        pieces: list[bytes] = []
        wanted = max(end, min(offset + _FIRST_BYTES, version.size)) if ahead else end
        for start in range(offset // BLOCK_BYTES * BLOCK_BYTES, wanted, BLOCK_BYTES):
            if (version.key, version.etag, start) not in self._fetches:
                self._fetch_missing(version, start, wanted)
                break
        at = offset
        while at < end:
            block = at // BLOCK_BYTES * BLOCK_BYTES
            fetch = self._fetches.get((version.key, version.etag, block))
            if fetch is None:
                cached = self._blocks.read(version, at, min(end, block + BLOCK_BYTES) - at)
                if cached is not None:
                    pieces.append(cached)
                    at += len(cached)
                    continue
                fetch = self._begin(version, block, min(version.size, block + BLOCK_BYTES))
            if not fetch.is_begun:  # nothing runs in the background: a verb that only looks
                fetch.is_begun = True
                await self._fetch(version, fetch)
            if not fetch.done.is_set():
                await fetch.done.wait()
            if fetch.error is not None:
                raise fetch.error
            piece = fetch.data[at - fetch.start : end - fetch.start]
            if not piece:
                raise InputOutput(f"{version.key} ends before its size")
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fetch_ahead(self, version: ObjectVersion, stream: Stream) -> None:
        until = min(version.size, stream.widen())
        start = max(stream.fetched_to, stream.expected) // BLOCK_BYTES * BLOCK_BYTES
        unit = max(_FIRST_BYTES, min(_MAX_FETCH_BYTES, stream.window // 4))
        while start < until:
            stop = min(start + unit, version.size)
            self._fetch_missing(version, start, stop)
            start = stop
        stream.fetched_to = max(stream.fetched_to, start)

    def _fetch_missing(self, version: ObjectVersion, start: int, end: int) -> None:
        """Begin to fetch what of [start, end) is neither in memory, nor on disk, nor on its way."""
        for first, last in self._blocks.missing(version, start, end):
            begun = first
            for block in range(first, last, BLOCK_BYTES):
                if (version.key, version.etag, block) in self._fetches:
                    if begun < block:
                        self._begin(version, begun, block)
                    begun = block + BLOCK_BYTES
            if begun < last:
                self._begin(version, begun, last)

    def _begin(self, version: ObjectVersion, start: int, end: int) -> _Fetch:
        fetch = _Fetch(start, end)
        for block in range(start, end, BLOCK_BYTES):
            self._fetches[version.key, version.etag, block] = fetch
        if self._nursery is not None:
            fetch.is_begun = True
            self._nursery.start_soon(self._fetch, version, fetch)
        return fetch

    async def _fetch(self, version: ObjectVersion, fetch: _Fetch) -> None:
        try:
            async with self._ahead:
                fetch.data = await self._store.get_range(
                    version.key, fetch.start, fetch.end - fetch.start, etag=version.etag
                )
            if len(fetch.data) != fetch.end - fetch.start:
                raise InputOutput(f"{version.key}: the bucket sent less than its size")
        except StorageException as error:
            fetch.error = Stale(f"{version.key} is gone") if isinstance(error, NotFound) else error
            self._drop(version, fetch)
            return
        finally:
            fetch.done.set()
        self.fetches += 1
        self.fetched_bytes += len(fetch.data)
        self._memory[fetch] = version
        self._memory_bytes += len(fetch.data)
        if self._keeps_small or version.size > _FIRST_BYTES:
            write = partial(self._blocks.write, version, fetch.start, fetch.data)
            if len(fetch.data) <= BLOCK_BYTES:
                write()  # takes less than to have a thread do it
            else:
                await trio.to_thread.run_sync(write, limiter=self._writes)
        while self._memory_bytes > _MEMORY_BYTES:
            oldest, its_version = self._memory.popitem(last=False)
            self._memory_bytes -= len(oldest.data)
            self._drop(its_version, oldest)

    def _drop(self, version: ObjectVersion, fetch: _Fetch) -> None:
        for block in range(fetch.start, fetch.end, BLOCK_BYTES):
            if self._fetches.get((version.key, version.etag, block)) is fetch:
                del self._fetches[version.key, version.etag, block]

    def statistics(self) -> ReadingStatistics:
        """Return what was fetched."""
        return ReadingStatistics(self.fetches, self.fetched_bytes, self._memory_bytes)
