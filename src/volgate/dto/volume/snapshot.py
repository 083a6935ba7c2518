"""What a snapshot operation is told, and what is known of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from volgate.dto.validation import (
    check_not_negative,
    check_snapshot_id,
    check_volume_id,
    to_frozen_mapping,
    to_path,
)


@attrs.frozen
class VolumeSnapshotContext:
    """Context of creating, restoring or deleting a snapshot.

    Attributes:
        volume_id: the volume.
        snapshot_id: unique in the volume; 1 to 63 of ``a-z A-Z 0-9 . _ -``, the first a letter or digit.
        snapshot_path: where the snapshot's view lies, e.g. ``.snapshots/ID``.
        created_at: UNIX seconds.
        metadata: immutable text pairs of the creator.
        path: of the one file that is taken, relative to the volume's root; "" = all of the volume.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    snapshot_id: str = attrs.field(validator=check_snapshot_id)
    snapshot_path: Path = attrs.field(converter=to_path)
    created_at: float = attrs.field(validator=check_not_negative)
    metadata: Mapping[str, str] = attrs.field(converter=to_frozen_mapping, hash=False)
    path: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class SnapshotInfo:
    """What is known of a snapshot.

    Attributes:
        snapshot_id: unique in the volume. created_at: UNIX seconds, when it was taken.
        file_count: inodes in it but the root, as a volume counts them; None where the storage does not tell.
        used_bytes: their sizes as a volume counts them; None likewise.
        preserved_bytes: what is kept for it and earlier ones alone, in logical bytes: what the live volume does not
            have any more. None where the storage does not tell.
        metadata: immutable text pairs of the creator.
        damaged: "" where it is whole, else why it cannot be read.
        path: of the one file that it holds, relative to the volume's root; "" = all of the volume.
    """

    snapshot_id: str = attrs.field(validator=check_snapshot_id)
    created_at: float = attrs.field(validator=check_not_negative)
    file_count: int | None = attrs.field(validator=check_not_negative)
    used_bytes: int | None = attrs.field(validator=check_not_negative)
    preserved_bytes: int | None = attrs.field(validator=check_not_negative)
    metadata: Mapping[str, str] = attrs.field(converter=to_frozen_mapping, hash=False)
    damaged: str
    path: str = attrs.field(default="", kw_only=True)
