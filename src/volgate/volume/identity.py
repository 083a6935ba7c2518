"""Who a volume is: kept beside its data, so that every user and host sees the same id, limit and holder."""

from __future__ import annotations

import json
import re
import time
import uuid as uuids
from typing import Any, Final

import attrs
import cattrs

from volgate.core.names import IDENTITY_NAME
from volgate.drivers.base import BaseStorageBackend
from volgate.dto.validation import check_not_negative, check_text, check_volume_id
from volgate.errors import InvalidArgument, Unsupported

FORMAT_VERSION: Final = 1
_FILE: Final = IDENTITY_NAME.decode()


@attrs.frozen
class VolumeIdentity:
    """A volume's identity and limits.

    Attributes:
        volume_id: its id.
        uuid: made at creation, never changed.
        created_at: UNIX seconds.
        quota_bytes: limit in bytes, None = unlimited. quota_inodes: limit in inodes, None = unlimited.
        snapshot_bytes: limit of what snapshots keep, None = unlimited.
        format_version: of this record.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    uuid: str = attrs.field(validator=check_text)
    created_at: float = attrs.field(validator=check_not_negative)
    quota_bytes: int | None = attrs.field(validator=check_not_negative)
    quota_inodes: int | None = attrs.field(validator=check_not_negative)
    snapshot_bytes: int | None = attrs.field(default=None, validator=check_not_negative)
    format_version: int = FORMAT_VERSION


def new_identity(
    name: str, quota_bytes: int | None, quota_inodes: int | None, *, volume_id: str | None = None
) -> VolumeIdentity:
    """Return the identity of a new volume; without an id it gets one from ``name``, what people call its place."""
    uuid = str(uuids.uuid4())
    if volume_id is not None:
        return VolumeIdentity(volume_id, uuid, time.time(), quota_bytes, quota_inodes)
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:40] or "volume"
    return VolumeIdentity(f"{slug}-{uuid[:8]}", uuid, time.time(), quota_bytes, quota_inodes)


async def load_identity(backend: BaseStorageBackend) -> VolumeIdentity | None:
    """Return the identity beside the data, None where there is none.

    Raises:
        InvalidArgument: the record is damaged. Unsupported: a newer version wrote it.
    """
    content = await backend.load_reserved(_FILE)
    if content is None:
        return None
    try:
        record: dict[str, Any] = json.loads(content)
        version = int(record["format_version"])
        if version > FORMAT_VERSION:
            raise Unsupported(f"the volume has format {version}, this version knows {FORMAT_VERSION}: upgrade volgate")
        return cattrs.structure(record, VolumeIdentity)
    except (ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        raise InvalidArgument(f"the volume's '.volgate/{_FILE}' is damaged; restore it, or move it away") from error


async def store_identity(backend: BaseStorageBackend, identity: VolumeIdentity) -> None:
    """Replace the identity beside the data, atomically and durably."""
    await backend.store_reserved(_FILE, json.dumps(attrs.asdict(identity), indent=1).encode() + b"\n")
