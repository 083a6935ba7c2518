"""What a long-running copy between backends carries along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from volgate.dto.validation import check_not_negative, check_text

if TYPE_CHECKING:
    from volgate.drivers.base import BaseStorageBackend


@attrs.frozen
class AsyncCopyContext:
    """Context of an asynchronous copy between two backends.

    Attributes:
        operation_id: unique; a resumed copy keeps it.
        source_backend: read only.
        destination_backend: its volume's quota is charged.
        source_path: from the source volume's root.
        destination_path: from the destination volume's root.
        total_bytes: bytes to be copied, >= 0.
        started_at: UNIX seconds.
    """

    operation_id: str = attrs.field(validator=check_text)
    source_backend: BaseStorageBackend
    destination_backend: BaseStorageBackend
    source_path: str = attrs.field(validator=check_text)
    destination_path: str = attrs.field(validator=check_text)
    total_bytes: int = attrs.field(validator=check_not_negative)
    started_at: float = attrs.field(validator=check_not_negative)
