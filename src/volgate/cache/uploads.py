"""Makes the bucket hold what the overlay says, one key at a time: puts, uploads in parts, copies and deletes.

Every request that changes an object has a condition: the object is still the one that was believed to stand there. A
condition that fails is looked into: an upload of ours whose reply was lost, or which an earlier process had begun,
counts as done; anything else is somebody else's change, and ours goes into quarantine.

An object that is the source of another key's content is not touched before that key is done. Where that would be a
circle (two names were exchanged), or a file is still open that was removed, the source is copied aside first.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import mimetypes
import stat
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from volgate.cache.copying import copy_in_parts, copy_object
from volgate.cache.nodes import MADE_HERE
from volgate.concurrency import note_progress
from volgate.core.content_map import ContentMap, Origin
from volgate.core.object_metadata import encode
from volgate.core.object_version import ObjectVersion
from volgate.core.parts import Part, parts_of
from volgate.drivers.object_store import COMMIT_KEY
from volgate.errors import (
    AlreadyExists,
    InputOutput,
    NoSpace,
    NotFound,
    PermissionDenied,
    Stale,
    StorageException,
    Unavailable,
)

if TYPE_CHECKING:
    from volgate.cache.block_store import BlockStore
    from volgate.cache.nodes import Node
    from volgate.cache.overlay import Entry, Overlay, Work
    from volgate.cache.reading import Reading
    from volgate.cache.snapshots.bucket import BucketSnapshots
    from volgate.drivers.object_store import ObjectInfo, ObjectReader, ObjectStore, UploadedPart

log = logging.getLogger(__name__)

_SINGLE_BYTES: Final = 8 << 20
"""Up to this size a file is one PUT."""
_MERGE_S: Final = 0.1
"""How long a change waits for others that make one upload with it: rename and utimens follow a close at once."""
_PARALLEL: Final = 32
_PARALLEL_PARTS: Final = 6
"""As many fill a line of 1 Gbit/s and 20 ms; 16 overrun its queue (measured: 102 and 78 MB/s)."""
_MAX_PAUSE_S: Final = 30.0
_CONTRADICTIONS: Final = 5
_CONTRADICTED_S: Final = 0.2
_CALM_PASSES: Final = 3
"""After so many passes over a file that is being written on, its writers wait for the upload."""
_LOOK_S: Final = 1.0
_ASIDE: Final = ".volgate/aside/"


@attrs.frozen
class Backlog:
    """What the bucket does not have yet.

    Attributes:
        files: keys, the refused ones included. bytes_: of content in them.
        oldest_s: age of the oldest change that is not refused. oldest_key: its key.
        refused: keys that the bucket refuses for good. error: what the last failure said, "" without one.
    """

    files: int
    bytes_: int
    oldest_s: float
    oldest_key: str
    refused: int
    error: str


async def wait_for_upload(entry: Entry) -> None:
    """Return when the upload that another task makes is at an end; as long as it moves, so does who waits for it."""
    end, parts_done = entry.running, entry.parts_done
    while end is not None and not end.is_set():
        with trio.move_on_after(_LOOK_S):
            await end.wait()
        if entry.parts_done != parts_done:
            parts_done = entry.parts_done
            note_progress()


class Uploads:
    """See the module.

    Args:
        store: open. overlay: what is to be done. reading: of contents that are kept.
        blocks: takes what was uploaded.
        check_ownership: raises where this host may not write any more; called before every change.
        on_conflict: called with an entry that lost to somebody else's object, that object, and what happened; without
            an await since the object was seen.
        snapshots: keep an object before it is replaced or deleted.
    """

    def __init__(
        self,
        store: ObjectStore,
        overlay: Overlay,
        reading: Reading,
        blocks: BlockStore,
        check_ownership: Callable[[], None],
        on_conflict: Callable[[Entry, ObjectInfo, str], None],
        snapshots: BucketSnapshots,
    ) -> None:
        self._store = store
        self._overlay = overlay
        self._reading = reading
        self._blocks = blocks
        self._check_ownership = check_ownership
        self._on_conflict = on_conflict
        self._snapshots = snapshots
        self._queue: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()
        self._woken = trio.Event()
        self._slots = trio.Semaphore(_PARALLEL)
        self._parts = trio.CapacityLimiter(_PARALLEL_PARTS)
        self._error = ""
        self.stored_bytes = 0
        """Of content that was put into the bucket; copies within it do not count."""

    # -- in the background --------------------------------------------------------------------------------------

    def queue(self, entry: Entry) -> None:
        """Upload an entry soon."""
        if not entry.is_queued and not entry.refused:
            self._queue_in(entry, _MERGE_S)

    def _queue_in(self, entry: Entry, pause_s: float) -> None:
        entry.is_queued = True
        heapq.heappush(self._queue, (time.monotonic() + pause_s, next(self._numbers), entry))
        self._woken.set()

    async def run(self) -> None:
        """Upload what is queued until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._slots.acquire()
                entry = await self._next()
                nursery.start_soon(self._upload, entry)

    async def _next(self) -> Entry:
        while not self._queue or self._queue[0][0] > time.monotonic():
            self._woken = trio.Event()
            pause_s = self._queue[0][0] - time.monotonic() if self._queue else float("inf")
            with trio.move_on_after(max(0.0, pause_s)):
                await self._woken.wait()
        _, _, entry = heapq.heappop(self._queue)
        entry.is_queued = False
        return entry

    async def _upload(self, entry: Entry) -> None:
        try:
            await self.commit(entry)
        except StorageException as error:
            self.note_failure(entry, error)
        finally:
            self._slots.release()

    def note_failure(self, entry: Entry, error: StorageException) -> None:
        """Note that a commit failed, and try it again later."""
        entry.error = str(error)
        if entry.refused or self._overlay.entries.get(entry.key) is not entry:
            return
        self._error = entry.error
        entry.failures += 1
        pause_s = min(_MAX_PAUSE_S, 0.5 * 2 ** min(entry.failures, 10))
        if entry.failures == 1:
            log.warning("an upload failed; it is tried again", extra={"key": entry.key, "error": str(error)})
        if not entry.is_queued:
            self._queue_in(entry, pause_s)

    def backlog(self) -> Backlog:
        """Return what the bucket does not have yet."""
        entries = self._overlay.entries.values()
        waiting = [entry for entry in entries if not entry.refused]
        oldest = min(waiting, key=lambda entry: entry.since, default=None)
        return Backlog(
            len(entries),
            sum(_waiting_bytes(entry) for entry in entries),
            max(0.0, time.time() - oldest.since) if oldest is not None else 0.0,
            oldest.key if oldest is not None else "",
            len(entries) - len(waiting),
            self._error if waiting else "",
        )

    # -- one key ------------------------------------------------------------------------------------------------

    async def commit(self, entry: Entry, above: frozenset[Entry] = frozenset()) -> None:
        """Return when the bucket has what an entry held at the call, or something later.

        Raises:
            InputOutput: it is refused for good, or lies in quarantine. Unavailable: not now; it will be tried again.
        """
        wanted = entry.changes
        while self._overlay.entries.get(entry.key) is entry and entry.uploaded < wanted:
            _check_refused(entry)
            if entry.running is not None:
                await wait_for_upload(entry)
            elif not entry.is_recorded:
                await self._record(entry)
            elif not await self._wait_for_dependants(entry, above):
                await self._remove_below(entry)
                if entry.node is None and self._overlay.based_on(entry.key):
                    return  # a removed file is still open; the last close brings it back
                await self._perform(entry)
        _check_refused(entry)

    async def _record(self, entry: Entry) -> None:
        """Have the journal know what is about to be uploaded, so that a crash leaves it counted."""
        node = entry.node
        work = node.work if node is not None else None
        while work is not None and work.staged is not None and not work.staged.is_synced:
            await work.staged.sync()
        if entry.node is node and self._overlay.entries.get(entry.key) is entry:
            self._overlay.change(entry, node)

    async def _wait_for_dependants(self, entry: Entry, above: frozenset[Entry]) -> bool:
        """Get out of the way what is made of the object under a key; returns whether that took a while."""
        for node in self._overlay.based_on(entry.key):
            if node is entry.node:
                continue
            if node.is_unlinked:
                if entry.node is None:
                    continue
                await self._move_aside(entry)
                return True
            other = self._overlay.entries.get(node.key)
            if other is None or (other.refused and (entry.node is None or node.etag != entry.remote_etag)):
                continue
            if other.refused or other in above or other is entry:
                await self._move_aside(entry)
            else:
                await self.commit(other, above | {entry})
            return True
        return False

    async def _remove_below(self, entry: Entry) -> None:
        """Delete what lies in a directory before the directory.

        A server that keeps objects in a file system may else leave an empty directory there, which is listed (seen with
        versitygw 1.8: the last file in it was deleted while the directory's own attributes were).
        """
        if entry.node is None and entry.key.endswith("/"):
            for below in list(self._overlay.entries.below(entry.key)):
                if below.node is None and not below.refused:
                    await self.commit(below)

    async def _move_aside(self, entry: Entry) -> None:
        """Copy the object under a key, so that what is made of it is not in the way of what comes there."""
        base = next(node for node in self._overlay.based_on(entry.key) if node is not entry.node).base
        if base is None:
            return
        async with self._made_aside(entry) as aside:
            with contextlib.suppress(Stale, NotFound):  # else others replaced it: what is left of it is what is cached
                aside.remote_etag = await copy_object(self._store, base, aside.key)
            for node in [node for node in self._overlay.based_on(entry.key) if node is not entry.node]:
                if node.etag == base.etag:
                    self._rebase(node, aside)

    @contextlib.asynccontextmanager
    async def _made_aside(self, *others: Entry) -> AsyncIterator[Entry]:
        """Give the entry of an object that is about to lie aside until nothing is made of it any more.

        The journal knows of it before it is in the bucket. Neither it nor ``others`` are uploaded meanwhile.
        """
        self._check_ownership()
        aside = self._overlay.remove_later(_ASIDE + uuid.uuid4().hex, None)
        aside.uploads = 1
        made = trio.Event()
        for entry in (aside, *others):
            entry.running = made
        try:
            await self._overlay.sync(self._overlay.record())
            yield aside
            self._overlay.change(aside)
        finally:
            for entry in (aside, *others):
                entry.running = None
            made.set()

    async def take_content(self, node: Node, store: ObjectReader, version: ObjectVersion) -> None:
        """Let a node's content be that of an object of another store, which the server copies.

        Raises:
            NotFound, Stale: that object is gone, or another than meant; or the node is. StorageException: the server
            does not copy it.
        """
        async with self._made_aside() as aside:
            aside.remote_etag = await copy_object(self._store, version, aside.key, store)
            while (entry := self._overlay.entries.get(node.key)) is not None and entry.running is not None:
                await wait_for_upload(entry)
            if node.is_unlinked:
                raise Stale(f"{node.key} was removed meanwhile")
            self._overlay.let_be_made_of(node, aside.key, aside.remote_etag, version.size)

    def _rebase(self, node: Node, aside: Entry) -> None:
        """Let a node's content be made of what was copied aside, where that is there."""
        if aside.remote_etag is None:
            self._overlay.lose_base(node)
            return
        self._overlay.set_base_key(node, aside.key)
        node.etag = aside.remote_etag
        if node.parent is not None:
            self._overlay.pend(node)

    async def _perform(self, entry: Entry) -> None:
        """Make the bucket hold what an entry holds now; the disk knows all that was recorded and done before that."""
        node = entry.node
        await self._overlay.sync_all()
        await self._snapshots.load()
        kept = None
        while (etag := entry.remote_etag) is not None and etag != kept:  # another upload may end meanwhile
            await self._snapshots.keep(entry.key, etag)
            kept = etag
        if entry.running is not None or not entry.is_recorded or self._overlay.entries.get(entry.key) is not entry:
            return
        if entry.node is not node:
            return  # it moved: what it is made of lies under this key, and nobody looked who needs that
        self._check_ownership()
        entry.running = trio.Event()
        entry.uploads += 1
        changes = entry.changes
        base = node.base if node is not None else None
        revision = _revision_of(node)
        try:
            if self._snapshots.has_any and entry.remote_etag is not None and not self._has_condition(node):
                await self._check_remote(entry)  # or what others put there, and a snapshot has, would go unseen
            if node is None:
                await self._delete(entry)
                self._note_done(entry, None, changes, None)
            else:
                await self._put_node(entry, node, changes)
            entry.failures = entry.contradicted = 0
            entry.error = self._error = ""
        except (Stale, AlreadyExists, NotFound) as error:
            if entry.node is not node or (node is not None and node.base != base):
                return  # what it was made of was moved aside meanwhile
            await self._look_into(entry, error)
        except (Unavailable, PermissionDenied, NoSpace):
            raise
        except StorageException as error:
            if entry.node is node and entry.changes == changes and _revision_of(node) == revision:
                self._refuse(entry, str(error))
                raise
            # The file went, moved, or was changed while it was uploaded: what its key is to hold now counts.
        finally:
            running, entry.running = entry.running, None
            running.set()

    def _refuse(self, entry: Entry, reason: str) -> None:
        entry.refused = reason
        entry.changes += 1
        self._overlay.change(entry)
        facts = {"event": "file.refused", "key": entry.key, "reason": reason}
        log.error("the bucket refuses a file; it stays here", extra=facts)

    def _has_condition(self, node: Node | None) -> bool:
        """Return whether a request that replaces an object or deletes it can have one."""
        able = self._store.capabilities
        return able.conditional_delete if node is None else able.conditional_put and able.conditional_complete

    async def _look_into(self, entry: Entry, error: StorageException) -> None:
        """Find out why a condition failed, and set right what is believed of the bucket."""
        try:
            found = await self._store.head(entry.key)
        except NotFound:
            if entry.remote_etag is None:
                await self._look_for_source(entry, error)
            entry.remote_etag = None
            return
        if _is_own(entry, found):
            if entry.remote_etag == found.etag and not self._is_outdated(entry, found):
                await self._look_for_source(entry, error)
            else:
                self._take_for_base(entry, found)
            return
        if entry.node is None:
            entry.uploaded = entry.changes
            self._overlay.finish(entry)  # somebody made it anew: it stays
            log.warning("an object was changed by others and is not deleted", extra={"key": entry.key})
            return
        if found.etag == entry.remote_etag:
            await self._look_for_source(entry, error)
            return
        self._on_conflict(entry, found, f"another writer put an object there ({error})")

    async def _look_for_source(self, entry: Entry, error: StorageException) -> None:
        """Refuse an entry where others changed what its content is made of; else the server contradicts itself.

        It did for a moment where directories were renamed (versitygw 1.8), so some tries wait for that.

        Raises:
            InputOutput: it is refused. Unavailable: the server goes on with it.
        """
        node = entry.node
        base = node.base if node is not None else None
        if node is not None and base is not None:
            try:
                found = (await self._store.head(base.key)).etag
            except NotFound:
                found = None
            if found != base.etag:
                self._overlay.lose_base(node)
                self._refuse(entry, str(error))
                raise InputOutput(f"{entry.key} cannot be made: {error}")
        entry.contradicted += 1
        if entry.contradicted >= _CONTRADICTIONS:
            raise Unavailable(f"the server contradicts itself: {error}") from error
        await trio.sleep(_CONTRADICTED_S)

    def _is_outdated(self, entry: Entry, found: ObjectInfo) -> bool:
        """Return whether an entry's content is made of an object that an upload of ours replaced."""
        node = entry.node
        return node is not None and node.etag is not None and node.object_key == entry.key and node.etag != found.etag

    async def look_for_own(self, entry: Entry) -> None:
        """Find out whether the object that an entry's content is made of was replaced by an upload of that entry."""
        await wait_for_upload(entry)
        try:
            found = await self._store.head(entry.key)
        except NotFound:
            return
        if _is_own(entry, found):
            self._take_for_base(entry, found)

    def _take_for_base(self, entry: Entry, found: ObjectInfo) -> None:
        """Let an entry's content be made of what an upload of ours made: it has what was kept of the object before.

        That was an upload of before a crash, or a try whose reply was lost.
        """
        entry.remote_etag = found.etag
        node = entry.node
        if node is None or not self._is_outdated(entry, found):
            return
        work = self._overlay.work_of(node)
        node.etag, work.base_size = found.etag, found.size
        if work.content is None:
            work.content = ContentMap(node.size, found.size)
        work.content.base_end = min(work.content.base_end, found.size)

    # -- requests -----------------------------------------------------------------------------------------------

    async def _delete(self, entry: Entry) -> None:
        etag = entry.remote_etag
        if etag is None:
            try:
                found = await self._store.head(entry.key)
            except NotFound:
                return
            if not _is_own(entry, found) and not entry.key.startswith(_ASIDE):
                return
            etag = found.etag
        await self._snapshots.keep(entry.key, etag)
        await self._store.delete(entry.key, if_match=etag if self._store.capabilities.conditional_delete else None)

    async def _put_node(self, entry: Entry, node: Node, changes: int) -> None:
        work = self._overlay.work_of(node)
        is_file = stat.S_ISREG(node.mode)
        if work.content is None and node.etag is not None and (is_file or stat.S_ISLNK(node.mode)) and node.size:
            size = work.base_size  # it may be written into meanwhile
            if node.base_key is None and work.keeps_metadata and entry.remote_etag == node.etag:
                etag = node.etag  # renamed there and back
            else:
                etag = await self._copy(entry, node)
            self._note_done(entry, node, changes, etag, size)
        elif not is_file or node.size <= _SINGLE_BYTES:
            body = await self._read_body(node, work)
            changes = entry.changes
            etag = await self._put(entry, node, body)
            if is_file and body:
                self._blocks.write(ObjectVersion(entry.key, etag, len(body)), 0, body)
            self._note_done(entry, node, changes, etag, len(body))
        else:
            await self._put_in_parts(entry, node, work)

    def _name_of(self, entry: Entry) -> str:
        """Return what this upload of an entry names itself, to be found again after a lost reply or a crash."""
        return f"{entry.era}-{entry.uploads}"

    def _describe(self, entry: Entry, node: Node) -> tuple[dict[str, str], str]:
        metadata = {**node.extra, **encode(node.to_stored()), COMMIT_KEY: self._name_of(entry)}
        if node.directory is not None:
            return metadata, "application/x-directory"
        return metadata, node.content_type or mimetypes.guess_type(entry.key)[0] or "application/octet-stream"

    async def _put(self, entry: Entry, node: Node, body: bytes) -> str:
        metadata, content_type = self._describe(entry, node)
        conditional = self._store.capabilities.conditional_put
        etag = await self._store.put(
            entry.key,
            body,
            metadata=metadata,
            content_type=content_type,
            if_absent=conditional and entry.remote_etag is None,
            if_match=entry.remote_etag if conditional else None,
        )
        self.stored_bytes += len(body)
        return etag

    async def _read_body(self, node: Node, work: Work) -> bytes:
        """Return a small content whole, as it is at one moment."""
        if node.directory is not None:
            return b""
        if stat.S_ISLNK(node.mode):
            return node.symlink_target or b""
        while True:
            if work.content is None:
                base = node.base
                return await self._reading.read(base, 0, base.size) if base is not None else b""
            if work.buffer is not None or work.is_journaled:
                return bytes(self._overlay.load_buffer(node))
            revision = work.revision
            origins = list(work.content.origins(0, node.size))
            pieces = [await self._read_piece(node, work, *piece) for piece in origins]
            if work.revision == revision:
                return b"".join(pieces)

    async def _read_piece(self, node: Node, work: Work, origin: Origin, start: int, end: int) -> bytes:
        if origin is Origin.STAGED:
            return work.read_staged(start, end)
        if origin is Origin.ZEROS:
            return bytes(end - start)
        base = node.base
        assert base is not None
        return await self._reading.read(base, start, end - start)

    async def _copy(self, entry: Entry, node: Node) -> str:
        """Make an object of another one, or of itself, within the bucket."""
        base = node.base
        assert base is not None
        await self._check_remote(entry, but_for=base)
        if node.known:
            metadata, content_type = self._describe(entry, node)
        else:  # moved before anybody looked at it: its metadata stays as it is, but for the name of this upload
            found = await self._store.head(base.key)
            metadata, content_type = {**found.metadata, COMMIT_KEY: self._name_of(entry)}, found.content_type
        if base.size > self._store.max_put_bytes:
            upload_id, parts = await copy_in_parts(self._store, base, entry.key, metadata, content_type)
            return await self._complete_upload(entry, upload_id, parts)
        return await self._store.copy(
            base.key, entry.key, source_etag=base.etag, metadata=metadata, content_type=content_type, size=base.size
        )

    async def _check_remote(self, entry: Entry, but_for: ObjectVersion | None = None) -> None:
        """Look at what stands under a key, where the request to come has no condition for that."""
        if but_for is not None and but_for.key == entry.key:
            return
        try:
            found = await self._store.head(entry.key)
        except NotFound:
            if entry.remote_etag is not None:
                raise Stale(f"{entry.key} was deleted") from None
            return
        if found.etag != entry.remote_etag:
            raise Stale(f"{entry.key} was changed")

    # -- in parts -----------------------------------------------------------------------------------------------

    async def _put_in_parts(self, entry: Entry, node: Node, work: Work) -> None:
        """Upload a large content while it may go on changing: what changes after it was read is uploaded again."""
        metadata, content_type = self._describe(entry, node)
        described, described_changes = node.to_stored(), entry.changes
        upload_id = await self._store.begin_upload(entry.key, metadata=metadata, content_type=content_type)
        done: dict[Part, UploadedPart] = {}
        touched: list[tuple[int, int]] = []
        work.touched = touched
        try:
            passes = 0
            while True:
                for start, end in touched:
                    for part in [part for part in done if part.start < end and start < part.end]:
                        del done[part]
                touched.clear()
                missing = [part for part in parts_of(node.size) if part not in done]
                if not missing:
                    break
                passes += 1
                if passes > _CALM_PASSES:
                    work.calm = entry
                await self._put_parts(entry, node, work, upload_id, missing, done)
            changes, revision, size = entry.changes, work.revision, node.size
            ordered = [done[part] for part in parts_of(size)]
            etag = await self._complete_upload(entry, upload_id, ordered)
        except BaseException:
            with trio.move_on_after(5, shield=True):
                try:
                    await self._store.abort_upload(entry.key, upload_id)
                except StorageException:
                    log.info("an upload was left behind; 'volgate gc' removes it", extra={"key": entry.key})
            raise
        finally:
            work.touched = work.calm = None
        if described != node.to_stored():
            changes = described_changes  # the content is there, and what its metadata says is older
        if entry.node is node and entry.changes != changes and work.revision == revision:
            self._keep_attributes_only(node, work, etag, size)
        self._note_done(entry, node, changes, etag, size)

    async def _put_parts(
        self,
        entry: Entry,
        node: Node,
        work: Work,
        upload_id: str,
        missing: list[Part],
        done: dict[Part, UploadedPart],
    ) -> None:
        failed: list[StorageException] = []

        async def put(part: Part) -> None:
            async with self._parts:
                if failed:
                    return
                try:
                    done[part] = await self._put_part(entry, node, work, upload_id, part)
                    entry.parts_done += 1
                    self.stored_bytes += part.end - part.start
                except StorageException as error:
                    failed.append(error)

        async with trio.open_nursery() as nursery:
            for part in missing:
                nursery.start_soon(put, part)
        if failed:
            raise failed[0]

    async def _put_part(self, entry: Entry, node: Node, work: Work, upload_id: str, part: Part) -> UploadedPart:
        assert work.content is not None
        base = node.base
        if base is not None and self._may_copy(work.content, part, node.size):
            return await self._store.copy_part(
                entry.key, upload_id, part.number, base.key, part.start, part.end - part.start, source_etag=base.etag
            )
        origins = list(work.content.origins(part.start, part.end))
        pieces = [await self._read_piece(node, work, *piece) for piece in origins]
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        body += bytes(part.end - part.start - len(body))
        return await self._store.put_part(entry.key, upload_id, part.number, body)

    def _may_copy(self, content: ContentMap, part: Part, size: int) -> bool:
        is_long_enough = part.end - part.start >= self._store.min_part_bytes or part.end == size
        return is_long_enough and content.is_kept(part.start, part.end)

    async def _complete_upload(self, entry: Entry, upload_id: str, parts: list[UploadedPart]) -> str:
        conditional = self._store.capabilities.conditional_complete
        if not conditional:
            await self._check_remote(entry)
        return await self._store.complete_upload(
            entry.key,
            upload_id,
            parts,
            if_absent=conditional and entry.remote_etag is None,
            if_match=entry.remote_etag if conditional else None,
        )

    # -- what was done --------------------------------------------------------------------------------------------

    def _keep_attributes_only(self, node: Node, work: Work, etag: str, size: int) -> None:
        """Give back what is staged: the content is in the bucket, and only attributes changed since."""
        self._overlay.discard_work(node)
        node.etag = etag
        self._overlay.set_base_key(node, None)
        self._overlay.work_of(node).keeps_metadata = False

    def _note_done(self, entry: Entry, node: Node | None, changes: int, etag: str | None, size: int = 0) -> None:
        """Note what the bucket holds under a key now. Without an await since it is known."""
        entry.remote_etag = etag
        if node is not None and etag is not None and self._is_of(node, entry):
            if node.work is not None:
                node.work.base_size = size
            node.etag = etag
            node.modified_at = MADE_HERE
            if entry.node is node:
                self._overlay.set_base_key(node, None)
        if entry.changes == changes and entry.node is node:
            if node is not None and node.parent is not None:
                node.checked_at = time.monotonic()
            self._overlay.finish(entry)
        else:
            self._overlay.change(entry)
        if entry.node is node:  # not where the local disk is full: it is done once more
            entry.uploaded = changes

    def _is_of(self, node: Node, entry: Entry) -> bool:
        """Return whether a node's content may be read from the object under an entry's key."""
        return entry.node is node or node.base_key == entry.key


def _is_own(entry: Entry, found: ObjectInfo) -> bool:
    """Return whether an object was made by an upload of an entry."""
    return found.metadata.get(COMMIT_KEY, "").startswith(entry.era)


def _revision_of(node: Node | None) -> int:
    """Return a number that is another one when what a file holds was changed."""
    return node.work.revision if node is not None and node.work is not None else 0


def _check_refused(entry: Entry) -> None:
    if entry.refused:
        raise InputOutput(f"{entry.key} is refused: {entry.refused}")


def _waiting_bytes(entry: Entry) -> int:
    """Return how many bytes an entry has that the bucket does not have."""
    work = entry.node.work if entry.node is not None else None
    if entry.node is None or work is None or work.content is None:
        return 0
    return work.content.staged_bytes if work.staged is not None else entry.node.size
