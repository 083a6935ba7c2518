"""A limit of bytes a second, shared by all requests of one direction."""

from __future__ import annotations

from typing import Final

import trio

from volgate.concurrency import note_progress

_SMALL_BYTES: Final = 64 << 10
_BURST_S: Final = 0.25
_LOOK_S: Final = 1.0


class Throttle:
    """Lets requests begin in the order in which they came, so that on average no more bytes move than allowed.

    A small request waits for nobody, so that names stay quick beside a large transfer; its bytes count all the same.

    Args:
        bytes_per_s: None = as many as the net takes.
    """

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = float("-inf")

    async def wait(self, length: int) -> None:
        """Return when a request that moves ``length`` bytes may begin. That counts as progress for who waits on it."""
        if self._bytes_per_s is None or not length:
            return
        begins_at = max(self._free_at, trio.current_time() - _BURST_S)
        self._free_at = begins_at + length / self._bytes_per_s
        if length <= _SMALL_BYTES:
            return
        while (pause_s := begins_at - trio.current_time()) > 0:
            await trio.sleep(min(pause_s, _LOOK_S))
            note_progress()
