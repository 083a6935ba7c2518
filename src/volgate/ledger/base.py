"""The Ledger port: a volume's usage, exact after a crash.

The ledger keeps a *settled* usage, and a slot for each inode whose charge may have changed since. Usage at any moment,
after a crash too, is ``settled + sum(measured - charged)`` over the open slots, where ``measured`` is what the inode
counts on the backing now. A slot is opened before the first change and closed when its inode's charge is settled.

Called from the event loop only; no call awaits. Slot calls touch memory only (a file on tmpfs survives kill -9);
``begin`` and ``close`` write durably and may block for the disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import attrs

from volgate.dto import Usage

MeasureKey = Callable[[bytes], Awaitable[Usage]]
"""Return what the inode of a key counts now; raises Stale where the key cannot be resolved."""


@attrs.frozen
class RecoveredUsage:
    """What a ledger knows when a volume is opened.

    Attributes:
        usage: exact usage, or None: the volume has to be counted.
        reason: why it has to be counted, or how usage was found; one line for people.
    """

    usage: Usage | None
    reason: str


class QuotaLedger(ABC):
    """Usage of one volume, kept by its one owner."""

    @abstractmethod
    async def recover(self, measure_key: MeasureKey | None, epoch_id: str) -> RecoveredUsage:
        """Return the usage at the end of the last epoch. Changes nothing; call once, before ``begin``.

        Args:
            epoch_id: of the volume's last epoch, as ``begin`` or ``close`` gave it to whoever served the volume then.
            measure_key: None = what nobody synced may have gone with the process, so nothing that it settled is sure.

        Raises:
            Unsupported: the ledger was written by a newer version; it is left as it is.
        """

    @abstractmethod
    def begin(self, usage: Usage) -> str:
        """Start an epoch with this usage and no open slots, and return its id. Durable on return."""

    @abstractmethod
    def open_slot(self, key: bytes | None, charged: Usage) -> int:
        """Note that an inode, which counts ``charged`` within the settled usage, is about to change.

        Args:
            key: a driver's key of the inode; None = unresolvable: a crash before the slot is closed means a recount.

        Returns:
            The slot's number, for ``close_slot``.
        """

    @abstractmethod
    def close_slot(self, slot: int, counted: Usage) -> None:
        """Settle a slot: its inode counts ``counted`` from now on. One atomic step against kill -9."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Store the settled usage for those who look while no owner runs. Not needed for exactness."""

    @abstractmethod
    def close(self) -> str:
        """End the epoch cleanly, and return its id from now on. All slots must be closed; durable on return."""


class NoLedger(QuotaLedger):
    """The ledger of a volume that is only read: knows nothing and stores nothing."""

    async def recover(self, measure_key: MeasureKey | None, epoch_id: str) -> RecoveredUsage:
        """See QuotaLedger."""
        return RecoveredUsage(None, "a volume that is only read has no ledger")

    def begin(self, usage: Usage) -> str:
        """See QuotaLedger."""
        return ""

    def open_slot(self, key: bytes | None, charged: Usage) -> int:
        """See QuotaLedger."""
        return 0

    def close_slot(self, slot: int, counted: Usage) -> None:
        """See QuotaLedger."""

    def checkpoint(self) -> None:
        """See QuotaLedger."""

    def close(self) -> str:
        """See QuotaLedger."""
        return ""
