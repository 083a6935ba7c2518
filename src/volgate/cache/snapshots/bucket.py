"""The snapshots of a volume in a bucket.

A snapshot is a listing of the bucket, taken while nobody changes the volume and all of it is uploaded. From then on an
object is copied within the bucket before it is replaced or deleted. What the bucket has of a snapshot:

    .volgate/snapshots/SERIAL-ID/manifest.db     the listing
    .volgate/snapshots/SERIAL-ID/snapshot.json   stored last and deleted first: without it, it is no snapshot
    .volgate/snapshots/kept/...                  the copies, of all snapshots; see ``kept``
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from volgate.cache.nodes import ROOT_KEY
from volgate.cache.snapshots.kept import PLACE, KeptObjects
from volgate.cache.snapshots.manifest import ObjectManifest, ObjectManifestWriter
from volgate.cache.together import together
from volgate.core.names import GATEWAY_NAME
from volgate.core.object_version import ObjectVersion
from volgate.core.parts import parts_of
from volgate.drivers.allowance import Allowance, NeededBy
from volgate.drivers.base import NativeSnapshot
from volgate.drivers.object_store import ListedObject, ObjectStore, UploadedPart
from volgate.dto.validation import check_count, check_moment
from volgate.errors import AlreadyExists, NotFound, Stale, StorageException, Unavailable, Unsupported
from volgate.manifests.local import Fingerprint, LocalManifests, measure, read_in_chunks

log = logging.getLogger(__name__)

_FORMAT: Final = 1
_RECORD: Final = "snapshot.json"
_MANIFEST: Final = "manifest.db"
_RESERVED: Final = GATEWAY_NAME.decode() + "/"
_DIRECTORY: Final = re.compile(r"([0-9]{10})-(.+)")
_MAX_RECORD_BYTES: Final = 1 << 16
_CHUNK_BYTES: Final = 8 << 20
_PARALLEL: Final = 32
_PARALLEL_LISTINGS: Final = 8
_ROWS_AT_ONCE: Final = 1000
_AGAIN_S: Final = 5.0


@attrs.frozen
class _Record:
    """What ``snapshot.json`` says.

    Attributes:
        created_at: UNIX seconds. listed_at: when the listing began, by the bucket's clock, whole seconds.
        manifest_bytes, manifest_sha256: of the manifest.
    """

    created_at: float = attrs.field(validator=check_moment)
    listed_at: int = attrs.field(validator=attrs.validators.instance_of(int))
    manifest_bytes: int = attrs.field(validator=check_count)
    manifest_sha256: str = attrs.field(validator=attrs.validators.instance_of(str))


class TakenSnapshot:
    """A snapshot that is whole.

    Attributes:
        serial: orders the snapshots. name: of its place. snapshot_id: what people call it.
        created_at: UNIX seconds. listed_at: see the record.
        manifest: open; None where it is damaged. damaged: why, else "".
        is_listed: False while it is being taken. has_failed: that failed, and its record may be there nevertheless.
    """

    def __init__(self, serial: int, name: str, created_at: float) -> None:
        self.serial = serial
        self.name = name
        self.snapshot_id = name.partition("-")[2]
        self.created_at = created_at
        self.listed_at = 0
        self.manifest: ObjectManifest | None = None
        self.damaged = ""
        self.is_listed = True
        self.has_failed = False


class BucketSnapshots:
    """See the module.

    Args:
        store: open. local: directory for copies of manifests on the local disk.
        check_ownership: raises where this host may not write any more; called before every change.
        leaving: returns the keys that the bucket has though the volume does not: of removed files that are open.

    Attributes:
        kept: the copies. allowance: how much those may be.
    """

    def __init__(
        self, store: ObjectStore, local: Path, check_ownership: Callable[[], None], leaving: Callable[[], set[str]]
    ) -> None:
        self._store = store
        self._check_ownership = check_ownership
        self._local = LocalManifests(local)
        self._leaving = leaving
        self._loading, self._creating, self._deleting = trio.Lock(), trio.Lock(), trio.Lock()
        self._is_loaded = False
        self._woken = trio.Event()
        self._taken: list[TakenSnapshot] = []
        self._last_serial = 0
        self._lost: set[tuple[str, str]] = set()
        self._keeping: dict[tuple[str, str], trio.Event] = {}
        self.kept = KeptObjects(store)
        self.allowance = Allowance(lambda: self.kept.kept_bytes, lambda: frozenset(t.serial for t in self._taken))

    # -- what there is ------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Find the snapshots that are there, once; clear away what a crash left of others.

        Raises what the store raises, and Unsupported where a newer version took one: then nothing may be changed, since
        nobody knows what is to be kept. A later call tries again.
        """
        if self._is_loaded:
            return
        async with self._loading:
            if self._is_loaded:
                return
            self._local.clear_drafts()
            names = await self._names()
            found = [(int(match[1]), match[0]) for name in names if (match := _DIRECTORY.fullmatch(name))]
            if names:
                await self.kept.load()
            taken: list[TakenSnapshot] = []
            remains: list[str] = []
            for serial, name in sorted(found):
                try:
                    content = await self._store.get_range(_key(name, _RECORD), 0, _MAX_RECORD_BYTES)
                except NotFound:
                    remains.append(name)
                else:
                    taken.append(await self._load_one(serial, name, content))
            self._taken = taken
            self._last_serial = max([self.kept.last_serial, *(serial for serial, _ in found)])
            if remains:
                await self._sweep(remains)
            self._is_loaded = True

    async def _names(self) -> list[str]:
        """Return what lies at the place of snapshots."""
        names: list[str] = []
        page = None
        while True:
            found = await self._store.list_page(PLACE, delimiter="/", page=page)
            names += [prefix.removeprefix(PLACE).rstrip("/") for prefix in found.prefixes]
            page = found.next_page
            if page is None:
                return names

    async def _load_one(self, serial: int, name: str, content: bytes) -> TakenSnapshot:
        """Return a snapshot, damaged where what the bucket has of it is not what was stored; else raises."""
        taken = TakenSnapshot(serial, name, 0)
        record = _parse(content)
        if record is None:
            taken.damaged = "its record is damaged"
        else:
            taken.created_at, taken.listed_at = record.created_at, record.listed_at
            taken.damaged = await self._open_manifest(taken, record)
        if taken.damaged:
            log.error("a snapshot is damaged", extra={"snapshot": name, "error": taken.damaged})
        return taken

    async def _open_manifest(self, taken: TakenSnapshot, record: _Record) -> str:
        """Open a snapshot's manifest; returns why that is damaged, "" where it is not."""

        async def read_all() -> AsyncGenerator[bytes, None]:
            for offset in range(0, record.manifest_bytes, _CHUNK_BYTES):
                chunk = await self._store.get_range(_key(taken.name, _MANIFEST), offset, _CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

        wanted = Fingerprint(record.manifest_bytes, record.manifest_sha256)
        try:
            path = await self._local.fetch(taken.name, wanted, read_all)
        except NotFound as error:
            if (await self._store.list_page(_key(taken.name, _MANIFEST), limit=1)).objects:
                raise Unavailable(f"the manifest of {taken.snapshot_id} cannot be read: {error}") from error
            return "its manifest is not there"
        if path is None:
            return "its manifest is damaged"
        taken.manifest = ObjectManifest(path)
        return ""

    def list_all(self) -> list[NativeSnapshot]:
        """Return all snapshots, the oldest first. Call ``load`` first, as before all that follows."""
        listed = [taken for taken in self._taken if taken.is_listed]
        serials = [taken.serial for taken in listed]
        kept = [0] * len(listed)
        for serial, size in self.kept.bytes_by_serial.items():
            if (at := bisect_right(serials, serial)) > 0:
                kept[at - 1] += size
        return [
            NativeSnapshot(taken.snapshot_id, taken.created_at, size, taken.damaged)
            for taken, size in zip(listed, kept, strict=True)
        ]

    def find(self, snapshot_id: str) -> TakenSnapshot:
        """Return a snapshot. Raises NotFound."""
        for taken in self._taken:
            if taken.snapshot_id == snapshot_id and taken.is_listed:
                return taken
        raise NotFound(f"there is no snapshot {snapshot_id}")

    # -- taking one ---------------------------------------------------------------------------------------------

    async def create(self, snapshot_id: str) -> None:
        """Take a snapshot of a volume that nobody changes, and of which all is uploaded: whole or not at all.

        Blocks for the store: a request for each 1000 objects. Cancelled cleanly. Raises AlreadyExists.
        """
        self._check_ownership()
        async with self._creating:
            if any(taken.snapshot_id == snapshot_id and not taken.has_failed for taken in self._taken):
                raise AlreadyExists(f"there is a snapshot {snapshot_id}; take another name, or delete that one")
            self._last_serial += 1
            taken = TakenSnapshot(self._last_serial, f"{self._last_serial:010}-{snapshot_id}", time.time())
            taken.is_listed = False
            draft = self._local.draft(taken.name)
            try:
                began = time.monotonic()
                await self._write_manifest(draft)
                await self._publish(taken, draft, began)
            except BaseException:
                taken.has_failed = True  # undone in the background, since the volume stands still here
                if taken not in self._taken:
                    self._taken.append(taken)
                self._woken.set()
                with contextlib.suppress(OSError):
                    draft.unlink(missing_ok=True)
                raise

    async def run(self) -> None:
        """Undo what is left of snapshots that failed, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            if not await self._take_failed_back():
                await trio.sleep(_AGAIN_S)
                self._woken.set()

    async def _take_failed_back(self) -> bool:
        """Undo all creations that failed; returns whether none is left. Until then they are kept for.

        Their records may be there, though storing them failed.
        """
        async with self._deleting:
            for taken in [taken for taken in self._taken if taken.has_failed]:
                try:
                    await self._end(taken)
                except StorageException as error:
                    facts = {"snapshot": taken.name, "error": str(error)}
                    log.warning("what is left of a snapshot that failed is not removed yet", extra=facts)
                    return False
        return True

    async def _write_manifest(self, draft: Path) -> None:
        writer = ObjectManifestWriter(draft)
        leaving = self._leaving()

        async def list_all(prefix: str, delimiter: str) -> list[str]:
            """Enter what lies below a prefix; returns the prefixes that the delimiter folds."""
            folded: list[str] = []
            page = None
            while True:
                found = await self._store.list_page(prefix, delimiter=delimiter, page=page)
                writer.add(each for each in found.objects if each.key not in leaving)
                folded += [name for name in found.prefixes if name != _RESERVED]
                page = found.next_page
                if page is None:
                    return folded

        try:
            below = await list_all("", "/")
            while len(below) == 1:  # all lies in one directory: look for more to share out
                below = await list_all(below[0], "/")
            await together(*(partial(list_all, name, "") for name in below), limit=_PARALLEL_LISTINGS)
            root = await self._store.list_page(ROOT_KEY, limit=1)
            writer.add(each for each in root.objects if each.key == ROOT_KEY)
            writer.finish()
        except BaseException:
            writer.discard()
            raise

    async def _publish(self, taken: TakenSnapshot, draft: Path, began: float) -> None:
        """Store the manifest, then the record: from then on the snapshot is there, also after a crash."""
        fingerprint = await measure(draft)
        key = _key(taken.name, _MANIFEST)
        await self._store_file(key, draft, fingerprint.size)
        stored_at = (await self._store.head(key)).modified_at
        taken.listed_at = stored_at - int(time.monotonic() - began) - 1
        taken.manifest = ObjectManifest(await self._local.keep(taken.name, draft, fingerprint))
        self._check_ownership()
        self._taken.append(taken)  # from now on the record may be there
        self._lost.clear()
        record = _Record(taken.created_at, taken.listed_at, fingerprint.size, fingerprint.sha256)
        body = json.dumps({"format": _FORMAT, **attrs.asdict(record)}, indent=1).encode()
        await self._store.put(_key(taken.name, _RECORD), body, content_type="application/json")
        taken.is_listed = True

    async def _store_file(self, key: str, path: Path, size: int) -> None:
        if size <= _CHUNK_BYTES:
            async with contextlib.aclosing(read_in_chunks(path, [size])) as chunks:
                await self._store.put(key, b"".join([chunk async for chunk in chunks]))
            return
        upload_id = await self._store.begin_upload(key)
        cuts = [part.end - part.start for part in parts_of(size)]
        parts: list[UploadedPart] = []
        async with contextlib.aclosing(read_in_chunks(path, cuts)) as chunks:
            async for chunk in chunks:
                parts.append(await self._store.put_part(key, upload_id, len(parts) + 1, chunk))
        await self._store.complete_upload(key, upload_id, parts)

    # -- keeping what changes -----------------------------------------------------------------------------------

    def _find_unkept(self, key: str, etag: str, snapshot_ids: Set[str] | None = None) -> ListedObject | None:
        """Return an object as a snapshot has it that would lose it; the newest may not have what an older one has.

        That is so of a file that was removed before the newest was taken, and that somebody has open still.

        Args:
            snapshot_ids: which are asked about; None = all.
        """
        if (key.startswith(_RESERVED) and key != ROOT_KEY) or (key, etag) in self._lost:
            return None
        for taken in reversed(self._taken):
            if self.kept.find(key, etag, taken.serial) is not None:
                return None
            is_asked = snapshot_ids is None or taken.snapshot_id in snapshot_ids
            found = taken.manifest.find(key) if is_asked and taken.manifest is not None else None
            if found is not None and found.etag == etag:
                return found
        return None

    async def keep(self, key: str, etag: str) -> None:
        """Copy an object for the snapshots that have it, where that is still to be done; durable after return.

        It returns without an await since it found that nothing is to be copied. Where others replaced the object, it is
        lost to the snapshots. Blocks for the store. Raises NoSpace: see Allowance.
        """
        while (found := self._find_unkept(key, etag)) is not None:
            under_way = self._keeping.get((key, etag))
            if under_way is not None:
                await under_way.wait()
                continue
            if not self.allowance.has_room(found.size):
                await self._make_room_for(found.size, lambda ids: self._find_unkept(key, etag, ids) is not None)
                continue
            self._check_ownership()
            done = self._keeping[key, etag] = trio.Event()
            self.allowance.promise(found.size)
            try:
                await self.kept.keep(ObjectVersion(key, etag, found.size), self._taken[-1].serial)
            except (Stale, NotFound) as error:
                await self._look_who_changed(key, etag, error)
            finally:
                self.allowance.settle(found.size)
                del self._keeping[key, etag]
                done.set()

    async def _make_room_for(self, size: int, is_needed_by: NeededBy) -> None:
        await self._take_failed_back()  # nobody sees those, and nobody could delete them
        if not self.allowance.has_room(size):
            await self.allowance.make_room_for(size, is_needed_by)

    async def _look_who_changed(self, key: str, etag: str, error: StorageException) -> None:
        """Note that others took an object from the snapshots. Raises Unavailable: it is there, and was not copied."""
        with contextlib.suppress(NotFound):
            if (await self._store.head(key)).etag == etag:
                raise Unavailable(f"{key} could not be copied for the snapshots that have it: {error}") from error
        log.warning("others changed an object that a snapshot has: it is lost to that", extra={"key": key})
        self._lost.add((key, etag))

    @property
    def is_busy(self) -> bool:
        """Whether something is being copied or stored for snapshots."""
        return bool(self._keeping) or self._creating.locked()

    @property
    def has_any(self) -> bool:
        """Whether something may have to be kept."""
        return bool(self._taken)

    # -- deleting -----------------------------------------------------------------------------------------------

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot. It is gone, also after a crash, once its record is. Raises NotFound."""
        async with self._deleting:
            await self._end(self.find(snapshot_id))

    async def _end(self, taken: TakenSnapshot) -> None:
        """Remove the record, and then what nobody needs any more."""
        self._check_ownership()
        await self._store.delete(_key(taken.name, _RECORD))
        if taken in self._taken:
            self._taken.remove(taken)
        with trio.CancelScope(shield=True):
            for done in list(self._keeping.values()):
                await done.wait()
            try:
                if taken.manifest is not None or taken.damaged:
                    await self._drop(await self._find_unneeded(taken))
                await self._remove(taken.name)
            except StorageException as error:
                facts = {"snapshot": taken.name, "error": str(error)}
                log.warning("what a snapshot kept that is gone is cleared away at the next mount", extra=facts)
            if taken.manifest is not None:
                taken.manifest.close()

    async def _find_unneeded(self, gone: TakenSnapshot | None = None) -> set[tuple[str, int]]:
        """Return the copies that no snapshot needs, or those that only one needed which is gone."""
        if any(taken.damaged for taken in self._taken):
            return set()  # nobody knows what a damaged one needs
        if gone is not None and gone.manifest is not None:
            return await self._needed_by(gone, but_for=self._taken)
        names = set(self.kept.names())  # before what is kept while this looks
        for taken in list(self._taken):
            if taken.manifest is not None:
                names -= await self._needed_by(taken)
        return names

    async def measure_kept(self, snapshot_ids: Set[str]) -> int:
        """Return how many bytes of copies only these snapshots need; what a damaged one needs counts nothing."""
        needed: set[tuple[str, int]] = set()
        for taken in list(self._taken):
            if taken.snapshot_id in snapshot_ids and taken.manifest is not None:
                with contextlib.suppress(Stale):  # it is deleted meanwhile
                    needed |= await self._needed_by(taken)
        return self.kept.measure(needed)

    async def _needed_by(self, taken: TakenSnapshot, but_for: Sequence[TakenSnapshot] = ()) -> set[tuple[str, int]]:
        """Return the copies that a snapshot needs, and none of others does."""
        assert taken.manifest is not None
        needed: set[tuple[str, int]] = set()
        for number, found in enumerate(taken.manifest.objects()):
            serial = self.kept.find(found.key, found.etag, taken.serial)
            if serial is not None and not any(self._needs(other, found, serial) for other in but_for):
                needed.add(self.kept.name(found.key, found.etag, serial))
            if number % _ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return needed

    def _needs(self, taken: TakenSnapshot, object_: ListedObject, serial: int) -> bool:
        if taken.manifest is None:  # of one that is being taken, or failed
            return False
        if self.kept.find(object_.key, object_.etag, taken.serial) != serial:
            return False
        found = taken.manifest.find(object_.key)
        return found is not None and found.etag == object_.etag

    async def _sweep(self, remains: list[str]) -> None:
        """Remove the copies that no snapshot needs, and what is left of those that are none. A failure is only told."""
        log.warning("what is left of snapshots that are none is cleared away", extra={"snapshots": remains})
        try:
            self._check_ownership()
            await self._drop(await self._find_unneeded())
            for name in remains:
                await self._remove(name)
        except StorageException as error:
            log.warning("it is not cleared away yet; the next mount tries again", extra={"error": str(error)})

    async def _drop(self, names: Iterable[tuple[str, int]]) -> None:
        """Delete copies. Raises what the store raises, once all were tried."""
        failed: list[StorageException] = []
        limiter = trio.CapacityLimiter(_PARALLEL)

        async def drop(digest: str, serial: int) -> None:
            async with limiter:
                try:
                    await self.kept.drop(digest, serial)
                except StorageException as error:
                    failed.append(error)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(drop, *name)
        if failed:
            raise failed[0]

    async def _remove(self, name: str) -> None:
        """Remove what is left of a snapshot, the record first."""
        self._local.forget(name)
        for file in (_RECORD, _MANIFEST):
            await self._store.delete(_key(name, file))

    def close(self) -> None:
        """Give back what is held."""
        for taken in self._taken:
            if taken.manifest is not None:
                taken.manifest.close()


def _key(name: str, file: str) -> str:
    return f"{PLACE}{name}/{file}"


def _parse(content: bytes) -> _Record | None:
    """Return what a record says, None where it is damaged. Raises Unsupported: a newer version wrote it."""
    try:
        found: dict[str, Any] = json.loads(content)
        version = found.pop("format")
        if version > _FORMAT:
            raise Unsupported(f"a snapshot has format {version}, this version knows {_FORMAT}: upgrade volgate")
        return _Record(**found)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
