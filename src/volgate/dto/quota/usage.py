"""An amount of bytes and inodes."""

from __future__ import annotations

import attrs


@attrs.frozen
class Usage:
    """Bytes and inodes that a volume, or one inode, is charged.

    Attributes:
        bytes_: logical bytes of regular files, >= 0.
        inodes: inodes but the root, >= 0.
    """

    bytes_: int
    inodes: int
