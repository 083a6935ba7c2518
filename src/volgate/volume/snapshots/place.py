"""Where snapshots lie: a directory for each in ``.volgate/snapshots``, and copies of their manifests on the local disk.

A directory is named ``SERIAL-ID``. It holds ``manifest.db``, the blobs, and ``snapshot.json``, which is written last
and removed first.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

import attrs

from volgate.concurrency import note_progress
from volgate.drivers.base import (
    BackendDirectory,
    BackendFile,
    BaseStorageBackend,
    NodeOwner,
    attributes_by_name,
    exists,
    in_batches,
)
from volgate.dto import FileAttributes
from volgate.dto.validation import (
    SNAPSHOT_ID,
    check_count,
    check_moment,
    check_snapshot_id,
    check_text,
    check_text_pairs,
)
from volgate.errors import InputOutput, Unsupported
from volgate.manifests.local import Fingerprint, LocalManifests, measure, read_in_chunks

FORMAT_VERSION: Final = 1
_PLACE: Final = "snapshots"
_RECORD: Final = b"snapshot.json"
_MANIFEST: Final = b"manifest.db"
_DRAFT: Final = b".new"
_OWNER: Final = NodeOwner(os.geteuid(), os.getegid())
_CHUNK_BYTES: Final = 1 << 20
_DIRECTORY: Final = re.compile(rf"([0-9]{{10}})-({SNAPSHOT_ID.pattern})")


@attrs.frozen
class SnapshotRecord:
    """What ``snapshot.json`` says.

    Attributes:
        snapshot_id, created_at, file_count, used_bytes, metadata: see SnapshotInfo.
        manifest_bytes: its size. manifest_sha256: its checksum, in hexadecimal.
    """

    snapshot_id: str = attrs.field(validator=check_snapshot_id)
    created_at: float = attrs.field(validator=check_moment)
    file_count: int = attrs.field(validator=check_count)
    used_bytes: int = attrs.field(validator=check_count)
    metadata: dict[str, str] = attrs.field(validator=check_text_pairs)
    manifest_bytes: int = attrs.field(validator=check_count)
    manifest_sha256: str = attrs.field(validator=check_text)


class SnapshotPlace:
    """See the module.

    Args:
        backend: open; needs ``Capabilities.preserves``. local: made where it is missing.
    """

    def __init__(self, backend: BaseStorageBackend, local: Path) -> None:
        self._backend = backend
        self._local = LocalManifests(local)

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[BackendDirectory]:
        """Hold the directory of all of them open."""
        place = await self._backend.open_reserved(_PLACE)
        try:
            yield place
        finally:
            place.close()

    async def find(self) -> list[tuple[int, str]]:
        """Return serial and name of every directory, in the order of the serials; drafts of a crash are removed."""
        self._local.clear_drafts()
        async with self._opened() as place:
            names = [name.decode("ascii", "replace") for name in await self._backend.list_names(place)]
        return sorted((int(match[1]), match[0]) for name in names if (match := _DIRECTORY.fullmatch(name)))

    async def open(self, name: str) -> BackendDirectory:
        """Return a directory, made where it is missing."""
        return await self._backend.open_reserved(f"{_PLACE}/{name}")

    async def remove(self, name: str, directory: BackendDirectory) -> None:
        """Remove a directory with all that is left in it, and the local copies of its manifest."""
        self._local.forget(name)
        for left in await self._backend.list_names(directory):
            await self._backend.remove(directory, left, is_directory=False)
        directory.close()
        async with self._opened() as place:
            await self._backend.remove(place, name.encode(), is_directory=True)

    # -- records ------------------------------------------------------------------------------------------------

    async def has_record(self, directory: BackendDirectory) -> bool:
        """Return whether a snapshot is whole."""
        return await exists(self._backend, directory, _RECORD)

    async def load_record(self, name: str, directory: BackendDirectory) -> SnapshotRecord:
        """Return a snapshot's record. Raises InputOutput: it is damaged. Unsupported: a newer version wrote it."""
        file, attributes = await self._backend.open_file(directory, _RECORD, 0, writable=False)
        try:
            found = json.loads(await file.read(0, attributes.size))
            version = found.pop("format")
            if version > FORMAT_VERSION:
                raise Unsupported(f"it has format {version}, this version knows {FORMAT_VERSION}: upgrade volgate")
            record = SnapshotRecord(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputOutput("its record is damaged") from error
        finally:
            await file.close()
        if record.snapshot_id != id_in(name):
            raise InputOutput(f"its record is of another snapshot, {record.snapshot_id}")
        return record

    async def store_record(self, directory: BackendDirectory, record: SnapshotRecord) -> None:
        """Make a snapshot whole: durably and atomically."""
        content = json.dumps({"format": FORMAT_VERSION, **attrs.asdict(record)}, indent=1).encode()
        draft = _RECORD + _DRAFT
        file, _ = await self._backend.create_file(directory, draft, 0o600, _OWNER)
        try:
            await _write_all(file, 0, content)
            await file.sync(data_only=False)
        finally:
            await file.close()
        await self._backend.rename(directory, draft, directory, _RECORD)
        await self._backend.sync_directory(directory)
        async with self._opened() as place:
            await self._backend.sync_directory(place)

    async def remove_record(self, directory: BackendDirectory) -> None:
        """End a snapshot, durably; nothing happens where there is no record."""
        if await self.has_record(directory):
            await self._backend.remove(directory, _RECORD, is_directory=False)
            await self._backend.sync_directory(directory)

    # -- manifests ----------------------------------------------------------------------------------------------

    def draft(self, name: str) -> Path:
        """Return the path of a new file on the local disk for a manifest. Raises NoSpace and the like."""
        return self._local.draft(name)

    async def store_manifest(self, name: str, directory: BackendDirectory, draft: Path) -> Fingerprint:
        """Store a manifest durably; the draft becomes the local copy. Returns what it is."""
        fingerprint = await measure(draft)
        file, _ = await self._backend.create_file(directory, _MANIFEST, 0o600, _OWNER)
        try:
            offset = 0
            async with contextlib.aclosing(read_in_chunks(draft, itertools.repeat(_CHUNK_BYTES))) as chunks:
                async for chunk in chunks:
                    await _write_all(file, offset, chunk)
                    offset += len(chunk)
            await file.sync(data_only=False)
        finally:
            await file.close()
        await self._local.keep(name, draft, fingerprint)
        return fingerprint

    async def fetch_manifest(self, name: str, directory: BackendDirectory, record: SnapshotRecord) -> Path:
        """Return the local copy of a manifest; fetched where there is none. Raises InputOutput: it is damaged."""

        async def read_all() -> AsyncGenerator[bytes, None]:
            file, attributes = await self._backend.open_file(directory, _MANIFEST, 0, writable=False)
            try:
                for offset in range(0, attributes.size, _CHUNK_BYTES):
                    yield await file.read(offset, _CHUNK_BYTES)
            finally:
                await file.close()

        found = await self._local.fetch(name, Fingerprint(record.manifest_bytes, record.manifest_sha256), read_all)
        if found is None:
            raise InputOutput("its manifest is damaged")
        return found

    # -- blobs --------------------------------------------------------------------------------------------------

    async def blobs_in(self, directory: BackendDirectory) -> list[tuple[int, FileAttributes]]:
        """Return the inodes that a directory has the content of, each with its blob's attributes."""
        names = [name for name in await self._backend.list_names(directory) if name.isdigit()]
        return [
            (int(name), attributes)
            for batch in in_batches(names)
            for name, attributes in await attributes_by_name(self._backend, directory, batch)
        ]


def id_in(name: str) -> str:
    """Return the id of the snapshot that lies in a directory."""
    return name.partition("-")[2]


async def _write_all(file: BackendFile, offset: int, content: bytes) -> None:
    while content:
        written = await file.write(offset, content)
        content, offset = content[written:], offset + written
        note_progress()
