"""What an owner is doing beside serving files. Who wants it to end waits for some of that, and breaks the rest off.

What is not named here does not keep an owner that ends when it is idle: looks at its status, and scrapes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Final, Literal

import attrs
import trio

from volgate.control.server import Reply, Route
from volgate.errors import ShuttingDown

End = Literal["awaited", "broken off", "drained"]
"""What becomes of work when its owner has to end: it is waited for; it is broken off, since it can be done again, or
the next owner goes on with it; or it ends by itself once the storage has everything."""

_REFUSAL: Final = "the volume's owner is about to end"


@attrs.define(eq=False)
class _Work:
    name: str
    end: End
    scope: trio.CancelScope


class Activity:
    """What is under way, and since when nothing is. Used within the event loop."""

    def __init__(self) -> None:
        self._works: list[_Work] = []
        self._background: list[trio.CancelScope] = []
        self._idle_since = time.monotonic()
        self._left = trio.Event()
        self._is_ending = False

    @property
    def names(self) -> list[str]:
        """What is under way, the oldest first."""
        return [work.name for work in self._works]

    @property
    def is_awaited(self) -> bool:
        """Whether something is under way that cannot be broken off."""
        return any(work.end == "awaited" for work in self._works)

    def hold(self) -> None:
        """Count as busy at this moment. Raises ShuttingDown."""
        if self._is_ending:
            raise ShuttingDown(_REFUSAL)
        self.note()

    def note(self) -> None:
        """Have the time without work begin at this moment."""
        self._idle_since = time.monotonic()

    async def wait_until_idle(self, limit_s: float) -> None:
        """Return when nothing has been under way for so long."""
        while True:
            rest_s = self._idle_since + limit_s - time.monotonic()
            if self._works:
                await self._left.wait()
            elif rest_s > 0:
                await trio.sleep(rest_s)
            else:
                return

    def refuse(self) -> None:
        """Begin nothing new from here on, but what ends once the storage has everything."""
        self._is_ending = True

    @contextlib.contextmanager
    def under_way(self, name: str, end: End = "awaited") -> Iterator[None]:
        """Name what is inside for as long as it runs. Raises ShuttingDown: it is not begun any more, or broken off."""
        if end != "drained":
            self.hold()
        with trio.CancelScope() as scope:
            work = _Work(name, end, scope)
            self._works.append(work)
            try:
                yield
            finally:
                self._works.remove(work)
                self.note()
                self._note_end()
        if scope.cancelled_caught:
            raise ShuttingDown(f"{_REFUSAL}, and broke this off")

    async def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run what goes on until it is broken off; it names what it does by itself."""
        with trio.CancelScope() as scope:
            self._background.append(scope)
            try:
                with contextlib.suppress(ShuttingDown):
                    await work()
            finally:
                self._background.remove(scope)
                self._note_end()

    def give_up(self) -> None:
        """Wait for nothing any more: ``break_off`` takes it all."""
        for work in self._works:
            if work.end == "awaited":
                work.end = "broken off"

    async def break_off(self) -> None:
        """Begin nothing new, break off what can be, and return when that and what is awaited has ended."""
        self.refuse()
        while self._background or any(work.end != "drained" for work in self._works):
            for scope in [work.scope for work in self._works if work.end == "broken off"] + self._background:
                scope.cancel()
            await self._left.wait()

    def _note_end(self) -> None:
        self._left.set()
        self._left = trio.Event()

    def watch(
        self,
        routes: dict[tuple[str, str], Route],
        *,
        unwatched: Collection[tuple[str, str]],
        broken_off: Collection[tuple[str, str]],
        drained: Collection[tuple[str, str]],
    ) -> dict[tuple[str, str], Route]:
        """Return routes whose requests are under way here while they are answered, named by their path."""

        def watched(key: tuple[str, str], route: Route) -> Route:
            name = key[1].removeprefix("/v1/").replace("/", " ")
            end: End = "broken off" if key in broken_off else "drained" if key in drained else "awaited"

            async def answer(body: bytes) -> Reply:
                with self.under_way(name, end):
                    reply = await route(body)
                return reply

            return answer

        return {key: route if key in unwatched else watched(key, route) for key, route in routes.items()}
