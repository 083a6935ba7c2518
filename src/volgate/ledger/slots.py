"""The settled usage and the open slots of a volume, in memory that outlives the process.

A file on tmpfs, mapped. It is exact against kill -9 at any instruction: a change is prepared where nobody looks and
becomes true by one store of one aligned 64-bit word, which the processor does not tear. (``struct.pack_into`` with an
explicit byte order writes byte by byte, hence the word views.) A power cut loses the file; then the volume is counted.
Where the runtime folder is on a disk, the file outlives the boot that wrote it, maybe in part: its boot id tells.

Layout, in native 64-bit words:
    head, 4096 bytes: 0 magic, 1 format version, 2 epoch, 3-4 uuid, 5 selector, 6 overflow,
        8-9 boot id, from 16 on and from 32 on the two copies of {settled bytes, settled inodes, slot, the slot's state}
    slots, 512 bytes each: 0 state, 1 charged bytes, 2 charged inodes, 3 length of key (-1: none), 4.. key
The selected copy is a redo record: whoever recovers first gives its slot the state it names.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from volgate.dto import Usage
from volgate.errors import Unsupported

FORMAT_VERSION: Final = 2
SLOTS: Final = 4096
SLOT_BYTES: Final = 512
HEAD_BYTES: Final = 4096
MAX_KEY_BYTES: Final = SLOT_BYTES - 32
_MAGIC: Final = 0x65746167_6C6F76
_SLOT_WORDS: Final = SLOT_BYTES // 8
_HEAD_WORDS: Final = HEAD_BYTES // 8
_EPOCH, _UUID, _SELECTOR, _OVERFLOW, _BOOT = 2, 3, 5, 6, 8
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_COPIES: Final = (16, 32)
_FREE, _OPEN = 0, 1
_NO_SLOT: Final = -1


class SlotFile:
    """The file, mapped. All calls touch memory only and take about two microseconds.

    Args:
        path: on tmpfs; made with mode 0600 where it is missing.
    """

    def __init__(self, path: Path) -> None:
        size = HEAD_BYTES + SLOTS * SLOT_BYTES
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("q")
        self._free: list[int] = []
        self._charged: dict[int, Usage] = {}
        self._settled = [0, 0]
        self._next_overflow = SLOTS

    # -- what the last owner left -------------------------------------------------------------------------------

    def matches(self, uuid: bytes, epoch: int) -> bool:
        """Return whether the file is of this volume and epoch, and of this boot.

        Raises:
            Unsupported: a newer version wrote it.
        """
        words = self._words
        if words[0] != _MAGIC:
            return False
        if words[1] > FORMAT_VERSION:
            raise Unsupported(
                f"the ledger's slots have format {words[1]}, this version knows {FORMAT_VERSION}: upgrade"
            )
        ours = bytes(self._bytes[8 * _UUID : 8 * _UUID + 16]) == uuid and words[_EPOCH] == epoch
        return ours and bytes(self._bytes[8 * _BOOT : 8 * _BOOT + 16]) == _boot_id()

    def overflowed(self) -> bool:
        """Return whether more inodes were changing than there are slots, so that only counting helps."""
        return self._words[_OVERFLOW] != 0

    def load(self) -> tuple[Usage, list[tuple[bytes | None, Usage]]]:
        """Return the settled usage and the open slots as (key, charged). Changes nothing but what the redo asks."""
        words = self._words
        copy = _COPIES[words[_SELECTOR] & 1]
        if words[copy + 2] != _NO_SLOT:
            words[_HEAD_WORDS + words[copy + 2] * _SLOT_WORDS] = words[copy + 3]
        found: list[tuple[bytes | None, Usage]] = []
        for slot in range(SLOTS):
            at = _HEAD_WORDS + slot * _SLOT_WORDS
            if words[at] == _OPEN:
                length, start = words[at + 3], 8 * (at + 4)
                key = None if length < 0 else bytes(self._bytes[start : start + length])
                found.append((key, Usage(words[at + 1], words[at + 2])))
        return Usage(words[copy], words[copy + 1]), found

    # -- this owner's epoch -------------------------------------------------------------------------------------

    def begin(self, uuid: bytes, epoch: int, usage: Usage) -> None:
        """Start anew with a settled usage and no open slots."""
        words = self._words
        words[0] = 0
        for slot in range(SLOTS):
            if words[_HEAD_WORDS + slot * _SLOT_WORDS]:
                words[_HEAD_WORDS + slot * _SLOT_WORDS] = _FREE
        words[_OVERFLOW] = words[_SELECTOR] = 0
        self._bytes[8 * _UUID : 8 * _UUID + 16] = uuid
        self._bytes[8 * _BOOT : 8 * _BOOT + 16] = _boot_id()
        words[_EPOCH] = epoch
        self._settled = [usage.bytes_, usage.inodes]
        self._commit(_NO_SLOT, _FREE)
        words[1] = FORMAT_VERSION
        words[0] = _MAGIC
        self._free = list(range(SLOTS - 1, -1, -1))
        self._charged.clear()

    def settled(self) -> Usage:
        """Return the settled usage."""
        return Usage(self._settled[0], self._settled[1])

    def open_slot(self, key: bytes | None, charged: Usage) -> int:
        """See QuotaLedger. Where no slot is free, a number beyond them is returned and a crash means a recount."""
        words = self._words
        if not self._free or (key is not None and len(key) > MAX_KEY_BYTES):
            slot, self._next_overflow = self._next_overflow, self._next_overflow + 1
            words[_OVERFLOW] += 1
        else:
            slot = self._free.pop()
            at = _HEAD_WORDS + slot * _SLOT_WORDS
            words[at + 1] = charged.bytes_
            words[at + 2] = charged.inodes
            if key is None:
                words[at + 3] = -1
            else:
                words[at + 3] = len(key)
                start = 8 * (at + 4)
                self._bytes[start : start + len(key)] = key
            words[at] = _OPEN  # true by itself: settled usage does not change when a slot opens
        self._charged[slot] = charged
        return slot

    def close_slot(self, slot: int, counted: Usage) -> None:
        """See QuotaLedger."""
        charged = self._charged.pop(slot)
        self._settled[0] += counted.bytes_ - charged.bytes_
        self._settled[1] += counted.inodes - charged.inodes
        if slot >= SLOTS:
            self._commit(_NO_SLOT, _FREE)
            self._words[_OVERFLOW] -= 1
            return
        copy = self._commit(slot, _FREE)
        self._words[_HEAD_WORDS + slot * _SLOT_WORDS] = _FREE
        self._words[copy + 2] = _NO_SLOT  # redone: the slot may be opened again without a new record
        self._free.append(slot)

    def _commit(self, slot: int, state: int) -> int:
        """Make the settled usage and a slot's state true at once; returns where the record lies."""
        words = self._words
        selector = words[_SELECTOR] ^ 1
        copy = _COPIES[selector]
        words[copy] = self._settled[0]
        words[copy + 1] = self._settled[1]
        words[copy + 2] = slot
        words[copy + 3] = state
        words[_SELECTOR] = selector
        return copy

    def close(self) -> None:
        """Unmap; the file stays."""
        self._words.release()
        self._bytes.release()
        self._map.close()


def _boot_id() -> bytes:
    """Return 16 bytes that are others after every start of the host (random(4))."""
    return bytes.fromhex(Path(_BOOT_ID).read_text().strip().replace("-", ""))
