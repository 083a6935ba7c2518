"""Local files that hold what was written and is not in the bucket yet.

One sparse file for each changed file whose content is larger than ``INLINE_BYTES``, written at the offsets of the file
itself. Which ranges of it mean anything says the file's ``ContentMap``. Bounded: who writes faster than the bucket
takes waits, and gets NoSpace where nothing moves for a while. That is before anything was acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Set
from pathlib import Path
from typing import Final

import trio

from volgate.cache.block_store import BlockStore
from volgate.concurrency import note_progress
from volgate.core.sizes import format_size
from volgate.errors import NoSpace
from volgate.errors.errno_map import from_oserror

INLINE_BYTES: Final = 64 << 10
"""Contents up to this size are kept in memory and lie in the journal itself."""
_WAIT_S: Final = 30.0
"""How long a writer waits while no staged byte is given back."""
_LATE_SPACE_S: Final = 5.0
"""Likewise where nothing is staged: file systems free what was deleted late."""
_RETIRED: Final = ".old"


class StagedFile:
    """One staging file, open.

    Attributes:
        name: within the folder.
        is_synced: all of it is on the disk.
        staged_bytes: what it counts in ``Staging.used_bytes``.
    """

    __slots__ = ("_fd", "_is_closed", "_syncs", "is_synced", "name", "staged_bytes")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._is_closed = False
        self._syncs = 0
        self.is_synced = True
        self.staged_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; those that were never written are zeros. Blocks for the local disk."""
        data = _pread(self._fd, length, offset)
        return data if len(data) == length else data + bytes(length - len(data))

    def write(self, offset: int, data: bytes) -> None:
        """Write all of data. Blocks for the local disk. Raises NoSpace, InputOutput."""
        self.is_synced = False
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise from_oserror(error) from error

    async def sync(self) -> None:
        """Make what was written until now durable, unless it is removed. Raises InputOutput: it may be lost."""
        if self.is_synced or self._fd < 0:
            return
        self.is_synced = True  # a write meanwhile makes it False again
        self._syncs += 1
        try:
            await trio.to_thread.run_sync(os.fdatasync, self._fd)
        except OSError as error:
            self.is_synced = False
            raise from_oserror(error) from error
        finally:
            self._syncs -= 1
            self._close_unused()

    def close(self) -> None:
        """Give the descriptor back, once no sync uses it any more; a second close does nothing."""
        self._is_closed = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._is_closed and not self._syncs and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Staging:
    """The folder of staging files.

    Args:
        directory: of this staging alone. max_bytes: see below.
        blocks: the clean content on the same disk, which gives way.

    Attributes:
        used_bytes: staged now. max_bytes: the most there may be.
    """

    def __init__(self, directory: Path, blocks: BlockStore, *, max_bytes: int) -> None:
        self._directory = directory
        self._blocks = blocks
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._given_back = trio.Event()

    def open(self) -> None:
        """Make the folder where there is none."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take_orphans(self, used: Set[str], folder: Path) -> int:
        """Move the files that nobody ``used`` and nobody retired into a folder; returns how many there were."""
        orphans = 0
        for name in set(os.listdir(self._directory)) - used:
            if name.endswith(_RETIRED):
                os.unlink(self._directory / name)
                continue
            folder.mkdir(mode=0o700, exist_ok=True)
            os.rename(self._directory / name, folder / f"orphan-{name}")
            orphans += 1
        return orphans

    def create(self) -> StagedFile:
        """Return a new, empty file."""
        return self._open(secrets.token_hex(8), os.O_CREAT | os.O_EXCL)

    def reopen(self, name: str) -> StagedFile:
        """Return a file that was left by an earlier process, retired or not. Raises NotFound."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._directory / (name + _RETIRED), self._directory / name)
        return self._open(name, 0)

    def _open(self, name: str, flags: int) -> StagedFile:
        try:
            return StagedFile(name, os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC | flags, 0o600))
        except OSError as error:
            raise from_oserror(error) from error

    def retire(self, file: StagedFile) -> None:
        """Note that only a power cut, which takes the end of the journal, can make a file needed again."""
        with contextlib.suppress(OSError):  # then it is found as an orphan after a crash
            os.rename(self._directory / file.name, self._directory / (file.name + _RETIRED))
            file.name += _RETIRED

    def remove(self, file: StagedFile) -> None:
        """Close and delete a file; what it had is given back."""
        self.resize(file, 0)
        file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._directory / file.name)

    def resize(self, file: StagedFile, staged_bytes: int) -> None:
        """Note how many bytes a file has staged now."""
        delta_bytes = staged_bytes - file.staged_bytes
        file.staged_bytes = staged_bytes
        self.used_bytes += delta_bytes
        if delta_bytes < 0:
            self._given_back.set()
            self._given_back = trio.Event()

    async def wait_for_room(self, length: int) -> None:
        """Return when ``length`` bytes more may be staged; at once while there is room.

        Raises:
            NoSpace: the staging space or the disk is full, and uploads gave nothing back for half a minute, or have
                nothing to give back.
        """
        while not self._has_room(length):
            given_back = self._given_back
            with trio.move_on_after(_WAIT_S if self.used_bytes else _LATE_SPACE_S) as waited:
                await given_back.wait()
            note_progress()
            if waited.cancelled_caught and not self._has_room(length):
                free = format_size(self._blocks.min_free_bytes)
                raise NoSpace(
                    f"{self._directory}: the space for what is not uploaded yet is full, or its disk, of which {free} "
                    "are kept free"
                )

    def _has_room(self, length: int) -> bool:
        if self.used_bytes and self.used_bytes + length > self.max_bytes:
            return False
        return self._blocks.give_way(length)


def _pread(fd: int, length: int, offset: int) -> bytes:
    try:
        return os.pread(fd, length, offset)
    except OSError as error:
        raise from_oserror(error) from error
