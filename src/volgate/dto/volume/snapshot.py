"""What a snapshot operation is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from volgate.dto.validation import check_not_negative, check_text, check_volume_id, to_frozen_mapping, to_path


@attrs.frozen
class VolumeSnapshotContext:
    """Context of creating, restoring or deleting a snapshot.

    Attributes:
        volume_id: the volume.
        snapshot_id: unique in the volume.
        snapshot_path: where the snapshot's view lies, e.g. ``.snapshots/ID``.
        created_at: UNIX seconds.
        metadata: immutable text pairs of the creator.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    snapshot_id: str = attrs.field(validator=check_text)
    snapshot_path: Path = attrs.field(converter=to_path)
    created_at: float = attrs.field(validator=check_not_negative)
    metadata: Mapping[str, str] = attrs.field(converter=to_frozen_mapping, hash=False)
