"""What was changed here and is not in the bucket yet, by key; kept in the journal.

An *entry* says what one key shall hold: a node, or nothing. Changes merge in it until they are uploaded: a file that is
created, chmodded and renamed is one PUT. ``record`` writes entries into the journal in one atomic batch, with the
volume's usage after it; that is what a crash leaves. ``uploads`` turns entries into requests.

All calls but ``sync`` are steps of one event loop.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from volgate.cache.entries import Entries
from volgate.cache.nodes import Directory, Node, note_change
from volgate.core.content_map import ContentMap
from volgate.core.pending import DoneEntry, PendingContent, PendingEntry
from volgate.dto import Usage

if TYPE_CHECKING:
    from volgate.cache.journal import Journal
    from volgate.cache.staging import StagedFile, Staging

MAX_BUFFERED_BYTES: Final = 32 << 20
"""How much of small contents stays in memory once it is in the journal."""
NEVER_RECORDED: Final = -1


class Work:
    """What of a node is not in the bucket.

    Attributes:
        content: where its bytes lie; None = the content is the object's, only attributes or the key changed.
        buffer: the whole content, where it is small.
        is_journaled: the whole content lies in the journal, whether there is a buffer or not.
        staged: the file that has the staged ranges, where the content is large.
        recorded: the staged file that the journal names; another one where the content was begun anew since.
        base_size: size of the object that the rest of the content comes from.
        keeps_metadata: the object's metadata says all that the node's attributes say.
        revision: counts changes of content.
        touched: ranges changed while an upload in parts reads the content; None while there is none.
        calm: whose upload keeps writers waiting; None while none does.
        is_settled: the content may go into the journal; False from a write until its close, fsync or rename.
    """

    __slots__ = (
        "base_size", "buffer", "calm", "content", "is_journaled", "is_settled", "keeps_metadata", "recorded",
        "revision", "staged", "touched",
    )  # fmt: skip

    def __init__(self, base_size: int) -> None:
        self.content: ContentMap | None = None
        self.buffer: bytearray | None = None
        self.is_journaled = False
        self.staged: StagedFile | None = None
        self.recorded: StagedFile | None = None
        self.base_size = base_size
        self.keeps_metadata = True
        self.revision = 0
        self.touched: list[tuple[int, int]] | None = None
        self.calm: Entry | None = None
        self.is_settled = True

    @property
    def kept_bytes(self) -> int:
        """How many of the object's bytes still count."""
        return self.base_size if self.content is None else self.content.base_end

    def read_staged(self, start: int, end: int) -> bytes:
        """Return a range whose origin is "staged"; zeros where the content was begun anew since that was said."""
        if self.buffer is not None:
            return bytes(self.buffer[start:end]).ljust(end - start, b"\0")
        return self.staged.read(start, end - start) if self.staged is not None else bytes(end - start)


class Entry:
    """What one key shall hold.

    Attributes:
        key: of the object.
        remote_etag: what the bucket is believed to hold there; None = nothing.
        node: what it shall hold; None = nothing.
        place: the directory and name of the node that left; None where it is not known.
        since: UNIX seconds of the first change.
        changes: counts them. recorded: the count that the journal has, or NEVER_RECORDED.
        sequence: of the journal's last record of it.
        era: what all uploads of this entry name themselves, up to a number.
        uploads: how many were begun, by an owner before, too. uploaded: the count of changes that the last one had.
        is_queued: the uploader has it in its queue.
        running: set while an upload is under way; ends with it.
        refused: "" or why the bucket refuses it for good.
        error: what the last try failed with.
        failures: tries that failed since the last that did not. contradicted: by conditions that should have held.
        parts_done: parts of uploads that were stored.
    """

    __slots__ = (
        "changes", "contradicted", "era", "error", "failures", "is_queued", "key", "node", "parts_done", "place",
        "recorded", "refused", "remote_etag", "running", "sequence", "since", "uploaded", "uploads",
    )  # fmt: skip

    def __init__(self, key: str, remote_etag: str | None, node: Node | None) -> None:
        self.key = key
        self.remote_etag = remote_etag
        self.node = node
        self.place: tuple[Directory, bytes] | None = None
        self.since = time.time()
        self.changes = 1
        self.recorded = NEVER_RECORDED
        self.sequence = 0
        self.era = secrets.token_hex(8)
        self.uploads = 0
        self.uploaded = 0
        self.is_queued = False
        self.running: trio.Event | None = None
        self.refused = ""
        self.error = ""
        self.failures = self.contradicted = 0
        self.parts_done = 0

    @property
    def is_recorded(self) -> bool:
        """Whether the journal knows its last change."""
        return self.recorded == self.changes


class Overlay:
    """All entries of a volume.

    Args:
        journal: open and replayed. staging: open.
        on_recorded: called for each entry that may be uploaded from now on.

    Attributes:
        entries: by key.
        usage: what the volume counts by the journal; None while it was never counted.
    """

    def __init__(self, journal: Journal, staging: Staging, on_recorded: Callable[[Entry], None]) -> None:
        self.journal = journal
        self.staging = staging
        self.entries = Entries()
        self.usage: Usage | None = journal.usage
        self._touched: dict[str, Usage] | None = None
        self._on_recorded = on_recorded
        self._relative = [0, 0]
        self._sequence = 0
        self._buffered_bytes = 0
        self._changed: set[Entry] = set()
        self._based: dict[str, set[Node]] = {}
        self._discarded: list[StagedFile] = []
        self._forgotten: list[DoneEntry] = []
        self._unneeded: deque[tuple[int, StagedFile]] = deque()
        """Files that no record names any more, each with the record from which on that is so."""

    # -- changing -----------------------------------------------------------------------------------------------

    def work_of(self, node: Node) -> Work:
        """Return a node's work, begun where there was none."""
        if node.work is None:
            node.work = Work(node.size if node.etag is not None else 0)
        return node.work

    def pend(self, node: Node) -> Entry:
        """Note that a node differs from what the bucket has under its key."""
        self.work_of(node)
        key = node.key
        if node.base_key == key:
            self.set_base_key(node, None)
        entry = self.entries.get(key)
        if entry is None:
            entry = self._enter(Entry(key, node.etag if node.base_key is None else None, node), node)
        else:
            entry.changes += 1
            entry.node = node
        if node.base_key is not None and node.base_key not in self.entries:  # the object of another tool's odd key
            self.remove_later(node.base_key, node.etag)
        self._changed.add(entry)
        return entry

    def vacate(self, node: Node) -> None:
        """Note that a node leaves its key: whatever the bucket has there shall go. Its content stays reachable."""
        key = node.key
        entry = self.entries.get(key)
        if entry is not None:
            entry.node = None
            entry.changes += 1
            self._changed.add(entry)
        elif node.etag is not None and node.base_key is None:
            entry = self._enter(Entry(key, node.etag, None), node)
            self._changed.add(entry)
        if entry is not None and node.parent is not None and node.parent.directory is not None:
            entry.place = node.parent.directory, node.name
        if node.etag is None:
            return
        if node.base_key is None:
            self.set_base_key(node, key)
        elif node.base_key not in self.entries:
            self.remove_later(node.base_key, node.etag)

    def remove_later(self, key: str, etag: str | None) -> Entry:
        """Note that an object, which no node is, shall go; returns the entry that says so."""
        entry = self.entries.get(key) or self._enter(Entry(key, etag, None), None)
        self._changed.add(entry)
        return entry

    def _enter(self, entry: Entry, before: Node | None) -> Entry:
        self.entries[entry.key] = entry
        if self._touched is not None and entry.key not in self._touched:
            recorded = before.recorded if before is not None else -1
            self._touched[entry.key] = Usage(max(0, recorded), int(recorded >= 0))
        return entry

    def give_up(self, entry: Entry) -> None:
        """Forget an entry, whatever the bucket has under its key; the next record says so."""
        del self.entries[entry.key]
        self._changed.discard(entry)
        if entry.recorded != NEVER_RECORDED:
            self._forgotten.append(DoneEntry(entry.key))

    def rekey(self, entry: Entry, key: str) -> Entry:
        """Let another key hold what an entry holds; the next record says so."""
        work = entry.node.work if entry.node is not None else None
        if work is not None and work.is_journaled:
            if work.buffer is None:
                work.buffer = bytearray(self.journal.read_inline(entry.key))
                self._buffered_bytes += len(work.buffer)
            self.note_changed_buffer(work)
        self.give_up(entry)
        if key in self.entries:
            self._changed.discard(self.entries[key])
        moved = self.entries[key] = Entry(key, None, entry.node)
        moved.since = entry.since
        self._changed.add(moved)
        return moved

    def set_base_key(self, node: Node, key: str | None) -> None:
        """Note where the object lies that a node's content is made of; None = under its own key."""
        before = node.base_key
        if before is not None:
            based = self._based.get(before, set())
            based.discard(node)
            if not based:
                self._based.pop(before, None)
                entry = self.entries.get(before)
                if entry is not None and entry.is_recorded:
                    self._on_recorded(entry)
        node.base_key = key
        if key is not None:
            self._based.setdefault(key, set()).add(node)

    def let_be_made_of(self, node: Node, key: str, etag: str, size: int) -> None:
        """Let an object, whole, be a file's content, in place of what that was; its own metadata stays."""
        self.pend(node)
        work = self.work_of(node)
        self.begin_anew(work)
        work.content = work.buffer = None
        work.base_size, work.keeps_metadata = size, False
        work.revision += 1
        node.etag, node.size = etag, size
        self.set_base_key(node, key)
        node.touch(time.time_ns())

    def lose_base(self, node: Node) -> None:
        """Note that the object that a node's content is made of is not there any more, so nothing waits for it."""
        key = node.base_key
        self.set_base_key(node, None)
        node.base_key = key

    def based_on(self, key: str) -> set[Node]:
        """Return the nodes elsewhere whose content is made of the object under a key."""
        return self._based.get(key, set())

    # -- usage --------------------------------------------------------------------------------------------------

    def count(self, node: Node) -> None:
        """Count a node as it is now in the usage of the next record."""
        size = node.charged_size
        self._relative[0] += size - max(0, node.recorded)
        self._relative[1] += node.recorded < 0
        node.recorded = size

    def discount(self, node: Node) -> None:
        """Take a node out of the usage of the next record."""
        if node.recorded >= 0:
            self._relative[0] -= node.recorded
            self._relative[1] -= 1
            node.recorded = -1

    def add_usage(self, usage: Usage) -> None:
        """Count in the next record what the bucket has, and no node of this overlay stands for."""
        self._relative[0] += usage.bytes_
        self._relative[1] += usage.inodes

    def begin_counting(self) -> dict[str, Usage]:
        """Begin to note what each key that changes counted before; returns where that is noted.

        What is pending now counts as it was recorded last. Raises NoSpace: what it counts cannot be recorded.
        """
        if self.usage is None:
            self._relative = [0, 0]
        elif self._relative != [0, 0]:
            self._append([])
        self._touched = {
            key: Usage(max(0, entry.node.recorded), int(entry.node.recorded >= 0)) if entry.node else Usage(0, 0)
            for key, entry in self.entries.items()
        }
        return self._touched

    def forget_counting(self) -> None:
        """End a counting whose result is not wanted; the usage stays what it was."""
        self._touched = None

    def end_counting(self, usage: Usage, believed: Usage | None) -> None:
        """Take for the usage what the volume counted when counting began; what changed since comes on top.

        Args:
            believed: what the usage was when counting began; None = it was not known.
        """
        self._touched = None
        if self.usage is not None and believed is not None:
            bytes_ = usage.bytes_ + self.usage.bytes_ - believed.bytes_
            usage = Usage(bytes_, usage.inodes + self.usage.inodes - believed.inodes)
        self.usage = usage
        self._append([])

    # -- the journal --------------------------------------------------------------------------------------------

    def record(self, settled: Node | None = None) -> int:
        """Write what changed since the last record into the journal, as one batch; returns its sequence number.

        Files that are being written are left out, but for ``settled``, whose staged content is synced.

        Raises:
            NoSpace: the disk is full; the changes stand in memory, and come with the next record.
        """
        if settled is not None and settled.work is not None:
            settled.work.is_settled = True
        batch: list[PendingEntry | DoneEntry] = [*self._forgotten]
        kept: list[Entry] = []
        for entry in list(self._changed):
            node = entry.node
            if node is None and entry.remote_etag is None and not entry.uploads:
                if entry.recorded != NEVER_RECORDED:
                    batch.append(DoneEntry(entry.key))
                del self.entries[entry.key]
                self._changed.discard(entry)
            elif node is None or node.work is None or node.work.is_settled:
                if node is not None:
                    self.count(node)
                kept.append(entry)
                batch.append(self._described(entry))
        sequence = self._append(batch) if batch else self._sequence
        self._forgotten.clear()
        self._retire_discarded(sequence)
        for entry in kept:
            entry.recorded = entry.changes
            entry.sequence = sequence
            self._changed.discard(entry)
            if entry.node is not None:
                self._note_journaled(entry.node, sequence)
            self._on_recorded(entry)
        return sequence

    def _append(self, batch: list[PendingEntry | DoneEntry]) -> int:
        usage = self.usage
        if usage is not None:
            usage = Usage(usage.bytes_ + self._relative[0], usage.inodes + self._relative[1])
        self._sequence = self.journal.append(batch, usage, Usage(0, 0))
        if usage is not None:
            self.usage, self._relative = usage, [0, 0]
        return self._sequence

    def _described(self, entry: Entry) -> PendingEntry:
        node = entry.node
        content = None
        if node is not None:
            work = self.work_of(node)
            inline = None
            if work.buffer is not None:
                inline = bytes(work.buffer)
            elif work.is_journaled:
                inline = self.journal.read_inline(entry.key)
            content = PendingContent(
                ino=node.ino,
                attributes=node.to_stored(),
                size=node.size,
                base=node.base if inline is None and work.kept_bytes else None,
                base_end=work.kept_bytes if inline is None else 0,
                dirty=work.content.staged if work.content is not None and inline is None else (),
                staging=work.staged.name if work.staged is not None and inline is None else None,
                inline=inline,
                keeps_metadata=work.keeps_metadata and work.content is None,
                extra_metadata=node.extra,
                content_type=node.content_type,
            )
        return PendingEntry(
            key=entry.key,
            remote_etag=entry.remote_etag,
            content=content,
            since=entry.since,
            commit_id=entry.era,
            refused=entry.refused,
        )

    def _note_journaled(self, node: Node, sequence: int) -> None:
        work = node.work
        if work is None:
            return
        if work.recorded is not work.staged:
            if work.recorded is not None:
                self._retire(work.recorded, sequence)
            work.recorded = work.staged
        if work.buffer is None:
            return
        if not work.is_journaled:
            work.is_journaled = True
            self._buffered_bytes += len(work.buffer)
        if self._buffered_bytes > MAX_BUFFERED_BYTES and not node.handles:
            self._buffered_bytes -= len(work.buffer)
            work.buffer = None

    def _retire_discarded(self, sequence: int) -> None:
        while self._discarded:
            self._retire(self._discarded.pop(), sequence)

    def _retire(self, file: StagedFile, sequence: int) -> None:
        self.staging.retire(file)
        self._unneeded.append((sequence, file))

    def load_buffer(self, node: Node) -> bytearray:
        """Return a small content that was changed here, read from the journal where it is not in memory."""
        work = self.work_of(node)
        if work.buffer is None:
            work.buffer = bytearray(self.journal.read_inline(node.key))
            self._buffered_bytes += len(work.buffer)
        return work.buffer

    def note_changed_buffer(self, work: Work) -> None:
        """Note that a buffer is about to differ from what the journal has."""
        if work.is_journaled:
            work.is_journaled = False
            self._buffered_bytes -= len(work.buffer or b"")

    async def sync(self, sequence: int) -> None:
        """Return when the journal is durable up to a record."""
        await self.journal.sync(sequence)
        while self._unneeded and self._unneeded[0][0] <= sequence:
            self.staging.remove(self._unneeded.popleft()[1])

    async def sync_all(self) -> None:
        """Return when the journal is durable as it is at the call."""
        await self.sync(self._sequence)

    async def give_back(self) -> None:
        """Remove the staged files that no record names any more, once that is durable."""
        if self._unneeded:
            await self.sync(self._unneeded[-1][0])

    # -- the bucket has it --------------------------------------------------------------------------------------

    def restore(self, entry: Entry) -> None:
        """Take in an entry that the journal has: its owner may have uploaded it, and died before it noted that."""
        entry.uploads = 1
        self.entries[entry.key] = entry
        self._on_recorded(entry)

    def forget(self, key: str) -> None:
        """Drop an entry that the journal has and that is not valid any more; the usage is to be counted anew."""
        self.usage = None
        self._append([DoneEntry(key)])

    def change(self, entry: Entry, settled: Node | None = None) -> None:
        """Note that what is believed of the bucket changed, or that an entry is to be tried again; as ``record``."""
        self._changed.add(entry)
        self.record(settled)

    def finish(self, entry: Entry) -> None:
        """Forget an entry whose key holds in the bucket what it shall hold. Raises NoSpace: it is not forgotten."""
        if entry.node is not None and not entry.node.is_unlinked:
            self.count(entry.node)
        if entry.recorded != NEVER_RECORDED or self._relative != [0, 0]:
            self._append([DoneEntry(entry.key)] if entry.recorded != NEVER_RECORDED else [])
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]
        self._changed.discard(entry)
        node = entry.node
        if node is not None:
            self.discard_work(node)
            self._retire_discarded(self._sequence)
            if node.parent is not None and node.parent.directory is not None:
                note_change(node.parent.directory, node.name)
        elif entry.place is not None:
            note_change(*entry.place)

    def discard_work(self, node: Node) -> None:
        """Give back what a node staged once the journal on the disk says that nobody needs it."""
        work, node.work = node.work, None
        if work is not None:
            recorded, work.recorded = work.recorded, None
            if recorded is not None:
                self._discarded.append(recorded)
            if work.staged is recorded:
                work.staged = None
            self._give_back(work)

    def begin_anew(self, work: Work) -> None:
        """Let a content be empty. The staged file that the journal names stays until it names another."""
        self.note_changed_buffer(work)
        if work.staged is not None and work.staged is not work.recorded:
            self.staging.remove(work.staged)
        work.staged = None
        work.content, work.buffer = ContentMap(0, 0), bytearray()

    def _give_back(self, work: Work) -> None:
        if work.is_journaled and work.buffer is not None:
            self._buffered_bytes -= len(work.buffer)
        for file in {work.staged, work.recorded}:
            if file is not None:
                self.staging.remove(file)
