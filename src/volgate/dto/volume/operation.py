"""What a volume operation is told about its volume."""

from __future__ import annotations

from pathlib import Path

import attrs

from volgate.dto.backend import BackendType
from volgate.dto.validation import check_absolute, check_not_negative, check_text, check_volume_id, to_path


@attrs.frozen
class VolumeOperationContext:
    """Context of an operation on a whole volume: create, open, adopt, count.

    Attributes:
        volume_id: the volume's id (see ``validation.VOLUME_ID``).
        mount_path: absolute; where the volume is, or would be, mounted.
        backend_type: name of the driver.
        owner_id: who acts, as ``uid:N`` or a name of the control API.
        quota_bytes: limit in bytes, None = unlimited.
        quota_inodes: limit in inodes (the root does not count), None = unlimited.
        read_only: the operation must not change the volume.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    mount_path: Path = attrs.field(converter=to_path, validator=check_absolute)
    backend_type: BackendType = attrs.field(validator=check_text)
    owner_id: str = attrs.field(validator=check_text)
    quota_bytes: int | None = attrs.field(default=None, validator=check_not_negative)
    quota_inodes: int | None = attrs.field(default=None, validator=check_not_negative, kw_only=True)
    read_only: bool = attrs.field(default=False, kw_only=True)
