"""``CachedBackend``: files, directories and links made of an ObjectStore. See README.md here."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from volgate.cache.allocator import keep_freed_memory
from volgate.cache.block_store import BlockStore
from volgate.cache.counting import count_objects
from volgate.cache.identity import load_identity
from volgate.cache.journal import Journal
from volgate.cache.lease import Lease
from volgate.cache.names import Names
from volgate.cache.nodes import ASIDE_PREFIX, ROOT_KEY, Node, attach, decode_name, descendants, detach, new_ino
from volgate.cache.object_tree import CachedDirectory, ObjectTree
from volgate.cache.open_file import CachedFile
from volgate.cache.overlay import Entry, Overlay
from volgate.cache.quarantine import Quarantine
from volgate.cache.reading import Reading
from volgate.cache.snapshots.bucket import BucketSnapshots
from volgate.cache.snapshots.kept import PLACE
from volgate.cache.snapshots.view import KeptContents, SnapshotTop, SnapshotTree
from volgate.cache.staging import Staging
from volgate.cache.uploads import Backlog, Uploads
from volgate.core.content_map import ContentMap
from volgate.core.names import RCLONE_LINK
from volgate.core.object_metadata import MAX_METADATA_BYTES, encode, measure
from volgate.drivers.base import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    BackendDirectory,
    BackendFile,
    BackendSpace,
    Capabilities,
    NativeSnapshot,
    NodeOwner,
)
from volgate.drivers.report import BackendReport, Garbage
from volgate.dto import AttributeChanges, FileAttributes, Usage, VolumeOperationContext
from volgate.errors import (
    AlreadyExists,
    Busy,
    DirectoryNotEmpty,
    IllegalName,
    InputOutput,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotADirectory,
    NotFound,
    ReadOnly,
    Stale,
    StorageException,
    Unsupported,
)
from volgate.errors.errno_map import from_oserror_at

if TYPE_CHECKING:
    from volgate.cache.settings import CacheSettings
    from volgate.cache.staging import StagedFile
    from volgate.core.object_version import ObjectVersion
    from volgate.core.pending import PendingEntry
    from volgate.drivers.allowance import Allowance
    from volgate.drivers.object_store import ObjectInfo, ObjectStore

log = logging.getLogger(__name__)

_CAPABILITIES: Final = Capabilities(
    symlinks=True,
    special_files=True,
    xattrs=True,
    rename_flags=True,
    ownership=True,
    keeps_usage=True,
    charges_links=True,
    native_snapshots=True,
    directory_rename=False,
    directory_times=False,
)
_RESERVED: Final = ".volgate/"
_ENDLESS: Final = 1 << 60
"""Bytes and objects that a bucket holds at least."""
_OWN_METADATA_BYTES: Final = 64
"""For the name of the upload, which is metadata too."""
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_MAX_RESERVED_BYTES: Final = 1 << 20
_EPOCH_FILE: Final = "epoch"
_QUARANTINE: Final = "quarantine"
_LEFT_BEHIND: Final = (".volgate/aside/", ".volgate/probe/")
"""Where objects of the gateway's own lie that only live while something is under way."""
_PARALLEL: Final = 32
_CLOSE_S: Final = 30.0
_TICK_S: Final = 1.0


class CachedBackend(ObjectTree):
    """See the module.

    Args:
        store: not open yet; closed with this.
        settings: where the cache lies and what it may take.

    Attributes:
        overlay, reading, staging: for ``CachedFile``.
        reads_once: what is read is not read again soon; to be set before it is opened.
    """

    overlay: Overlay
    reading: Reading
    staging: Staging

    def __init__(self, store: ObjectStore, settings: CacheSettings) -> None:
        self.backend_type = store.backend_type  # type: ignore[misc]
        self._store = store
        self._settings = settings
        self._read_only = False
        self.reads_once = False
        self._held = contextlib.ExitStack()
        self._lease: Lease | None = None
        self._owned = trio.Event()
        self._is_drained = False
        self._counting = trio.Lock()
        self._volumes_within: tuple[str, ...] = ()
        self._on_replaced: Callable[[Usage, Usage], None] = lambda before, after: None
        self._on_lost: Callable[[int], None] = lambda ino: None

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return _CAPABILITIES

    # -- opening and closing ------------------------------------------------------------------------------------

    async def create_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend: a bucket is made by whoever pays for it."""

    async def open_volume(self, context: VolumeOperationContext) -> CachedDirectory:
        """See BaseStorageBackend; what an earlier process left in the journal is there again."""
        self._read_only = context.read_only
        await self._store.open(writable=not context.read_only)
        directory = self._take_directory(context.mount_path)
        self._identity = await trio.to_thread.run_sync(load_identity, directory)
        settings = self._settings
        blocks = BlockStore(directory / "blocks", max_bytes=settings.max_bytes, min_free_bytes=settings.min_free_bytes)
        await trio.to_thread.run_sync(blocks.open)
        self._held.callback(blocks.close)
        journal = await trio.to_thread.run_sync(partial(Journal.open, directory / "journal", settings.place))
        self._held.callback(journal.close)
        self.staging = Staging(directory / "staging", blocks, max_bytes=settings.staging_bytes)
        self.staging.open()
        self._blocks, self._journal = blocks, journal
        self.overlay = Overlay(journal, self.staging, self._queue)
        self._snapshots = BucketSnapshots(
            self._store, directory / "snapshots", self._check_ownership, self._leaving_keys
        )
        self._held.callback(self._snapshots.close)
        self._contents = KeptContents(self._store, self._snapshots.kept)
        self.reading = Reading(self._contents, blocks, keeps_small=not self.reads_once)
        self.uploads = Uploads(
            self._store, self.overlay, self.reading, blocks, self._check_ownership, self._yield_to, self._snapshots
        )
        self._quarantine = Quarantine(self, self._store, directory / _QUARANTINE)
        self.names = Names(self._store, self.overlay, ttl_s=settings.ttl_s)
        await self.names.open()
        self._restore()
        return CachedDirectory(self.names.root)

    def _take_directory(self, mount_point: Path) -> Path:
        """Lock the cache's directory; a reader beside the owner takes one that is gone with it."""
        directory = self._settings.directory
        if self._read_only:
            directory = directory.with_name(directory.name + ".ro")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = (
                os.pread(lock, 4096, 0).partition(b"\n")[0].decode("ascii", "replace") or "by a process that begins"
            )
            os.close(lock)
            if not self._read_only:
                raise Busy(f"it is in use here already, {holder}; one daemon a cache ({directory})") from error
            directory = Path(tempfile.mkdtemp(prefix="volgate-ro-"))
            self._held.callback(shutil.rmtree, directory, ignore_errors=True)
            return directory
        self._held.callback(os.close, lock)
        place = "without a mount" if mount_point == Path("/") else f"at {mount_point}"
        line = f"{place} by process {os.getpid()}\n".encode(errors="surrogateescape")
        os.pwrite(lock, line, 0)
        os.truncate(lock, len(line))
        return directory

    def _restore(self) -> None:
        """Bring back what the journal says is not in the bucket yet."""
        for line in self._journal.damaged:
            log.error("the journal is damaged", extra={"record": line})
        for key in list(self._journal.pending):
            self._restore_entry(self._journal.pending[key])
        used = {
            entry.node.work.staged.name
            for entry in self.overlay.entries.values()
            if entry.node is not None and entry.node.work is not None and entry.node.work.staged is not None
        }
        orphans = self.staging.take_orphans(used, self._settings.directory / _QUARANTINE)
        if orphans:
            log.warning("content that nobody had closed or synced was put aside", extra={"files": orphans})
        if self.overlay.entries:
            log.info("changes of before are uploaded", extra={"keys": len(self.overlay.entries)})

    def _restore_entry(self, pending: PendingEntry) -> None:
        node = None
        content = pending.content
        if content is not None:
            staged = None
            if content.staging is not None:
                try:
                    staged = self.staging.reopen(content.staging)
                except NotFound:  # somebody removed it, or the disk lost it
                    self.overlay.forget(pending.key)
                    return
            node = self.names.place(pending.key, content.ino)
            self._restore_node(node, pending, staged)
        entry = Entry(pending.key, pending.remote_etag, node)
        entry.since, entry.era, entry.refused = pending.since, pending.commit_id, pending.refused
        entry.recorded = entry.changes
        self.overlay.restore(entry)

    def _restore_node(self, node: Node, pending: PendingEntry, staged: StagedFile | None) -> None:
        content = pending.content
        assert content is not None
        node.take_stored(content.attributes, 0, node.mode)
        node.take_metadata(content.extra_metadata, content.content_type)
        node.size = content.size
        node.known = content.attributes.mode is not None
        node.recorded = node.charged_size
        base = content.base
        node.etag = base.etag if base is not None else None
        if base is not None and base.key != pending.key:
            self.overlay.set_base_key(node, base.key)
        work = self.overlay.work_of(node)
        work.base_size = base.size if base is not None else 0
        work.keeps_metadata = content.keeps_metadata
        if content.inline is not None:
            work.content = ContentMap(content.size, 0)
            work.is_journaled = True
        elif staged or content.dirty or base is None or content.base_end != base.size or content.size != base.size:
            work.content = ContentMap(content.size, content.base_end, content.dirty)
            if staged is not None:
                work.staged = work.recorded = staged
                self.staging.resize(staged, work.content.staged_bytes)

    async def run(self) -> None:
        """See BaseStorageBackend: upload, fetch and ask ahead, and renew the lease until cancelled."""
        keep_freed_memory()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.reading.run)
            nursery.start_soon(self._run_snapshots)
            nursery.start_soon(self.names.run)
            if not self._read_only:
                nursery.start_soon(self.uploads.run)
                nursery.start_soon(self._tick)
                nursery.start_soon(self._reconcile)
                nursery.start_soon(self._renew)

    async def _run_snapshots(self) -> None:
        """Look for snapshots before anybody asks what they keep; who needs them and finds none loaded tries again."""
        await self._owned.wait()
        with contextlib.suppress(StorageException):
            await self._snapshots.load()
        await self._snapshots.run()

    async def _renew(self) -> None:
        """Renew the lease from the moment it is held."""
        while True:
            await self._owned.wait()
            if self._lease is not None:
                await self._lease.run()
            self._owned = trio.Event()

    async def _tick(self) -> None:
        """Upload what is being written for longer than ``max_age_s``, and tell the lease of the backlog."""
        while True:
            await trio.sleep(_TICK_S)
            oldest = time.time() - self._settings.max_age_s
            for entry in list(self.overlay.entries.values()):
                node = entry.node
                if entry.since < oldest and node is not None and node.work is not None and not node.work.is_settled:
                    with contextlib.suppress(StorageException):
                        await self.settle(node, durably=True)
            with contextlib.suppress(StorageException):
                await self.overlay.give_back()
            if self._lease is not None:
                backlog = self.uploads.backlog()
                self._lease.set_backlog(backlog.bytes_, backlog.files)

    def can_copy_of(self, other: CachedBackend) -> bool:
        """Return whether the server may copy what another volume has."""
        return self._store.can_copy_of(other._store)

    async def take_content(self, node: Node, other: CachedBackend, version: ObjectVersion) -> None:
        """See ``Uploads.take_content``."""
        await self.uploads.take_content(node, other._store, version)

    async def drain(self, *, last: bool = False) -> int:
        """See BaseStorageBackend."""
        self._is_drained = last
        left = 0
        limiter = trio.CapacityLimiter(_PARALLEL)

        async def upload(entry: Entry) -> None:
            nonlocal left
            node = entry.node
            try:
                async with limiter:
                    if node is not None:
                        await self.settle(node, durably=False)
                    await self.uploads.commit(entry)
            except StorageException as error:
                left += 1
                self.uploads.note_failure(entry, error)
                if not entry.refused:
                    log.warning("not uploaded; it stays in the journal", extra={"key": entry.key, "error": str(error)})

        asked = set(self.overlay.entries.values())
        waiting = list(asked)
        while waiting and not left:
            async with trio.open_nursery() as nursery:
                for entry in waiting:
                    nursery.start_soon(upload, entry)
            # A deletion waits for what is made of its object, and that is in the bucket only now.
            waiting = [entry for entry in self.overlay.entries.values() if self._is_left(entry, asked)]
        with contextlib.suppress(StorageException):
            await self.overlay.give_back()
        return left

    def unstored(self, below: bytes) -> list[tuple[bytes, bool]]:
        """See BaseStorageBackend; what lost its name to another writer's object has no path."""
        found = ((entry.key.rstrip("/").encode(), bool(entry.refused)) for entry in self.overlay.entries.values())
        inside = below + b"/" if below else b""
        return [
            (path, refused)
            for path, refused in found
            if (path == below or path.startswith(inside)) and not path.startswith(_RESERVED.encode())
        ]

    def _is_left(self, entry: Entry, asked: Set[Entry]) -> bool:
        """Whether an object is still to be deleted, of ``asked`` or copied aside for them, and nobody needs it."""
        is_meant = entry in asked or entry.key.startswith(_RESERVED)
        return is_meant and entry.node is None and not self.overlay.based_on(entry.key)

    async def close(self) -> None:
        """See BaseStorageBackend. What could not be uploaded is in the journal, for the next mount."""
        try:
            if hasattr(self, "overlay") and not self._read_only:
                await self._upload_the_rest()
        finally:
            self._held.close()
            await self._store.close()

    async def _upload_the_rest(self) -> None:
        if not self._is_drained:
            with trio.move_on_after(_CLOSE_S):
                await self.drain(last=True)

    # -- for open files -----------------------------------------------------------------------------------------

    def _queue(self, entry: Entry) -> None:
        self.uploads.queue(entry)

    def check_writable(self) -> None:
        """Raise ReadOnly where the bucket will never have what is changed here."""
        if self._read_only:
            raise ReadOnly
        if self._lease is not None and self._lease.lost_to:
            raise ReadOnly("another host owns the volume now; see 'volgate status'")

    def _check_ownership(self) -> None:
        if self._lease is not None:
            self._lease.check()

    async def settle(self, node: Node, *, durably: bool) -> None:
        """Write what was written into a file into the journal; return when it is durable there, where asked."""
        work = node.work
        if work is None or node.is_unlinked:
            return
        while not work.is_settled and node.work is work and not node.is_unlinked:
            if work.staged is not None and not work.staged.is_synced:
                await work.staged.sync()
                continue
            self.overlay.record(node)
        entry = self.overlay.entries.get(node.key) if not node.is_unlinked else None
        if durably and entry is not None:
            await self.overlay.sync(entry.sequence)
            if self._settings.close_uploads:
                await self.uploads.commit(entry)

    async def sync_node(self, node: Node) -> None:
        """Return when the bucket has a file as it is now; by option when the journal has it."""
        await self.settle(node, durably=True)  # an older record must not come back over what the bucket has
        if node.is_unlinked or not self._settings.sync_uploads:
            return
        entry = self.overlay.entries.get(node.key)
        if entry is not None:
            await self.uploads.commit(entry)

    async def release(self, node: Node) -> None:
        """Note the last close of a file."""
        if node.is_unlinked:
            self.overlay.discard_work(node)
            self.overlay.set_base_key(node, None)
            with contextlib.suppress(NoSpace):  # the journal still needs what was staged; the next record says that
                self.overlay.record()
        else:
            await self.settle(node, durably=False)

    def note_attributes(self, node: Node) -> None:
        """Note that attributes were changed."""
        if node.is_unlinked:
            return
        self.overlay.pend(node).refused = ""  # what was refused is not what it holds now
        self.overlay.work_of(node).keeps_metadata = False
        self.overlay.record()

    def apply(self, node: Node, changes: AttributeChanges) -> FileAttributes:
        """Change a node's attributes and return the new ones."""
        if changes == AttributeChanges():
            return node.to_attributes()
        if changes.mode is not None and stat.S_ISLNK(node.mode):
            raise Unsupported("a symlink has no permissions of its own")
        self.check_writable()
        if changes.uid is not None or changes.gid is not None:
            if not stat.S_ISDIR(node.mode):  # chown(2)
                node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))
            node.uid = node.uid if changes.uid is None else changes.uid
            node.gid = node.gid if changes.gid is None else changes.gid
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | changes.mode
        node.atime_ns = node.atime_ns if changes.atime_ns is None else changes.atime_ns
        node.mtime_ns = node.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        node.ctime_ns = time.time_ns()
        self.note_attributes(node)
        return node.to_attributes()

    def change_xattr(self, node: Node, attribute: bytes, value: bytes | None) -> None:
        """Set or remove an extended attribute. Raises NoSpace: an object's metadata has 2 KiB."""
        self.check_writable()
        changed = {name: kept for name, kept in node.xattrs.items() if name != attribute}
        if value is not None:
            changed[attribute] = value
        elif attribute not in node.xattrs:
            raise NoAttribute
        stored = attrs.evolve(node.to_stored(), xattrs=changed)
        if measure({**node.extra, **encode(stored)}) + _OWN_METADATA_BYTES > MAX_METADATA_BYTES:
            raise NoSpace(f"an object's metadata has {MAX_METADATA_BYTES} bytes, extended attributes included")
        node.xattrs = changed
        node.ctime_ns = time.time_ns()
        self.note_attributes(node)

    # -- names --------------------------------------------------------------------------------------------------

    async def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        return self.apply(await self._find(directory, name, ino), changes)

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = await self._find_file(directory, name, ino)
        if writable:
            self.check_writable()
        return CachedFile(self, node), node.to_attributes()

    async def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = await self._make(directory, name, stat.S_IFREG | mode, owner)
        self.overlay.work_of(node).is_settled = False
        return CachedFile(self, node), node.to_attributes()

    async def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        node = await self._make(directory, name, mode, owner)
        node.rdev = rdev
        self.overlay.record()
        return node.to_attributes()

    async def create_symlink(
        self, directory: BackendDirectory, name: bytes, target: bytes, owner: NodeOwner
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        node = await self._make(directory, name, stat.S_IFLNK | 0o777, owner)
        node.mode = stat.S_IFLNK | 0o777
        node.symlink_target, node.size = target, len(target)
        work = self.overlay.work_of(node)
        work.content, work.buffer = ContentMap(len(target), 0), bytearray(target)
        self.overlay.record()
        return node.to_attributes()

    async def _make(self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner) -> Node:
        parent = self._node_of(directory)
        self.check_writable()
        if await self.names.find(parent, name) is not None:
            raise AlreadyExists
        assert parent.directory is not None
        gid, mode = owner.gid, mode & ~owner.umask
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
        node = Node(new_ino(), parent, name, mode)
        self._check_key(node.key)
        node.uid, node.gid = owner.uid, gid
        node.atime_ns = node.mtime_ns = node.ctime_ns = time.time_ns()
        attach(node, parent, name)
        work = self.overlay.work_of(node)
        work.keeps_metadata = False
        work.content, work.buffer = ContentMap(0, 0), bytearray()
        if node.directory is not None:
            node.directory.complete_until = time.monotonic() + self._settings.ttl_s
        self.overlay.pend(node)
        self._touch(parent)
        return node

    def _check_key(self, key: str) -> None:
        if len(key.encode()) > self._store.max_key_bytes:
            raise NameTooLong(f"a path of more than {self._store.max_key_bytes} bytes is no object's key")
        if key.endswith(RCLONE_LINK):
            raise IllegalName(f"what ends in {RCLONE_LINK} would be another name's link")

    def _touch(self, directory: Node) -> None:
        """Note a change of names. The bucket is not told: it has no times of directories' contents."""
        directory.mtime_ns = directory.ctime_ns = time.time_ns()

    def _keep_directory(self, directory: Node) -> None:
        """Give a directory that exists by what lies in it an object of its own, before the last thing goes."""
        if directory.etag is None and directory.work is None and directory.parent is not None:
            work = self.overlay.work_of(directory)
            work.keeps_metadata = False
            work.content, work.buffer = ContentMap(0, 0), bytearray()
            self.overlay.pend(directory)

    async def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """See BaseStorageBackend."""
        self.check_writable()
        node = await self._find(directory, name)
        if is_directory and node.directory is None:
            raise NotADirectory
        if not is_directory and node.directory is not None:
            raise IsADirectory
        if node.directory is not None and not await self.names.is_empty(node):
            raise DirectoryNotEmpty
        self._take_away(node)
        self.overlay.record()

    def _take_away(self, node: Node) -> None:
        parent = node.parent
        if parent is None:
            return
        assert parent.directory is not None
        self.names.keep_ino(node)
        self.overlay.vacate(node)
        self.overlay.discount(node)
        parent.directory.absent[node.name] = time.monotonic() + self._settings.ttl_s
        detach(node)
        node.ctime_ns = time.time_ns()
        self._touch(parent)
        self._keep_directory(parent)
        if not node.handles:
            self.overlay.discard_work(node)
            self.overlay.set_base_key(node, None)

    async def rename(
        self,
        source: BackendDirectory,
        source_name: bytes,
        target: BackendDirectory,
        target_name: bytes,
        flags: int = 0,
    ) -> None:
        """See BaseStorageBackend. One record of the journal, whatever lies below; the bucket follows.

        Raises:
            CrossDevice: a directory of more than ``names.MAX_RENAMED`` objects.
        """
        self.check_writable()
        moved = await self._find(source, source_name)
        replaced = await self.names.find(self._node_of(target), target_name)
        if replaced is moved and not flags & RENAME_NOREPLACE:
            return
        self._check_rename(moved, replaced, self._node_of(target), flags)
        for node in (moved, replaced) if flags & RENAME_EXCHANGE else (moved,):
            assert node is not None
            await self._prepare(node)
        is_replaced = replaced is not None and not flags & RENAME_EXCHANGE
        if is_replaced and replaced is not None and replaced.directory and not await self.names.is_empty(replaced):
            raise DirectoryNotEmpty
        parent = self._node_of(target)
        if moved.parent is None or (replaced is not None and replaced.parent is None):
            raise Stale
        self._check_keys(moved, parent, target_name)
        if replaced is not None and flags & RENAME_EXCHANGE:
            self._check_keys(replaced, moved.parent, moved.name)
        if replaced is None:
            self._move(moved, parent, target_name)
        elif flags & RENAME_EXCHANGE:
            self._exchange(moved, replaced)
        else:
            self._take_away(replaced)
            self._move(moved, parent, target_name)
        self.overlay.record()

    def _check_rename(self, moved: Node, replaced: Node | None, parent: Node, flags: int) -> None:
        above: Node | None = parent
        while above is not None:
            if above is moved:
                raise InvalidArgument("a directory cannot lie in itself")
            above = above.parent
        if flags & RENAME_NOREPLACE and replaced is not None:
            raise AlreadyExists
        if flags & RENAME_EXCHANGE:
            if replaced is None:
                raise NotFound
        elif replaced is not None and moved.directory is None and replaced.directory is not None:
            raise IsADirectory
        elif replaced is not None and moved.directory is not None and replaced.directory is None:
            raise NotADirectory

    async def _prepare(self, node: Node) -> None:
        """Make everything below a node known, and ready for the journal."""
        if node.directory is not None:
            await self.names.load_below(node)
        for found in list(descendants(node)):
            if found.work is not None:
                await self.settle(found, durably=False)

    def _check_keys(self, moved: Node, parent: Node, name: bytes) -> None:
        assert parent.directory is not None
        old_key = moved.key
        new_key = parent.directory.prefix + decode_name(name) + ("/" if moved.directory is not None else "")
        for node in descendants(moved):
            self._check_key(new_key + node.key[len(old_key) :])

    def _move(self, node: Node, parent: Node, name: bytes) -> None:
        before = node.parent
        assert before is not None
        assert before.directory is not None
        moving = list(descendants(node))
        for found in moving:
            self._leave(found)
        old_name = node.name
        detach(node)
        before.directory.absent[old_name] = time.monotonic() + self._settings.ttl_s
        attach(node, parent, name)
        for found in moving:
            self._arrive(found)
        node.ctime_ns = time.time_ns()
        self._touch(before)
        self._touch(parent)
        self._keep_directory(before)

    def _exchange(self, one: Node, other: Node) -> None:
        places = [(one.parent, one.name), (other.parent, other.name)]
        moving = [*descendants(one), *descendants(other)]
        for found in moving:
            self._leave(found)
        detach(one)
        detach(other)
        for node, (parent, name) in zip((other, one), places, strict=True):
            assert parent is not None
            attach(node, parent, name)
            self._touch(parent)
        for found in moving:
            self._arrive(found)

    def _leave(self, node: Node) -> None:
        self.names.keep_ino(node)
        work = node.work
        if work is not None and work.is_journaled:
            self.overlay.load_buffer(node)
        self.overlay.vacate(node)

    def _arrive(self, node: Node) -> None:
        if node.directory is not None and node.etag is None and node.work is None:
            return  # it exists by what lies in it
        work = self.overlay.work_of(node)
        if node.directory is not None:
            work.keeps_metadata = False
            work.content, work.buffer = ContentMap(0, 0), bytearray()
        if work.is_journaled:
            self.overlay.note_changed_buffer(work)
        self.overlay.pend(node)

    async def set_xattr(
        self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes
    ) -> None:
        """See BaseStorageBackend."""
        self.change_xattr(await self._find(directory, name, ino), attribute, value)

    async def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """See BaseStorageBackend."""
        self.change_xattr(await self._find(directory, name, ino), attribute, None)

    async def sync_directory(self, directory: BackendDirectory) -> None:
        """See BaseStorageBackend: the bucket has the names in it, by option the journal."""
        node = self._node_of(directory)
        assert node.directory is not None
        prefix = node.directory.prefix
        waiting = [
            entry
            for entry in self.overlay.entries.values()
            if entry.key.startswith(prefix) and "/" not in entry.key[len(prefix) :].rstrip("/")
        ]
        for entry in waiting:
            if entry.node is not None:
                await self.sync_node(entry.node)
            elif self._settings.sync_uploads:
                await self.uploads.commit(entry)
            else:
                await self.overlay.sync(entry.sequence)

    # -- the volume ---------------------------------------------------------------------------------------------

    async def get_space(self) -> BackendSpace:
        """See BaseStorageBackend: a bucket has no end."""
        return BackendSpace(_ENDLESS, _ENDLESS, _ENDLESS, _ENDLESS)

    async def load_reserved(self, name: str) -> bytes | None:
        """See BaseStorageBackend."""
        try:
            return await self._store.get_range(_RESERVED + name, 0, _MAX_RESERVED_BYTES)
        except NotFound:
            return None

    async def store_reserved(self, name: str, content: bytes) -> None:
        """See BaseStorageBackend."""
        await self._store.put(_RESERVED + name, content, content_type="application/json")

    async def remove_reserved(self, name: str) -> None:
        """See BaseStorageBackend."""
        with contextlib.suppress(NotFound):
            await self._store.delete(_RESERVED + name)

    async def acquire_ownership(self, holder: bytes) -> None:
        """See BaseStorageBackend."""
        lease = Lease(self._store, take_over=self._settings.take_over)
        grant = await lease.acquire(self._with_token(holder))
        if self._load_epoch() != grant.previous_epoch:  # another host owned the volume meanwhile
            self.overlay.usage = grant.usage if grant.clean and not self.overlay.entries else None
        self._store_epoch(grant.epoch)
        self._lease = lease
        self._owned.set()

    def _with_token(self, holder: bytes) -> bytes:
        """Name this cache and this boot: after a crash the same owner comes back at once."""
        boot = Path(_BOOT_ID).read_text().strip()
        cache = self._identity
        return json.dumps({**json.loads(holder), "token": f"{boot} {cache}", "cache": cache}).encode()

    async def release_ownership(self) -> None:
        """See BaseStorageBackend: what is not uploaded yet is uploaded first, as far as that goes."""
        if self._lease is None:
            return
        await self._upload_the_rest()
        lease, self._lease = self._lease, None
        backlog = self.uploads.backlog()
        lease.set_backlog(backlog.bytes_, backlog.files)
        await lease.release(self.overlay.usage)

    def _load_epoch(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self._settings.directory / _EPOCH_FILE).read_text())
        return 0

    def _store_epoch(self, epoch: int) -> None:
        path = self._settings.directory / _EPOCH_FILE
        try:
            with open(path.with_suffix(".new"), "w", encoding="ascii") as file:
                file.write(f"{epoch}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(path.with_suffix(".new"), path)
        except OSError as error:
            raise from_oserror_at(error) from error

    def load_usage(self) -> Usage | None:
        """See BaseStorageBackend: the journal's last word, or what the owner before left in the lease."""
        return self.overlay.usage

    def watch_usage(self, on_replaced: Callable[[Usage, Usage], None]) -> None:
        """See BaseStorageBackend."""
        self._on_replaced = on_replaced

    def watch_inodes(self, on_lost: Callable[[int], None]) -> None:
        """See BaseStorageBackend."""
        self._on_lost = on_lost

    def note_replaced(self, before: Usage, after: Usage) -> None:
        """Tell whoever watches the usage that what counted ``before`` counts ``after`` now."""
        self._on_replaced(before, after)

    async def count_usage(self, on_progress: Callable[[Usage], None], *, keep: bool = True) -> Usage:
        """See BaseStorageBackend: by listings, several at once."""
        async with self._counting:
            changed = self.overlay.begin_counting()
            believed = self.overlay.usage
            changed[ROOT_KEY] = Usage(0, 0)
            within: set[str] = set()
            try:
                counted = await count_objects(self._store, changed, on_progress, within.add)
            finally:
                if not keep:
                    self.overlay.forget_counting()
            self._volumes_within = tuple(sorted(within))
            total = Usage(
                counted.bytes_ + sum(usage.bytes_ for usage in changed.values()),
                counted.inodes + sum(usage.inodes for usage in changed.values()),
            )
            if keep:
                self.overlay.end_counting(total, believed)
                if believed is not None and believed != total:
                    log.info("others changed the bucket", extra={"counted": total.bytes_, "believed": believed.bytes_})
                    self.note_replaced(believed, total)
            return total

    async def _reconcile(self) -> None:
        """Count now and then what others added to the bucket, and took away."""
        await self._owned.wait()
        while self._settings.count_every_s:
            await trio.sleep(self._settings.count_every_s)
            with contextlib.suppress(StorageException):
                await self.count_usage(lambda usage: None)

    # -- snapshots ----------------------------------------------------------------------------------------------

    def _leaving_keys(self) -> set[str]:
        return {key for key, entry in self.overlay.entries.items() if entry.node is None}

    @property
    def allowance(self) -> Allowance:
        """See BaseStorageBackend."""
        return self._snapshots.allowance

    async def measure_kept(self, names: Set[str]) -> int:
        """See BaseStorageBackend."""
        return await self._snapshots.measure_kept(names)

    async def create_snapshot(self, name: str) -> None:
        """See BaseStorageBackend: the bucket is listed, which has all: the caller drained it."""
        await self._snapshots.load()
        await self._snapshots.create(name)

    async def list_snapshots(self) -> list[NativeSnapshot]:
        """See BaseStorageBackend."""
        await self._snapshots.load()
        return self._snapshots.list_all()

    def backend_of_snapshot(self, root: BackendDirectory) -> SnapshotTree:
        """See BaseStorageBackend."""
        assert isinstance(root, SnapshotTop)
        return root.tree

    async def open_snapshot(self, name: str) -> SnapshotTop:
        """See BaseStorageBackend. Raises InputOutput: it is damaged."""
        await self._snapshots.load()
        taken = self._snapshots.find(name)
        if taken.manifest is None:
            raise InputOutput(f"the snapshot {name} is damaged: {taken.damaged}")
        tree = SnapshotTree(self, taken, self._contents, self._snapshots.kept, self.reading)
        return await tree.open_root()

    async def delete_snapshot(self, name: str) -> None:
        """See BaseStorageBackend."""
        await self._snapshots.load()
        await self._snapshots.delete(name)

    # -- operating it -------------------------------------------------------------------------------------------

    def backlog(self) -> Backlog:
        """Return what the bucket does not have yet."""
        return self.uploads.backlog()

    def report(self) -> BackendReport:
        """See BaseStorageBackend."""
        backlog, blocks, lease = self.backlog(), self._blocks.statistics(), self._lease
        promises = {} if self._read_only else attrs.asdict(self._store.capabilities)
        return BackendReport(
            backlog_files=backlog.files,
            backlog_bytes=backlog.bytes_,
            stored_bytes=self.uploads.stored_bytes,
            oldest_s=backlog.oldest_s,
            oldest_key=backlog.oldest_key,
            refused=backlog.refused,
            last_error=backlog.error,
            lease="none" if lease is None else lease.state,
            lease_holder="" if lease is None else lease.lost_to,
            keeps_versions=self._store.keeps_versions,
            volumes_within=self._volumes_within,
            broken_promises=tuple(name for name, kept in promises.items() if not kept),
            cached_bytes=blocks.cached_bytes,
            max_cached_bytes=blocks.max_bytes,
            cache_lacking_bytes=0 if self._read_only else self._blocks.lacking_bytes(),
            cache_hits=blocks.hits,
            cache_misses=blocks.misses,
            staged_bytes=self.staging.used_bytes,
            max_staged_bytes=self.staging.max_bytes,
            requests=dict(self._store.requests),
        )

    def unshown(self) -> dict[str, str]:
        """See BaseStorageBackend: of the directories listed so far."""
        return self.names.unshown()

    def refresh(self) -> None:
        """See BaseStorageBackend."""
        self.names.refresh()

    @property
    def quarantine(self) -> Quarantine:
        """See BaseStorageBackend."""
        return self._quarantine

    async def collect_garbage(self, older_than_s: float) -> Garbage:
        """See BaseStorageBackend: uploads that nobody goes on with, and objects that nobody needs.

        An upload that is younger may be of a process that lives, as may be an object.
        """
        self._check_ownership()
        latest = time.time() - older_than_s
        uploads = objects = 0
        for upload in await self._store.list_uploads():
            entry = self.overlay.entries.get(upload.key)
            if upload.key.startswith(PLACE) and self._snapshots.is_busy:
                continue
            if upload.started_at <= latest and (entry is None or entry.running is None):
                await self._store.abort_upload(upload.key, upload.upload_id)
                uploads += 1
        for prefix in _LEFT_BEHIND:
            async for listed in self._store.list_objects(prefix):
                key = listed.key
                if listed.modified_at <= latest and key not in self.overlay.entries and not self.overlay.based_on(key):
                    await self._store.delete(key)
                    objects += 1
        return Garbage(uploads, objects)

    def _yield_to(self, entry: Entry, winner: ObjectInfo, reason: str) -> None:
        """Show what another writer put under a key; what was written here goes into quarantine."""
        node = entry.node
        assert node is not None
        work = self.overlay.work_of(node)
        if node.directory is not None:
            self._take_over(entry, node, winner)
            return
        counted = Usage(node.recorded, 1) if node.recorded >= 0 else Usage(0, 0)
        is_kept = work.content is not None or node.base_key is not None
        won = Usage(self.names.replace(node, winner).charged_size, 1)
        self._on_lost(node.ino)
        self.overlay.add_usage(won)
        if is_kept:
            entry.refused = reason
            aside = self.overlay.rekey(entry, f"{ASIDE_PREFIX}{entry.era}/{entry.key}")
            aside.refused = reason
            self.names.put_aside(node, aside.key)
            self.note_replaced(Usage(0, 0), won)
            facts = {"event": "file.conflict", "key": entry.key}
            log.error("another writer's file has the name of one that was written here", extra=facts)
        else:  # attributes only, of an inode that is gone: as if they had been changed just before
            self.overlay.give_up(entry)
            self.overlay.discount(node)
            self.overlay.discard_work(node)
            self.note_replaced(counted, won)
        with contextlib.suppress(NoSpace):  # then it comes with the next record; a crash before it is another race
            self.overlay.record(node)

    def _take_over(self, entry: Entry, directory: Node, winner: ObjectInfo) -> None:
        """Let a directory have the attributes that another writer gave it."""
        self.overlay.give_up(entry)
        self.overlay.discard_work(directory)
        self.names.take(directory, winner)
        with contextlib.suppress(NoSpace):
            self.overlay.record()
