"""Having a store copy an object, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping

from volgate.core.object_version import ObjectVersion
from volgate.core.parts import parts_of
from volgate.drivers.object_store import ObjectReader, ObjectStore, UploadedPart
from volgate.errors import Stale


async def copy_object(store: ObjectStore, source: ObjectVersion, target: str, of: ObjectReader | None = None) -> str:
    """Copy an object with its metadata; returns the copy's etag.

    Args:
        of: the store that has it, as ``ObjectStore.copy`` has it.

    Raises:
        NotFound: it is gone. Stale: it is another than meant. PermissionDenied: the credentials may not read it.
    """
    is_directory = source.key.endswith("/") and not source.size
    if is_directory or not store.capabilities.conditional_copy or source.size > store.max_put_bytes:
        found = await (of or store).head(source.key)
        if found.etag != source.etag:
            raise Stale(f"{source.key} was changed")
        if is_directory:  # versitygw 1.8 fails at a copy of a directory's object to a key without a slash (HTTP 500)
            return await store.put(target, b"", metadata=found.metadata, content_type=found.content_type)
        if source.size > store.max_put_bytes:
            upload_id, parts = await copy_in_parts(store, source, target, found.metadata, found.content_type, of)
            return await store.complete_upload(target, upload_id, parts)
    return await store.copy(source.key, target, source_etag=source.etag, of=of, size=source.size)


async def copy_in_parts(
    store: ObjectStore, source: ObjectVersion, target: str, metadata: Mapping[str, str], content_type: str,
    of: ObjectReader | None = None,
) -> tuple[str, list[UploadedPart]]:  # fmt: skip
    """Copy an object too large for one request; returns the upload, to be completed, and its parts."""
    upload_id = await store.begin_upload(target, metadata=metadata, content_type=content_type)
    parts = [
        await store.copy_part(
            target,
            upload_id,
            part.number,
            source.key,
            part.start,
            part.end - part.start,
            source_etag=source.etag,
            of=of,
        )
        for part in parts_of(source.size)
    ]
    return upload_id, parts
