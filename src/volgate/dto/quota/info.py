"""How full a volume is."""

from __future__ import annotations

import attrs

from volgate.dto.backend import BackendType
from volgate.dto.validation import check_not_negative, check_text, check_volume_id


@attrs.frozen
class StorageQuotaInfo:
    """Limit and usage of a volume, the same for every kind of backend.

    Attributes:
        volume_id: the volume.
        used_bytes: sum of the logical sizes of its regular files, each inode once; unlinked files that are open count.
        quota_bytes: limit in bytes, None = unlimited. Usage may stand above it (a lowered limit, outside writers).
        file_count: inodes but the root: files, directories, symlinks, fifos, sockets.
        backend_type: name of the driver.
        quota_inodes: limit of ``file_count``, None = unlimited.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    used_bytes: int = attrs.field(validator=check_not_negative)
    quota_bytes: int | None = attrs.field(validator=check_not_negative)
    file_count: int = attrs.field(validator=check_not_negative)
    backend_type: BackendType = attrs.field(validator=check_text)
    quota_inodes: int | None = attrs.field(default=None, validator=check_not_negative, kw_only=True)

    @property
    def free_bytes(self) -> int | None:
        """Bytes that may still be added, >= 0; None = unlimited."""
        return None if self.quota_bytes is None else max(0, self.quota_bytes - self.used_bytes)

    @property
    def is_above_limit(self) -> bool:
        """Whether more bytes are in use than the limit, so that only growth is refused."""
        return self.quota_bytes is not None and self.used_bytes > self.quota_bytes

    @property
    def free_inodes(self) -> int | None:
        """Inodes that may still be added, >= 0; None = unlimited."""
        return None if self.quota_inodes is None else max(0, self.quota_inodes - self.file_count)
