"""Counting a bucket: listings, several at once where there are directories to share them out by."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from volgate.cache.nodes import ASIDE_PREFIX
from volgate.core.names import why_not_shown
from volgate.core.object_usage import ObjectUsage
from volgate.drivers.object_store import IDENTITY_KEY
from volgate.dto import Usage
from volgate.errors import StorageException

if TYPE_CHECKING:
    from volgate.drivers.object_store import ListPage, ObjectStore

_PARALLEL: Final = 8
_MAX_LEVELS: Final = 3


async def count_objects(
    store: ObjectStore,
    passed_over: Mapping[str, Usage],
    on_progress: Callable[[Usage], None],
    on_volume: Callable[[str], None] = lambda prefix: None,
) -> Usage:
    """Return what all objects count, but for some keys; those may grow more while this runs.

    Args:
        passed_over: keys that others account for; one that counts nothing is leaving, or new. The directories above
            the others are there though the bucket may not show them yet, and those above the leaving may be shown
            though they are not.
        on_progress: called with what was counted so far.
        on_volume: called with each prefix below that is a volume of its own.

    Blocks for the store: a request for each 1000 objects. Raises what the store raises.
    """
    counted_there = {key for key, usage in passed_over.items() if usage.inodes and not key.startswith(ASIDE_PREFIX)}
    above = dict.fromkeys(_above(counted_there) - counted_there, Usage(0, 1))
    doubtful = _above(passed_over.keys() - counted_there) - above.keys() - counted_there
    known = ChainMap(above, passed_over)  # type: ignore[arg-type]  # it is only read
    counted = [0, len(above)]
    failed: list[StorageException] = []
    limiter = trio.CapacityLimiter(_PARALLEL)

    def look_for_volumes(page: ListPage) -> None:
        for listed in page.objects:
            if listed.key.endswith("/" + IDENTITY_KEY):
                on_volume(listed.key.removesuffix(IDENTITY_KEY))

    def add(usage: ObjectUsage, before: tuple[int, int]) -> tuple[int, int]:
        counted[0] += usage.bytes_ - before[0]
        counted[1] += usage.inodes - before[1]
        on_progress(Usage(max(0, counted[0]), max(0, counted[1])))
        return usage.bytes_, usage.inodes

    async def count_below(prefix: str, without: str) -> None:
        """Count all keys with a prefix, and the directories in ``without`` that they lie in."""
        try:
            async with limiter:
                usage, before, page = ObjectUsage(without, known), (0, 0), None
                while True:
                    found = await store.list_page(prefix, page=page)
                    look_for_volumes(found)
                    for listed in found.objects:
                        usage.add(listed.key, listed.size)
                    before, page = add(usage, before), found.next_page
                    if page is None:
                        return
        except StorageException as error:
            failed.append(error)
            nursery.cancel_scope.cancel()

    async def share_out(prefix: str, level: int) -> None:
        """Count a directory's own objects, and have what lies deeper counted by others."""
        usage = ObjectUsage(prefix, known)
        below: list[str] = []
        first = await store.list_page(prefix, delimiter="/")
        look_for_volumes(first)
        if first.next_page is not None or not first.prefixes or level == _MAX_LEVELS:
            nursery.start_soon(count_below, prefix, prefix)
            return
        entries = sorted([(o.key, o.size) for o in first.objects] + [(p, -1) for p in first.prefixes])
        for key, size in entries:
            if key in doubtful:
                nursery.start_soon(count_below, key, prefix)
                continue
            usage.add(key, max(0, size))
            if size < 0 and not why_not_shown(key[len(prefix) : -1]):
                below.append(key)
        add(usage, (0, 0))
        for key in below:
            if len(below) < _PARALLEL:
                await share_out(key, level + 1)
            else:
                nursery.start_soon(count_below, key, key)

    async with trio.open_nursery() as nursery:
        try:
            await share_out("", 0)
        except StorageException as error:
            failed.append(error)
            nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return Usage(counted[0], counted[1])


def _above(keys: Iterable[str]) -> set[str]:
    """Return the directories that keys lie in."""
    return {key[: at + 1] for key in keys for at, letter in enumerate(key[:-1]) if letter == "/"}
