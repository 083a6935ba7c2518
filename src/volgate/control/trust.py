"""Who asks: by the kernel's word at the unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from volgate.control.http_server import PEER, Peer
from volgate.control.problems import Refusal
from volgate.control.roles import ADMIN_OF_ALL, Grant, Principal


class Doorkeeper:
    """Finds out who asks.

    Args:
        users: what users may who are neither root nor the daemon's own, by uid.
    """

    def __init__(self, users: Mapping[int, tuple[Grant, ...]]) -> None:
        self._users = users
        self._mine = os.geteuid()

    async def identify(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Principal:
        """Return who asks. Raises Refusal: nobody who may ask anything."""
        peer: Peer | None = scope.get(PEER)
        if peer is None:
            raise Refusal("unauthenticated", "who asks is not known")
        name = f"uid:{peer.uid}"
        if peer.uid in (0, self._mine):
            return Principal(name, (ADMIN_OF_ALL,))
        grants = self._users.get(peer.uid, ())
        if not grants:
            raise Refusal("forbidden", f"{name} has no role here; [control] roles gives some")
        return Principal(name, grants)
