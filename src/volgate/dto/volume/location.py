"""The name of a place in a volume."""

from __future__ import annotations

from pathlib import Path

import attrs

from volgate.dto.validation import check_absolute, check_relative_path, check_text, to_path


@attrs.frozen
class StorageLocation:
    """Names a place wherever it is stored, queued, logged, reported or passed between layers.

    Attributes:
        backend_id: the volume id of the volume that holds the place.
        mount_point: absolute; where that volume is mounted.
        relative_path: from the volume's root; ``.`` is the root. Never absolute, no ``..``, no NUL. Bytes that are
            not UTF-8 are carried as surrogate escapes (``os.fsdecode``).
    """

    backend_id: str = attrs.field(validator=check_text)
    mount_point: Path = attrs.field(converter=to_path, validator=check_absolute)
    relative_path: Path = attrs.field(converter=to_path, validator=check_relative_path)

    @property
    def absolute_path(self) -> Path:
        """The place as a user of the mount names it."""
        return self.mount_point / self.relative_path
