"""What both ways to CephFS share: the directory of snapshots, the names in it, and rights that a client lacks."""

from __future__ import annotations

import errno
import os
from typing import Final

from volgate.errors import InvalidArgument, PermissionDenied

SNAPSHOT_FOLDER: Final = b".snap"
"""Stands in every directory of a CephFS, though no listing has it (CephFS documentation, "Snapshots")."""
PROBE: Final = "volgate-probe"
"""A snapshot that is made and removed at once, to see whether that is allowed."""


def snapshot_name(name: str) -> bytes:
    """Return the name in ``.snap``. Raises InvalidArgument: CephFS keeps ``_NAME_INO`` for directories above."""
    if not name or "/" in name or "\0" in name or name.startswith((".", "_")):
        raise InvalidArgument(f"'{name}' is no name of a snapshot")
    return os.fsencode(name)


def missing(capability: str, purpose: str) -> str:
    """Return one line for people: which MDS capability the client lacks, and who grants it."""
    return (
        f"the CephFS client may not {purpose}: its MDS capability lacks '{capability}'; "
        f"'ceph auth caps CLIENT mds \"allow rwps path=...\" ...' grants it, then mount anew"
    )


def refused_snapshot(error: PermissionError, purpose: str) -> PermissionDenied:
    """Return why a snapshot is refused: EACCES is said for the capability, EPERM for the place (16.2, measured)."""
    if error.errno == errno.EACCES:
        return PermissionDenied(missing("s", purpose))
    return PermissionDenied(
        f"CephFS lets nobody {purpose} here: of a subvolume 'ceph fs subvolume snapshot create' does it, else see "
        "'ceph fs set FILESYSTEM allow_new_snaps true'"
    )
