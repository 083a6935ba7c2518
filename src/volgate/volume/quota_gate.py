"""The quota gate: growth is reserved before it happens and settled after (DESIGN: strict quota).

Called by the vfs from the event loop. No method but ``wait_until_counted`` awaits, so each is one atomic step; that is
why there is no lock.
No I/O but the ledger's memory. Per inode that is open for writing there is one ``InodeCharge``; it opens a ledger slot
before its first change, so that later writes cost nothing.
"""

from __future__ import annotations

from typing import Final

import trio

from volgate.dto import BackendType, StorageQuotaInfo, Usage
from volgate.errors import QuotaExceeded, TryAgain
from volgate.ledger.base import NoLedger, QuotaLedger

_NOTHING = Usage(0, 0)
_NO_SLOT = -1
_COUNTING_WAIT_S: Final = 10.0
"""How long growth waits for a count that is under way."""


class InodeCharge:
    """What one open inode is charged.

    Attributes:
        key: the driver's key of the inode for the ledger.
        size: bytes charged now; equals the file's size whenever no write is under way.
        inodes: 1, or 0 once it is unlinked and closed.
        pending: writes under way that reserved growth.
        uncertain: a change failed and the size was not measured since; ``correct`` ends that.
        abandoned: a change was given up and may still happen: what it reserved stays, whatever is measured.
    """

    __slots__ = ("abandoned", "inodes", "key", "pending", "size", "slot", "uncertain")

    def __init__(self, key: bytes | None, size: int) -> None:
        self.key = key
        self.size = size
        self.inodes = 1
        self.slot = _NO_SLOT
        self.pending = 0
        self.uncertain = False
        self.abandoned = False


class NameChange:
    """One change of a name under way.

    Attributes:
        slot: of the ledger. before: what the name's inode counted; of a create, nothing.
        reserved: what a create reserved.
    """

    __slots__ = ("before", "reserved", "slot")

    def __init__(self, slot: int, before: Usage, reserved: Usage) -> None:
        self.slot = slot
        self.before = before
        self.reserved = reserved


class QuotaGate:
    """Usage and limits of one volume; the only one who changes its usage.

    Args:
        ledger: begun; None for a read-only volume, of which nothing changes.
        usage: what the volume counts now; None = that is being counted, ``end_counting`` tells.
    """

    def __init__(
        self,
        ledger: QuotaLedger | None,
        usage: Usage | None,
        *,
        volume_id: str,
        backend_type: BackendType,
        quota_bytes: int | None,
        quota_inodes: int | None,
    ) -> None:
        self._ledger = ledger if ledger is not None else NoLedger()
        self._volume_id = volume_id
        self._backend_type = backend_type
        self.is_counting = usage is None
        self._counted = trio.Event()
        self.used_bytes = 0 if usage is None else usage.bytes_
        self.used_inodes = 0 if usage is None else usage.inodes
        self.quota_bytes = quota_bytes
        self.quota_inodes = quota_inodes
        self.denied = 0
        self.uncertain = False
        self._open_charges: set[InodeCharge] = set()

    def info(self) -> StorageQuotaInfo:
        """Return limit and usage as they are now."""
        return StorageQuotaInfo(
            self._volume_id,
            max(0, self.used_bytes),
            self.quota_bytes,
            max(0, self.used_inodes),
            self._backend_type,
            quota_inodes=self.quota_inodes,
        )

    async def wait_until_counted(self) -> None:
        """Return once the usage is known, or at once where there is no limit to hold.

        Raises:
            TryAgain: it takes longer than a program should wait. Reading, removing and shrinking work meanwhile.
        """
        if self.quota_bytes is None and self.quota_inodes is None:
            return
        with trio.move_on_after(_COUNTING_WAIT_S):
            await self._counted.wait()
            return
        raise TryAgain("the volume is being counted; until then nothing may grow")

    def end_counting(self, usage: Usage) -> None:
        """Add what the volume counted when this gate was made: what changed since is in the usage already."""
        self.used_bytes += usage.bytes_
        self.used_inodes += usage.inodes
        self.is_counting = False
        self._counted.set()

    def set_limits(self, quota_bytes: int | None, quota_inodes: int | None) -> None:
        """Change the limits at once. Usage may then stand above them; only growth is refused."""
        self.quota_bytes = quota_bytes
        self.quota_inodes = quota_inodes

    # -- open inodes --------------------------------------------------------------------------------------------

    def reserve(self, charge: InodeCharge, offset: int, end: int) -> int:
        """Reserve growth so that [offset, end) may be written; call only when ``end > charge.size``.

        Returns:
            The end up to which may be written, offset < it <= end. The charge stands there already; call ``settle``
            or ``correct`` exactly once afterwards.

        Raises:
            QuotaExceeded: not one byte at ``offset`` fits. Nothing changed.
        """
        growth = end - charge.size
        if self.quota_bytes is not None:
            free = self.quota_bytes - self.used_bytes
            if growth > free:
                end = charge.size + max(0, free)
                if end <= offset:
                    self.denied += 1
                    raise QuotaExceeded(f"{growth} bytes more do not fit: {max(0, free)} bytes are free")
                growth = end - charge.size
        if charge.slot == _NO_SLOT:
            self._open_slot(charge)
        if growth > 0:
            self.used_bytes += growth
            charge.size = end
        charge.pending += 1
        return end

    def settle(self, charge: InodeCharge) -> bool:
        """End a reserved write that wrote all. Returns False where the caller must measure and ``correct``."""
        charge.pending -= 1
        return not (charge.uncertain and charge.pending == 0)

    def fail(self, charge: InodeCharge) -> bool:
        """End a reserved write that failed or fell short. Returns False where the caller must ``correct``."""
        charge.pending -= 1
        charge.uncertain = True
        return charge.pending != 0

    def correct(self, charge: InodeCharge, size: int) -> None:
        """Charge the size that was measured. Only when no write is pending, without an await since measuring."""
        if charge.abandoned:
            return
        if charge.slot == _NO_SLOT:
            self._open_slot(charge)
        self.used_bytes += size - charge.size
        charge.size = size
        charge.uncertain = False

    def abandon(self, charge: InodeCharge) -> None:
        """Note that a change of the inode's size or content was given up, and may still happen.

        Usage is too high from now on, never too low: nothing of this inode is freed before the volume is counted, at
        its next start.
        """
        charge.abandoned = True
        self.leave_uncertain()

    def begin_shrink(self, charge: InodeCharge) -> None:
        """Note that the inode is about to lose bytes; ``correct`` follows when it has."""
        if charge.slot == _NO_SLOT:
            self._open_slot(charge)

    def release(self, charge: InodeCharge, *, gone: bool) -> None:
        """Settle an inode at its last close; ``gone``: it was unlinked, so it counts nothing now.

        What could not be measured is left for the next owner to count.
        """
        if (charge.uncertain or charge.abandoned) and not gone:
            self.leave_uncertain()
            return
        if gone:
            if charge.slot == _NO_SLOT:
                self._open_slot(charge)
            self.used_bytes -= charge.size
            self.used_inodes -= charge.inodes
            self._close_slot(charge, _NOTHING)
        elif charge.slot != _NO_SLOT:
            self._close_slot(charge, Usage(charge.size, charge.inodes))

    def hold_unlinked(self, charge: InodeCharge) -> None:
        """Note before an unlink that an open inode loses its last name: still charged, nothing after a crash."""
        if charge.slot == _NO_SLOT:
            self._open_slot(charge)

    def _open_slot(self, charge: InodeCharge) -> None:
        charge.slot = self._ledger.open_slot(charge.key, Usage(charge.size, charge.inodes))
        self._open_charges.add(charge)

    def _close_slot(self, charge: InodeCharge, counted: Usage) -> None:
        self._ledger.close_slot(charge.slot, counted)
        charge.slot = _NO_SLOT
        self._open_charges.discard(charge)

    # -- names --------------------------------------------------------------------------------------------------

    def begin_create(self, key: bytes | None, bytes_: int = 0) -> NameChange:
        """Reserve one inode, and bytes, for a node that is about to be made under the name of ``key``.

        Raises:
            QuotaExceeded: a limit is reached. Nothing changed.
        """
        if bytes_ and self.quota_bytes is not None and bytes_ > self.quota_bytes - self.used_bytes:
            self.denied += 1
            raise QuotaExceeded(f"{bytes_} bytes more do not fit")
        if self.quota_inodes is not None and self.used_inodes >= self.quota_inodes:
            self.denied += 1
            raise QuotaExceeded(f"the volume's limit of {self.quota_inodes} inodes is reached")
        self.used_inodes += 1
        self.used_bytes += bytes_
        return NameChange(self._ledger.open_slot(key, _NOTHING), _NOTHING, Usage(bytes_, 1))

    def end_create(self, change: NameChange, *, created: bool) -> None:
        """Settle a create: the node stands there, or nothing happened."""
        if created:
            self._ledger.close_slot(change.slot, change.reserved)
        else:
            self.used_inodes -= change.reserved.inodes
            self.used_bytes -= change.reserved.bytes_
            self._ledger.close_slot(change.slot, _NOTHING)

    def begin_remove(self, key: bytes | None, counts: Usage) -> NameChange:
        """Note that the inode under the name of ``key``, which counts ``counts``, is about to lose its last name."""
        return NameChange(self._ledger.open_slot(key, counts), counts, _NOTHING)

    def end_remove(self, change: NameChange, *, removed: bool) -> None:
        """Settle a remove: the inode is gone, or nothing happened."""
        if removed:
            self.used_bytes -= change.before.bytes_
            self.used_inodes -= change.before.inodes
            self._ledger.close_slot(change.slot, _NOTHING)
        else:
            self._ledger.close_slot(change.slot, change.before)

    def note_replaced(self, before: Usage, after: Usage) -> None:
        """Note that what a name counts was replaced without a change of ours. Needs a backend that keeps its usage."""
        self.used_bytes += after.bytes_ - before.bytes_
        self.used_inodes += after.inodes - before.inodes

    def leave_uncertain(self) -> None:
        """Note that a change was begun, and whether it happened cannot be told now (the backend fails or hangs).

        The epoch is not ended, and the next owner counts the volume: measuring the inode's slot would not do, since
        the inode may change and be charged again meanwhile.
        """
        if not self.uncertain:
            self.uncertain = True
            self._ledger.open_slot(None, _NOTHING)

    def close(self) -> str:
        """Settle what is still open, end the ledger's epoch and return its id from now on.

        "": there is no ledger, or something was left uncertain and the epoch goes on for the next owner to measure.
        """
        if self.uncertain:
            return ""
        for charge in list(self._open_charges):
            self._close_slot(charge, Usage(charge.size, charge.inodes))
        return self._ledger.close()
