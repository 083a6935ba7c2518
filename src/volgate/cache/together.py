"""Requests that are made at once, of which one that fails ends the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from volgate.errors import StorageException


async def together(*calls: Callable[[], Awaitable[object]], limit: int | None = None) -> None:
    """Run calls at once, ``limit`` of them at a time; what the first that fails raises is raised as it is."""
    failed: list[StorageException] = []
    limiter = trio.CapacityLimiter(float("inf") if limit is None else limit)

    async def run(call: Callable[[], Awaitable[object]]) -> None:
        try:
            async with limiter:
                await call()
        except StorageException as error:
            failed.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(run, call)
    if failed:
        raise failed[0]
