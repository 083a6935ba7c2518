"""How far a copy is, and how fast it may go on."""

from __future__ import annotations

import time

import trio


class Progress:
    """How far a copy is. Bytes are those of regular files' content.

    Attributes:
        total_bytes, total_files: what the copy comes to, as far as is known.
        done_bytes, done_files: what is at the target. path: what is being copied.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self.total_files = 0
        self.done_bytes = 0
        self.done_files = 0
        self.path = ""
        self._began = time.monotonic()
        self._had_bytes = 0

    def begin(self, done_bytes: int, done_files: int) -> None:
        """Note what was there when this process took it up."""
        self._began = time.monotonic()
        self.done_bytes = self._had_bytes = done_bytes
        self.done_files = done_files

    def add(self, moved: int) -> None:
        """Count bytes that were moved; more than were known of are so from now on."""
        self.done_bytes += moved
        self.total_bytes = max(self.total_bytes, self.done_bytes)

    def take_back(self, done_bytes: int) -> None:
        """Count a file no more that was there: it is made anew."""
        self.done_bytes = max(0, self.done_bytes - done_bytes)
        self._had_bytes = max(0, self._had_bytes - done_bytes)
        self.done_files = max(0, self.done_files - 1)

    @property
    def bytes_per_s(self) -> float:
        """How fast it was since this process took it up."""
        return (self.done_bytes - self._had_bytes) / max(1e-3, time.monotonic() - self._began)

    @property
    def remaining_s(self) -> float | None:
        """How long the rest takes at that speed; None = nobody knows."""
        speed = self.bytes_per_s
        return max(0, self.total_bytes - self.done_bytes) / speed if speed else None


class Pacer:
    """Lets a copy go on: not while it is paused, and not faster than it may.

    Args:
        bytes_per_s: None = no limit.
    """

    def __init__(self, progress: Progress, bytes_per_s: int | None) -> None:
        self._progress = progress
        self._bytes_per_s = bytes_per_s
        self._next = trio.current_time()
        self._going = trio.Event()
        self._going.set()

    @property
    def is_paused(self) -> bool:
        """Whether it waits to be told to go on."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Hold the copy at its next piece."""
        if self._going.is_set():
            self._going = trio.Event()

    def go_on(self) -> None:
        """Let it go on."""
        self._going.set()

    async def passed(self, moved: int) -> None:
        """Count bytes that were moved, and wait as long as these take."""
        self._progress.add(moved)
        await self.wait()
        if self._bytes_per_s is not None:
            self._next = max(self._next, trio.current_time()) + moved / self._bytes_per_s
            await trio.sleep_until(self._next)

    async def wait(self) -> None:
        """Wait while it is paused."""
        if not self._going.is_set():
            await self._going.wait()
