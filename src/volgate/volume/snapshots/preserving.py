"""Snapshots of a storage that has none: a manifest of all there is, and what changes afterwards is kept before it does.

The live inode never moves. A snapshot's file is the live one until that is about to change or to go; then its content
is put into the directory of the *newest* snapshot, as a *blob* named by the inode's number. An older snapshot finds the
content it had in the first blob from its own time on, or else in the live file. Where a snapshot is deleted, its blobs
go to the one before it, as far as that has those inodes.

All calls are steps of one event loop: where two of them may meet is said at the sets of ``_Taken``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Set
from functools import partial
from pathlib import Path

import attrs
import trio

from volgate.drivers.allowance import Allowance
from volgate.drivers.base import BackendDirectory, BackendFile, BaseStorageBackend, exists
from volgate.drivers.read_only import ReadOnlyFile
from volgate.dto import FileAttributes, SnapshotInfo, VolumeSnapshotContext
from volgate.errors import AlreadyExists, Busy, InputOutput, NotFound, Stale, StorageException
from volgate.volume.snapshots.base import FREEZE_S, Freeze, SnapshotRoot, Snapshots
from volgate.volume.snapshots.manifest import Manifest, ManifestNode, ManifestWriter
from volgate.volume.snapshots.place import SnapshotPlace, SnapshotRecord, id_in
from volgate.volume.snapshots.recorded import RecordedBackend
from volgate.volume.snapshots.recording import same_content, write_manifest

log = logging.getLogger(__name__)


class _Taken:
    """A snapshot that is taken, or being taken or deleted: what changes from now on has to be kept for it.

    Attributes:
        serial: orders the snapshots. name: of its directory. directory: open.
        info: as of when it was taken, without the preserved bytes. manifest: open; None where it is damaged.
        blobs: inodes whose content it has, each with its size. preserved_bytes: all of them.
        kept: inodes that were kept, those whose blobs were handed on included.
        linked: inodes whose blob is another name of the inode itself, which may still be open, or have a live name.
        under_way: inodes that are being kept or handed on; who meets one waits for it.
        is_listed: whole, and not being deleted.
        root: once somebody looked into it.
    """

    def __init__(self, serial: int, name: str, directory: BackendDirectory, info: SnapshotInfo) -> None:
        self.serial = serial
        self.name = name
        self.directory = directory
        self.info = info
        self.manifest: Manifest | None = None
        self.blobs: dict[int, int] = {}
        self.kept: set[int] = set()
        self.linked: set[int] = set()
        self.preserved_bytes = 0
        self.under_way: dict[int, trio.Event] = {}
        self.is_listed = False
        self.root: SnapshotRoot | None = None

    def has(self, ino: int) -> bool:
        """Return whether an inode is known to be in it."""
        return self.manifest is not None and self.manifest.has(ino)

    def take_in(self, ino: int, size: int) -> None:
        """Note that it has a blob."""
        self.blobs[ino] = size
        self.kept.add(ino)
        self.preserved_bytes += size

    def adopt(self, ino: int, attributes: FileAttributes) -> None:
        """Note that a blob was found in it after a restart.

        One of several names of the inode itself may be what a crash left of an unlink that did not happen. Whether the
        live name stands there only a walk of all would tell: a backup by hard links makes such names, too.
        """
        self.take_in(ino, attributes.size)
        if attributes.ino == ino and attributes.nlink > 1:
            self.linked.add(ino)

    def give_away(self, ino: int, size: int) -> None:
        """Note that it has a blob no more."""
        self.blobs.pop(ino, None)
        self.linked.discard(ino)
        self.preserved_bytes -= size


class PreservingSnapshots(Snapshots):
    """See the module. Call ``load`` first.

    Args:
        backend: open; needs ``Capabilities.preserves``. root: the volume's.
        local: directory for copies of manifests on the local disk; made where it is missing.
    """

    def __init__(self, backend: BaseStorageBackend, root: BackendDirectory, local: Path) -> None:
        self._backend = backend
        self._root = root
        self._place = SnapshotPlace(backend, local)
        self._creating, self._deleting = trio.Lock(), trio.Lock()
        self._taken: list[_Taken] = []
        self._allowance = Allowance(
            lambda: sum(taken.preserved_bytes for taken in self._taken),
            lambda: frozenset(taken.serial for taken in self._taken),
        )
        self._last_serial = 0
        self._changes = 0

    @property
    def allowance(self) -> Allowance:
        """See Snapshots."""
        return self._allowance

    # -- what there is ------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Find the snapshots that are there, and clear away what a crash left of others.

        One that is damaged is told and kept: older ones may need what it has. Raises Unsupported where a newer version
        took one, and what the storage raises: nobody would know what is to be kept.
        """
        remains = []
        for serial, name in await self._place.find():
            self._last_serial = serial
            directory = await self._place.open(name)
            if await self._place.has_record(directory):
                self._taken.append(await self._load_one(serial, name, directory))
            else:
                remains.append((serial, name, directory))
        for serial, name, directory in remains:
            log.warning("a snapshot that was not taken or deleted to the end is cleared away", extra={"snapshot": name})
            await self._clear(serial, name, directory)
        self._note_change()

    async def _load_one(self, serial: int, name: str, directory: BackendDirectory) -> _Taken:
        info = SnapshotInfo(id_in(name), 0, None, None, None, {}, damaged="")
        manifest = None
        try:
            record = await self._place.load_record(name, directory)
            info = _to_info(record)
            manifest = Manifest(await self._place.fetch_manifest(name, directory, record))
        except (InputOutput, NotFound) as error:
            log.error("a snapshot is damaged", extra={"snapshot": name, "error": str(error)})  # noqa: TRY400
            info = attrs.evolve(info, damaged=str(error) or type(error).__name__)
        taken = _Taken(serial, name, directory, info)
        taken.manifest, taken.is_listed = manifest, True
        for ino, attributes in await self._place.blobs_in(directory):
            taken.adopt(ino, attributes)
        return taken

    async def list_all(self) -> list[SnapshotInfo]:
        """See Snapshots."""
        return [
            attrs.evolve(taken.info, preserved_bytes=taken.preserved_bytes) for taken in self._taken if taken.is_listed
        ]

    def _find(self, snapshot_id: str) -> _Taken:
        for taken in self._taken:
            if taken.is_listed and taken.info.snapshot_id == snapshot_id:
                return taken
        raise NotFound(f"there is no snapshot {snapshot_id}")

    async def open(self, snapshot_id: str) -> SnapshotRoot:
        """See Snapshots."""
        taken = self._find(snapshot_id)
        if taken.manifest is None:
            raise InputOutput(f"the snapshot {snapshot_id} is damaged: {taken.info.damaged}")
        if taken.root is None:

            async def open_file(node: ManifestNode) -> BackendFile:
                return _Content(self, taken, node, *await self.open_content(taken, node))

            recorded = RecordedBackend(self._backend, taken.manifest, open_file)
            taken.root = SnapshotRoot(recorded, recorded.root, taken.serial)
        return taken.root

    # -- taking one ---------------------------------------------------------------------------------------------

    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """See Snapshots. The volume stands still while all its names and attributes are read."""
        async with self._creating:
            if any(taken.info.snapshot_id == context.snapshot_id for taken in self._taken):
                raise AlreadyExists(f"there is a snapshot {context.snapshot_id}; take another name, or delete that one")
            self._last_serial += 1
            serial, name = self._last_serial, f"{self._last_serial:010}-{context.snapshot_id}"
            directory = await self._place.open(name)
            draft = self._place.draft(name)
            taken = None
            try:
                async with freeze():
                    counted = await self._write_manifest(draft)
                    info = SnapshotInfo(
                        context.snapshot_id, context.created_at, counted.file_count, counted.used_bytes, None,
                        context.metadata, damaged="",
                    )  # fmt: skip
                    taken = _Taken(serial, name, directory, info)
                    taken.manifest = Manifest(draft)
                    self._taken.append(taken)
                    self._note_change()
                await self._backend.sync_volume()
                await self._publish(taken, draft)
            except BaseException:
                with trio.CancelScope(shield=True):
                    if taken is not None:
                        async with self._deleting:
                            await self._drop(taken)
                    else:
                        await self._clear(serial, name, directory)
                    await trio.Path(draft).unlink(missing_ok=True)
                raise
        return await self.get(context.snapshot_id)

    async def _write_manifest(self, draft: Path) -> ManifestWriter:
        with trio.move_on_after(FREEZE_S):
            return await write_manifest(self._backend, self._root, draft)
        raise Busy(f"it would stand still for more than {FREEZE_S:g} s: it has too many files for a snapshot")

    async def _publish(self, taken: _Taken, draft: Path) -> None:
        """Store the manifest, then the record: from then on the snapshot is there, also after a crash."""
        fingerprint = await self._place.store_manifest(taken.name, taken.directory, draft)
        info = taken.info
        assert info.file_count is not None
        assert info.used_bytes is not None
        record = SnapshotRecord(
            info.snapshot_id, info.created_at, info.file_count, info.used_bytes, dict(info.metadata),
            fingerprint.size, fingerprint.sha256,
        )  # fmt: skip
        await self._place.store_record(taken.directory, record)
        taken.is_listed = True

    # -- keeping what changes -----------------------------------------------------------------------------------

    @property
    def _newest(self) -> _Taken | None:
        return self._taken[-1] if self._taken else None

    def _note_change(self) -> None:
        self._changes += 1
        self.generation = self._changes if self._taken else 0

    async def before_change(self, ino: int, file: BackendFile) -> None:
        """See Snapshots."""
        size = (await file.get_attributes()).size
        taken = await self._find_keeper(ino, size, content=True)
        if taken is not None:
            await self._keep(taken, ino, size, self._backend.clone(file, taken.directory, _blob(ino)))

    async def before_removal(
        self, directory: BackendDirectory, name: bytes, attributes: FileAttributes, file: BackendFile | None
    ) -> None:
        """See Snapshots: what nobody has open gets another name, and nothing is copied."""
        ino = attributes.ino
        if file is not None:
            await self.before_change(ino, file)
        else:
            keeping = await self._find_keeper(ino, attributes.size, content=False)
            if keeping is not None:
                keeping.linked.add(ino)
                await self._keep(keeping, ino, attributes.size, self._link(keeping, directory, name, ino))

    def links_of(self, ino: int) -> int:
        """See Snapshots."""
        return sum(ino in taken.linked and ino in taken.blobs for taken in self._taken)

    async def _link(self, taken: _Taken, directory: BackendDirectory, name: bytes, ino: int) -> None:
        try:
            await self._backend.link(directory, name, ino, taken.directory, _blob(ino))
        except AlreadyExists:  # of a call that failed after it was done
            await self._backend.remove(taken.directory, _blob(ino), is_directory=False)
            await self._backend.link(directory, name, ino, taken.directory, _blob(ino))

    async def after_failed_removal(self, ino: int) -> None:
        """See Snapshots: a name of the live inode must not be taken for a content that is kept."""
        for taken in [taken for taken in self._taken if ino in taken.blobs]:
            attributes = await self._backend.find_attributes(taken.directory, _blob(ino))
            if attributes is not None and attributes.ino == ino:
                await self._backend.remove(taken.directory, _blob(ino), is_directory=False)
                taken.give_away(ino, attributes.size)
                taken.kept.discard(ino)
                self._note_change()

    async def _find_keeper(self, ino: int, size: int, *, content: bool) -> _Taken | None:
        """Return which snapshot has to keep an inode, once there is room for it; None where none has to.

        Raises NoSpace: there is none, and no snapshot may go.
        """
        while True:
            taken = await self._to_keep(ino, content=content)
            if taken is None or ino in taken.blobs or self._allowance.has_room(size):
                return taken
            await self._allowance.make_room_for(size, partial(self._is_needed_by, ino))

    def _is_needed_by(self, ino: int, snapshot_ids: Set[str]) -> bool:
        """Return whether what an inode has now is the content of one of these snapshots."""
        for taken in reversed(self._taken):
            if ino in taken.kept:
                return False
            if taken.info.snapshot_id in snapshot_ids and taken.has(ino):
                return True
        return False

    async def _to_keep(self, ino: int, *, content: bool) -> _Taken | None:
        """Return which snapshot has to keep an inode, None where none has to.

        Args:
            content: its content is about to change; else only its name goes.
        """
        while True:
            newest = self._newest
            if newest is None:
                return None
            under_way = next((taken.under_way[ino] for taken in self._taken if ino in taken.under_way), None)
            if under_way is not None:
                await under_way.wait()
                continue
            for taken in reversed(self._taken):
                if content and ino in taken.linked:
                    return taken
                if ino in taken.kept:
                    return None
                if taken.manifest is not None:
                    return newest if taken.manifest.has(ino) else None
            return None

    async def _keep(self, taken: _Taken, ino: int, size: int, keeping: Awaitable[object]) -> None:
        """Wait for a blob to be made. Without an await since ``_find_keeper`` named the snapshot.

        It is made by a task of its own: a request that is given up leaves it under way, and the inode unchanged.
        """
        done = taken.under_way[ino] = trio.Event()
        replaces_link = ino in taken.blobs
        self._allowance.promise(size)
        failed: list[Exception] = []

        async def keep() -> None:
            try:
                await keeping
                if replaces_link:  # the inode was opened just before its name went
                    taken.give_away(ino, size)
                taken.take_in(ino, size)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                failed.append(error)
            finally:
                self._allowance.settle(size)
                del taken.under_way[ino]
                done.set()

        trio.lowlevel.spawn_system_task(keep)
        await done.wait()
        if failed:
            raise failed[0]

    async def open_content(self, taken: _Taken, node: ManifestNode) -> tuple[BackendFile, bool]:
        """Return what has a file's content as it was, and whether that is the live file.

        Raises:
            Stale: the snapshot is gone, or others changed the file, or removed what was kept of it, behind the mount.
        """
        ino = node.attributes.ino
        while True:
            holder = self.holder(taken, ino)
            if holder is not None:
                try:
                    return (await self._backend.open_file(holder.directory, _blob(ino), 0, writable=False))[0], False
                except NotFound:
                    if ino in holder.under_way:
                        await holder.under_way[ino].wait()
                    elif self.holder(taken, ino) is holder:  # else it was handed on meanwhile
                        raise Stale("others removed the content that a snapshot had kept of this file") from None
                    continue
            try:
                file = await self._backend.open_node(node.key or b"")
            except Stale as error:
                raise Stale("others removed this file behind the mount: what the snapshot had is lost") from error
            if self.holder(taken, ino) is None:
                if same_content(await file.get_attributes(), node.attributes):
                    return file, True
                await file.close()
                raise Stale("others changed this file behind the mount: what the snapshot had is lost")
            await file.close()

    def holder(self, taken: _Taken, ino: int) -> _Taken | None:
        """Return the snapshot whose blob has an inode's content as of ``taken``; None: the live file has it."""
        if taken not in self._taken:
            raise Stale("the snapshot was deleted")
        for later in self._taken[self._taken.index(taken) :]:
            if ino in later.blobs:
                return later
        return None

    async def measure_kept(self, snapshot_ids: Set[str]) -> int:
        """See Snapshots."""
        total = 0
        for index, taken in enumerate(list(self._taken)):
            for ino, size in list(taken.blobs.items()):
                total += size if self._is_needed(ino, index, snapshot_ids) else 0
            await trio.lowlevel.checkpoint()
        return total

    def _is_needed(self, ino: int, index: int, snapshot_ids: Set[str]) -> bool:
        """Return whether one of these snapshots has an inode's content from the one at an index."""
        for number in range(min(index, len(self._taken) - 1), -1, -1):
            earlier = self._taken[number]
            if number < index and ino in earlier.blobs:
                return False
            if earlier.info.snapshot_id in snapshot_ids and earlier.has(ino):
                return True
        return False

    def changed_since(self, snapshot_id: str, later_id: str | None) -> Mapping[int, bytes | None]:
        """See Snapshots."""
        taken = self._find(snapshot_id)
        manifest, start = taken.manifest, self._taken.index(taken)
        end = len(self._taken) if later_id is None else self._taken.index(self._find(later_id))
        changed = set().union(*(later.blobs.keys() - later.linked for later in self._taken[start:end]))
        nodes = ((ino, manifest.node(ino)) for ino in changed) if manifest is not None else ()
        return {ino: node.key for ino, node in nodes if node is not None}

    # -- deleting -----------------------------------------------------------------------------------------------

    async def delete(self, snapshot_id: str) -> None:
        """See Snapshots. It is gone, also after a crash, once its record is; clearing away goes on from there."""
        async with self._deleting:
            taken = self._find(snapshot_id)
            await self._place.remove_record(taken.directory)
            taken.is_listed = False
            with trio.CancelScope(shield=True):
                await self._drop(taken)

    async def _drop(self, taken: _Taken) -> None:
        """Hand a snapshot's blobs on, and forget it. Until then it goes on keeping what changes."""
        before = self._before(taken.serial)
        while taken.blobs or taken.under_way:
            for ino in list(taken.blobs):
                await self._hand_on(taken, ino, before)
            for done in list(taken.under_way.values()):
                await done.wait()
        self._taken.remove(taken)
        self._note_change()
        if taken.manifest is not None:
            taken.manifest.close()
        await self._clear(taken.serial, taken.name, taken.directory)

    def _before(self, serial: int) -> _Taken | None:
        return next((taken for taken in reversed(self._taken) if taken.serial < serial), None)

    async def _hand_on(self, taken: _Taken, ino: int, before: _Taken | None) -> None:
        """Give a blob to the snapshot before where that needs it, else remove it; others may have removed it."""
        while ino in taken.under_way:
            await taken.under_way[ino].wait()
        name = _blob(ino)
        done = taken.under_way[ino] = trio.Event()
        try:
            attributes = await self._backend.find_attributes(taken.directory, name)
            size = taken.blobs[ino] if attributes is None else attributes.size
            heir = before if before is not None and ino not in before.blobs and before.has(ino) else None
            if attributes is None:
                if heir is not None:  # lost with it, and what the live file has is not that
                    heir.kept.add(ino)
            elif heir is not None:
                try:
                    await self._backend.rename(taken.directory, name, heir.directory, name)
                except StorageException:
                    if not await exists(self._backend, heir.directory, name):
                        raise
                heir.take_in(ino, size)
                heir.linked |= taken.linked & {ino}
            else:
                await self._backend.remove(taken.directory, name, is_directory=False)
            taken.give_away(ino, size)
        finally:
            del taken.under_way[ino]
            done.set()

    async def _clear(self, serial: int, name: str, directory: BackendDirectory) -> None:
        """Remove a directory that is no snapshot; blobs in it go to the snapshot before."""
        await self._place.remove_record(directory)
        before = self._before(serial)
        for ino, attributes in await self._place.blobs_in(directory):
            if before is not None and ino not in before.blobs and before.has(ino):
                await self._backend.rename(directory, _blob(ino), before.directory, _blob(ino))
                before.adopt(ino, attributes)
        await self._place.remove(name, directory)

    async def close(self) -> None:
        """See Snapshots."""
        for taken in self._taken:
            if taken.manifest is not None:
                taken.manifest.close()
            taken.directory.close()
        self._taken.clear()


class _Content(ReadOnlyFile):
    """A file's content as a snapshot has it: the live file's until that changes, then the one that was kept."""

    __slots__ = ("_file", "_is_live", "_node", "_snapshots", "_taken")

    def __init__(
        self, snapshots: PreservingSnapshots, taken: _Taken, node: ManifestNode, file: BackendFile, is_live: bool
    ) -> None:
        self._snapshots = snapshots
        self._taken = taken
        self._node = node
        self._file = file
        self._is_live = is_live

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile. A live file changes only after its content was kept, so what was read before that counts."""
        data = await self._file.read(offset, length)
        if self._is_live and self._snapshots.holder(self._taken, self._node.attributes.ino) is not None:
            before = self._file
            self._file, self._is_live = await self._snapshots.open_content(self._taken, self._node)
            await before.close()
            data = await self._file.read(offset, length)
        return data

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return self._node.attributes

    async def close(self) -> None:
        """See BackendFile."""
        await self._file.close()


def _blob(ino: int) -> bytes:
    return str(ino).encode()


def _to_info(record: SnapshotRecord) -> SnapshotInfo:
    return SnapshotInfo(
        record.snapshot_id, record.created_at, record.file_count, record.used_bytes, None, record.metadata, damaged=""
    )
