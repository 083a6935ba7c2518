"""Counting a volume: the walk that says what its usage is when no ledger can."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from typing import Final

import trio

from volgate.core.names import GATEWAY_NAME, IDENTITY_NAME
from volgate.drivers.base import BackendDirectory, BaseStorageBackend, attributes_by_name, exists, in_batches
from volgate.dto import Usage
from volgate.errors import InvalidArgument, NotADirectory, NotFound, Stale

OnProgress = Callable[[Usage], None]
_PROGRESS_S: Final = 0.1


class _Count:
    """What was counted so far."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self.used_bytes = 0
        self.used_inodes = 0
        self.several_names: set[int] = set()
        self._on_progress = on_progress
        self._reported = time.monotonic()

    def report(self) -> None:
        now = time.monotonic()
        if self._on_progress is not None and now - self._reported >= _PROGRESS_S:
            self._reported = now
            self._on_progress(Usage(self.used_bytes, self.used_inodes))


async def count_usage(
    backend: BaseStorageBackend,
    root: BackendDirectory,
    on_progress: OnProgress | None = None,
    on_volume_within: Callable[[bytes], None] | None = None,
) -> Usage:
    """Walk a volume and return what it counts: every inode but the root once, sizes of regular files.

    Args:
        on_progress: called now and then. on_volume_within: called with the path of a directory that is a volume itself.

    Exact while nobody changes the volume; names that vanish meanwhile are passed over. Memory: one listing and one
    descriptor a level, plus the numbers of inodes with several names. Blocks for the storage; cancelled cleanly.
    """
    count = _Count(on_progress)
    waiting = [(root, b"", iter(await _subdirectories(backend, root, count, at_root=True)))]
    while waiting:
        directory, path, names = waiting[-1]
        name = next(names, None)
        if name is None:
            waiting.pop()
            if directory is not root:
                directory.close()
            continue
        try:
            child = await backend.open_directory(directory, name, 0)
        except (NotFound, NotADirectory, Stale):
            continue
        below = await _subdirectories(backend, child, count, at_root=False)
        here = path + b"/" + name if path else name
        if GATEWAY_NAME in below and on_volume_within is not None and await _is_volume(backend, child):
            on_volume_within(here)
        waiting.append((child, here, iter(below)))
    return Usage(count.used_bytes, count.used_inodes)


async def count_what_becomes_a_volume(
    backend: BaseStorageBackend, root: BackendDirectory, source: str, on_progress: OnProgress | None = None
) -> Usage:
    """Return what a directory counts. Raises InvalidArgument: a volume lies in it, whose limit it would pass."""
    within: list[bytes] = []
    usage = await count_usage(backend, root, on_progress, within.append)
    if within:
        place = f"{source.rstrip('/')}/{os.fsdecode(min(within))}"
        raise InvalidArgument(
            f"the volume in {place} lies within {source}; mount that one, move it out, or, where nobody wants it as a "
            f"volume any more, unmount it and remove {place}/.volgate"
        )
    return usage


async def _is_volume(backend: BaseStorageBackend, directory: BackendDirectory) -> bool:
    with contextlib.suppress(NotFound, NotADirectory, Stale):
        reserved = await backend.open_directory(directory, GATEWAY_NAME, 0)
        try:
            return await exists(backend, reserved, IDENTITY_NAME)
        finally:
            reserved.close()
    return False


async def _subdirectories(
    backend: BaseStorageBackend, directory: BackendDirectory, count: _Count, *, at_root: bool
) -> list[bytes]:
    """Count a directory's entries and return the names of its subdirectories."""
    names = await backend.list_names(directory)
    if at_root:
        names = [name for name in names if name != GATEWAY_NAME]
    found = []
    for batch in in_batches(names):
        for name, attributes in await attributes_by_name(backend, directory, batch):
            is_directory = stat.S_ISDIR(attributes.mode)
            if attributes.nlink > 1 and not is_directory:
                if attributes.ino in count.several_names:
                    continue
                count.several_names.add(attributes.ino)
            count.used_inodes += 1
            if is_directory:
                found.append(name)
            elif stat.S_ISREG(attributes.mode):
                count.used_bytes += attributes.size
        count.report()
        await trio.lowlevel.checkpoint()
    return found
