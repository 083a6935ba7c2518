"""What is known of a file whose whole content moves."""

from __future__ import annotations

import attrs

from volgate.dto.validation import check_checksum, check_not_negative, check_text


@attrs.frozen
class FileTransferMetadata:
    """Describes one move of a whole file: upload, download, copy, restore, preserve.

    Attributes:
        source_path: where it is read, as the transfer's source names it.
        destination_path: where it is written.
        file_size: bytes, >= 0.
        checksum: ``algorithm:hex`` of the content (``crc64nvme:...``, ``sha256:...``); "" where the storage
            copied it by itself, and nobody read it.
        transfer_id: unique; a retried transfer keeps it.
    """

    source_path: str = attrs.field(validator=check_text)
    destination_path: str = attrs.field(validator=check_text)
    file_size: int = attrs.field(validator=check_not_negative)
    checksum: str = attrs.field(validator=check_checksum)
    transfer_id: str = attrs.field(validator=check_text)
