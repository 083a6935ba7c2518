"""How far above a volume's limit the storage's own limit stands.

The gateway's limit is the one that holds. The storage's own is a fence for who writes beside the gateway. Set equal it
would refuse early: it counts later, in other units, and with what the gateway keeps for itself.
"""

from __future__ import annotations

from typing import Final

_SLACK_BYTES: Final = 64 << 20
_SLACK_INODES: Final = 1000
_SLACK_FRACTION: Final = 50


def fence_bytes(quota_bytes: int) -> int:
    """Return the storage's limit for a volume's, in bytes: 64 MiB more, or 2 % where that is more."""
    return quota_bytes + max(_SLACK_BYTES, quota_bytes // _SLACK_FRACTION)


def fence_inodes(quota_inodes: int) -> int:
    """Return the storage's limit for a volume's, in inodes: 1000 more, or 2 % where that is more."""
    return quota_inodes + max(_SLACK_INODES, quota_inodes // _SLACK_FRACTION)
