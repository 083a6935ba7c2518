"""Objects in this process: the reference of the ObjectStore port, with every condition kept."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from volgate.drivers.object_store import (
    MAX_KEY_BYTES,
    ListedObject,
    ListPage,
    ObjectInfo,
    ObjectReader,
    ObjectStore,
    PendingUpload,
    StoreCapabilities,
    UploadedPart,
)
from volgate.errors import AlreadyExists, InputOutput, InvalidArgument, NameTooLong, NotFound, Stale


@attrs.define
class _Upload:
    pending: PendingUpload
    content_type: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = attrs.field(factory=dict)


class MemoryObjectStore(ObjectStore):
    """See the module. Nothing blocks and nothing outlives the object."""

    backend_type = "memory"
    min_part_bytes: ClassVar[int] = 1

    def __init__(self) -> None:
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._uploads: dict[str, _Upload] = {}
        self._numbers = itertools.count(1)

    @property
    def capabilities(self) -> StoreCapabilities:
        """All of them."""
        return StoreCapabilities(True, True, True, True, True)

    async def open(self, *, writable: bool) -> None:
        """See ObjectStore."""

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return self._find(key)[0]

    async def list_page(
        self, prefix: str = "", *, delimiter: str = "", page: str | None = None, limit: int = 1000
    ) -> ListPage:
        """See ObjectStore."""
        entries: dict[str, ListedObject | None] = {}
        for key in sorted((key for key in self._objects if key.startswith(prefix)), key=str.encode):
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                entries[key[: end + len(delimiter)]] = None
            else:
                info = self._objects[key][0]
                entries[key] = ListedObject(key, info.size, info.etag, info.modified_at)
        after = [key for key in entries if page is None or key.encode() > page.encode()]
        shown = after[:limit]
        return ListPage(
            tuple(listed for key in shown if (listed := entries[key]) is not None),
            tuple(key for key in shown if entries[key] is None),
            shown[-1] if len(after) > limit else None,
        )

    async def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """See ObjectStore."""
        info, body = self._find(key)
        if etag is not None and info.etag != etag:
            raise Stale(f"{key} was changed")
        return body[offset : offset + length]

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See ObjectStore."""
        if len(key.encode()) > MAX_KEY_BYTES:
            raise NameTooLong(f"the key {key!r} has more than {MAX_KEY_BYTES} bytes")
        self._check(key, if_absent=if_absent, if_match=if_match)
        return self._store(key, bytes(body), dict(metadata or {}), content_type)

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        """See ObjectStore."""
        if key in self._objects:
            self._check(key, if_absent=False, if_match=if_match)
            del self._objects[key]

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        of: ObjectReader | None = None,
        size: int = 0,
    ) -> str:
        """See ObjectStore."""
        info, body = self._find_in(of, source, source_etag)
        if metadata is None:
            return self._store(target, body, dict(info.metadata), info.content_type)
        return self._store(target, body, dict(metadata), content_type)

    async def begin_upload(self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str = "") -> str:
        """See ObjectStore."""
        upload_id = str(next(self._numbers))
        pending = PendingUpload(key, upload_id, int(time.time()))
        self._uploads[upload_id] = _Upload(pending, content_type, dict(metadata or {}))
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """See ObjectStore."""
        self._find_upload(key, upload_id).parts[number] = bytes(body)
        return UploadedPart(number, _etag(body), len(body))

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, offset: int, length: int, *,
        source_etag: str | None, of: ObjectReader | None = None,
    ) -> UploadedPart:  # fmt: skip
        """See ObjectStore."""
        _, body = self._find_in(of, source, source_etag)
        if not 0 < length <= len(body) - offset:
            raise InputOutput(f"{source} has {len(body)} bytes, not {length} from {offset} on")  # S3: InvalidArgument
        return await self.put_part(key, upload_id, number, body[offset : offset + length])

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See ObjectStore."""
        upload = self._find_upload(key, upload_id)
        self._check(key, if_absent=if_absent, if_match=if_match)
        if not parts or any(_etag(upload.parts.get(part.number, b"")) != part.etag for part in parts):
            raise InvalidArgument("parts are named that were not stored")
        del self._uploads[upload_id]
        body = b"".join(upload.parts[part.number] for part in sorted(parts, key=lambda part: part.number))
        return self._store(key, body, upload.metadata, upload.content_type)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """See ObjectStore."""
        self._uploads.pop(upload_id, None)

    async def list_uploads(self, prefix: str = "") -> list[PendingUpload]:
        """See ObjectStore."""
        return [upload.pending for upload in self._uploads.values() if upload.pending.key.startswith(prefix)]

    def can_copy_of(self, other: ObjectReader) -> bool:
        """See ObjectStore."""
        return isinstance(other, MemoryObjectStore)

    def _find_in(self, other: ObjectReader | None, key: str, etag: str | None) -> tuple[ObjectInfo, bytes]:
        store = other or self
        assert isinstance(store, MemoryObjectStore)
        found = store._find(key)
        store._check(key, if_absent=False, if_match=etag)
        return found

    def _find(self, key: str) -> tuple[ObjectInfo, bytes]:
        if key not in self._objects:
            raise NotFound(f"no object {key}")
        return self._objects[key]

    def _find_upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.pending.key != key:
            raise NotFound(f"no upload {upload_id} of {key}")
        return upload

    def _check(self, key: str, *, if_absent: bool, if_match: str | None) -> None:
        found = self._objects.get(key)
        if if_absent and found is not None:
            raise AlreadyExists(f"{key} exists")
        if if_match is not None and (found is None or found[0].etag != if_match):
            raise Stale(f"{key} was changed")

    def _store(self, key: str, body: bytes, metadata: dict[str, str], content_type: str) -> str:
        info = ObjectInfo(key, len(body), _etag(body), int(time.time()), "", content_type, metadata)
        self._objects[key] = info, body
        return info.etag


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
