"""Which ledger knows a volume's usage: the one whose epoch is named beside the data, by whoever served it last.

A ledger is a host's, or a user's. Another one may have served the volume since, and then the usage that this one
stored is of before that, though it was closed cleanly. An epoch has another id from its clean end on, so data that is
restored from a backup of before is told from what was left.
"""

from __future__ import annotations

import contextlib
from typing import Final

from volgate.drivers.base import BaseStorageBackend
from volgate.errors import NoSpace, PermissionDenied, QuotaExceeded

_FILE: Final = "epoch"


async def load_epoch_id(backend: BaseStorageBackend) -> str:
    """Return what ``name_epoch`` stored last; "": nobody knows, and what ledgers say is not to be believed."""
    with contextlib.suppress(PermissionDenied):  # another user's
        return (await backend.load_reserved(_FILE) or b"").decode(errors="replace")
    return ""


async def name_epoch(backend: BaseStorageBackend, epoch_id: str) -> None:
    """Note beside the data which epoch of which ledger it is of now. Durable on return.

    On full storage the note is taken away, which takes no room: then every ledger has the volume counted.
    """
    try:
        await backend.store_reserved(_FILE, epoch_id.encode())
    except (NoSpace, QuotaExceeded):
        await backend.remove_reserved(_FILE)
