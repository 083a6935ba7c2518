"""Which names a volume keeps for the gateway."""

from __future__ import annotations

from typing import Final

GATEWAY_NAME: Final = b".volgate"
"""At the root of a volume: the gateway's own files. Never shown, never charged."""

RESERVED_ROOT_NAMES: Final[frozenset[bytes]] = frozenset({GATEWAY_NAME, b".snapshots"})
"""Names at the root that users can neither see nor make."""
