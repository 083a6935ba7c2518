"""Which ledger knows a volume's usage: the one whose epoch is named beside the data, by whoever served it last.

A ledger is a host's, or a user's. Another one may have served the volume since, and then the usage that this one
stored is of before that, though it was closed cleanly.
"""

from __future__ import annotations

from typing import Final

from volgate.drivers.base import BaseStorageBackend
from volgate.dto import Usage
from volgate.errors import NoSpace, QuotaExceeded
from volgate.ledger.base import QuotaLedger

_FILE: Final = "epoch"


async def load_epoch_id(backend: BaseStorageBackend) -> str:
    """Return the id of the last epoch; "": nobody knows, and what ledgers say is not to be believed."""
    return (await backend.load_reserved(_FILE) or b"").decode(errors="replace")


async def begin_epoch(backend: BaseStorageBackend, ledger: QuotaLedger, usage: Usage) -> None:
    """Begin an epoch of a volume that this process owns, and name it beside the data. Durable on return.

    On full storage the name is taken away, which takes no room: then every ledger has the volume counted.

    Raises:
        NoSpace, QuotaExceeded: not even that can be stored; free some inodes of the storage.
    """
    epoch_id = ledger.begin(usage)
    try:
        await backend.store_reserved(_FILE, epoch_id.encode())
    except (NoSpace, QuotaExceeded):
        await backend.store_reserved(_FILE, b"")
