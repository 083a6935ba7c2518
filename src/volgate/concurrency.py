"""How long a request may stand still, and the bounded threads in which calls wait that may block.

A deadline measures progress, not age: it begins anew with every call of the request that gets its thread, and while the
request waits for one it begins anew whenever another call returns. So many requests to slow storage all get their turn,
and one whose call hangs is given up, whatever the others do.

Imports nothing of ours. The door to the kernel sets the deadline; drivers whose calls can hang renew it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")
_TURN_S: Final = 0.002


class _Deadline:
    __slots__ = ("_limit_s", "scope")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.scope = trio.CancelScope(deadline=trio.current_time() + limit_s)

    def renew(self) -> None:
        self.scope.deadline = trio.current_time() + self._limit_s


_DEADLINE: Final[ContextVar[_Deadline | None]] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def give_up_at_standstill(limit_s: float) -> Iterator[None]:
    """Cancel what is inside when it has not moved for ``limit_s`` seconds; then go on behind it, as move_on_after."""
    deadline = _Deadline(limit_s)
    token = _DEADLINE.set(deadline)
    try:
        with deadline.scope:
            yield
    finally:
        _DEADLINE.reset(token)


def note_progress() -> None:
    """Begin the deadline of the request that this runs for anew: something of it was done."""
    deadline = _DEADLINE.get()
    if deadline is not None:
        deadline.renew()


class _Turns:
    last = 0.0


async def give_turn() -> None:
    """Let other tasks run, unless they did within the last milliseconds; to be called often by what never waits.

    A turn of the scheduler costs some 20 microseconds (own measurement), as much as a small file's system calls.
    """
    if time.monotonic() - _Turns.last > _TURN_S:
        await trio.lowlevel.checkpoint()
        _Turns.last = time.monotonic()
    else:
        await trio.lowlevel.checkpoint_if_cancelled()


class BoundedThreads:
    """At most so many calls at once, each in a thread of its own. It is a limiter as ``trio.to_thread`` wants one.

    A call that was given up keeps its place until it returns.

    Args:
        total: how many, >= 1.
    """

    def __init__(self, total: int) -> None:
        self._limiter = trio.CapacityLimiter(total)
        self._waiting: set[_Deadline] = set()
        self._began: dict[object, float] = {}

    @property
    def in_use(self) -> int:
        """How many calls have not returned, given up or not."""
        return self._limiter.borrowed_tokens

    @property
    def oldest_call_s(self) -> float:
        """Age of the oldest call that has not returned, given up or not, in seconds; 0.0 where there is none."""
        return trio.current_time() - next(iter(self._began.values())) if self._began else 0.0

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in a thread and return its result; cancelled, it goes on by itself."""
        limiter: Any = self
        return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a place. Called by trio."""
        deadline = _DEADLINE.get()
        if deadline is None:
            await self._limiter.acquire_on_behalf_of(borrower)
        else:
            self._waiting.add(deadline)
            try:
                await self._limiter.acquire_on_behalf_of(borrower)
            finally:
                self._waiting.discard(deadline)
            deadline.renew()
        self._began[borrower] = trio.current_time()

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give a place back: the call has returned. Called by trio."""
        del self._began[borrower]
        self._limiter.release_on_behalf_of(borrower)
        for deadline in self._waiting:
            deadline.renew()
