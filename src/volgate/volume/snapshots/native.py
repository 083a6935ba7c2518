"""Snapshots of a storage that takes them by itself: CephFS, Hammerspace."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Mapping, Set
from typing import Final
from weakref import WeakValueDictionary

import attrs
import trio

from volgate.drivers.allowance import Allowance
from volgate.drivers.base import BackendDirectory, BaseStorageBackend, NativeSnapshot, charged_usage
from volgate.dto import SnapshotInfo, Usage, VolumeSnapshotContext
from volgate.dto.validation import SNAPSHOT_ID, check_count, check_moment, check_text_pairs, to_frozen_mapping
from volgate.errors import Busy, InvalidArgument, NotFound, Unavailable
from volgate.volume.snapshots.base import FREEZE_S, Freeze, Place, SnapshotRoot, Snapshots
from volgate.volume.snapshots.comparing import open_directory

log = logging.getLogger(__name__)

_FILE: Final = "snapshot-notes.json"
_PATIENCE_S: Final = 5.0
"""How long a snapshot waits for uploads that fail: for some tries, since the volume may stand still meanwhile."""
_AGAIN_S: Final = 0.5


@attrs.frozen
class _Note:
    """What the storage does not keep of a snapshot.

    Attributes:
        created_at, file_count, used_bytes, metadata: see SnapshotInfo.
        born_at: the storage's own time of it; None before it is stored, and where an earlier version stored it.
    """

    created_at: float = attrs.field(validator=check_moment)
    file_count: int = attrs.field(validator=check_count)
    used_bytes: int = attrs.field(validator=check_count)
    metadata: Mapping[str, str] = attrs.field(converter=to_frozen_mapping, validator=check_text_pairs)
    born_at: float | None = attrs.field(default=None, validator=attrs.validators.optional(check_moment))


class NativeSnapshots(Snapshots):
    """See the module. What the storage does not keep of a snapshot lies in a reserved file beside the data.

    Others may remove a snapshot in the storage and take another one of its name. So it is known by the storage's own
    time of it as well: a note holds for the snapshot that it was made for, and so does a root that is open.

    Args:
        root: the volume's. usage: returns what the volume counts now.
    """

    def __init__(self, backend: BaseStorageBackend, root: BackendDirectory, usage: Callable[[], Usage]) -> None:
        self._backend = backend
        self._live = Place(backend, root)
        self._usage = usage
        self._creating, self._noting = trio.Lock(), trio.Lock()
        self._notes: dict[str, _Note] | None = None
        self._numbers: dict[tuple[str, float], int] = {}
        self._roots: WeakValueDictionary[tuple[str, float], SnapshotRoot] = WeakValueDictionary()
        """Those that somebody looks into: a snapshot of a bucket that was listed takes 0.5 KiB a file."""

    @property
    def allowance(self) -> Allowance | None:
        """See Snapshots."""
        return self._backend.allowance

    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """See Snapshots: atomic in the storage."""
        path = os.fsencode(context.path)
        async with self._creating:
            await self._store_all()  # so that little is left to be done while it stands still
            async with freeze():
                usage = await self._measure_file(path) if path else self._usage()
                await self._create(context.snapshot_id, context.path)
            note = _Note(context.created_at, max(0, usage.inodes), max(0, usage.bytes_), context.metadata)
            async with self._noting:
                await self._store_notes({**await self._load_notes(), context.snapshot_id: note})
        return await self.get(context.snapshot_id)

    async def _measure_file(self, path: bytes) -> Usage:
        """Return what a file counts. Raises NotFound; InvalidArgument: it is no regular file."""
        above, _, name = path.rpartition(b"/")
        attributes = await self._backend.get_attributes(await open_directory(self._live, above), name)
        if not stat.S_ISREG(attributes.mode):
            raise InvalidArgument(f"{os.fsdecode(path)!r} is no regular file; leave it out to take all of the volume")
        return charged_usage(attributes)

    async def _store_all(self) -> None:
        """Have the storage hold all that was acknowledged; what fails is tried again for a moment.

        Raises Unavailable: the storage does not take something.
        """
        until = trio.current_time() + _PATIENCE_S
        while left := await self._backend.drain():
            report = self._backend.report()
            if report is None or report.refused or trio.current_time() >= until:
                why = (report.last_error if report is not None else "") or "see 'volgate quarantine list'"
                raise Unavailable(f"a snapshot needs all in the storage, and {left} changes are not: {why}")
            await trio.sleep(_AGAIN_S)

    async def _create(self, snapshot_id: str, path: str) -> None:
        with trio.move_on_after(FREEZE_S) as limit:
            await self._store_all()
            if path:
                await self._backend.create_file_snapshot(snapshot_id, path)
            else:
                await self._backend.create_snapshot(snapshot_id)
        if limit.cancelled_caught:
            raise Busy(f"it would stand still for more than {FREEZE_S:g} s: the storage takes too long for a snapshot")

    async def list_all(self) -> list[SnapshotInfo]:
        """See Snapshots: those that others took in the storage, too, as far as their names are ids."""
        notes = await self._load_notes()
        return sorted(
            (_to_info(found, _note_of(found, notes)) for found in await self._list()), key=lambda info: info.created_at
        )

    async def _list(self) -> list[NativeSnapshot]:
        return [found for found in await self._backend.list_snapshots() if SNAPSHOT_ID.fullmatch(found.name)]

    async def measure_kept(self, snapshot_ids: Set[str]) -> int:
        """See Snapshots."""
        return await self._backend.measure_kept(snapshot_ids)

    async def delete(self, snapshot_id: str) -> None:
        """See Snapshots."""
        await self._backend.delete_snapshot(snapshot_id)
        self._close_roots(snapshot_id)
        async with self._noting:
            if snapshot_id in (notes := await self._load_notes()):
                await self._store_notes(notes)

    async def open(self, snapshot_id: str) -> SnapshotRoot:
        """See Snapshots."""
        found = next((found for found in await self._list() if found.name == snapshot_id), None)
        if found is None:
            raise NotFound(f"there is no snapshot {snapshot_id}")
        key = snapshot_id, found.created_at
        root = self._roots.get(key)
        if root is None:
            self._close_roots(snapshot_id)
            directory = await self._backend.open_snapshot(snapshot_id)
            number = self._numbers.setdefault(key, len(self._numbers) + 1)
            backend = self._backend.backend_of_snapshot(directory)
            root = SnapshotRoot(backend, directory, number, os.fsencode(found.path))
            root = self._roots.setdefault(key, root)
        return root

    def _close_roots(self, snapshot_id: str) -> None:
        for key, snapshot in list(self._roots.items()):
            if key[0] == snapshot_id:
                del self._roots[key]
                snapshot.root.close()

    async def close(self) -> None:
        """See Snapshots."""
        for snapshot in list(self._roots.values()):
            snapshot.root.close()

    async def _load_notes(self) -> dict[str, _Note]:
        if self._notes is None:
            self._notes = _parse_notes(await self._backend.load_reserved(_FILE))
        return self._notes

    async def _store_notes(self, notes: dict[str, _Note]) -> None:
        kept = {
            found.name: attrs.evolve(note, born_at=found.created_at if note.born_at is None else note.born_at)
            for found in await self._backend.list_snapshots()
            if (note := _note_of(found, notes)) is not None
        }
        described = {
            name: {**attrs.asdict(note, recurse=False), "metadata": dict(note.metadata)} for name, note in kept.items()
        }
        await self._backend.store_reserved(_FILE, json.dumps(described, indent=1).encode())
        self._notes = kept


def _parse_notes(content: bytes | None) -> dict[str, _Note]:
    """Return the notes that fit. They are only notes: the snapshots themselves are the storage's."""
    try:
        found = dict(json.loads(content or b"{}"))
    except (ValueError, TypeError) as error:
        log.warning("the notes of snapshots are damaged, and left out", extra={"error": str(error)})
        return {}
    notes = {}
    for name, members in found.items():
        try:
            notes[name] = _Note(
                **{field.name: members[field.name] for field in attrs.fields(_Note) if field.name in members}
            )
        except (ValueError, TypeError) as error:
            facts = {"snapshot": name, "error": str(error)}
            log.warning("a note of a snapshot is damaged, and left out", extra=facts)
    return notes


def _note_of(found: NativeSnapshot, notes: Mapping[str, _Note]) -> _Note | None:
    """Return what is noted of a snapshot; nothing where the note was made for another one of its name.

    A note counts where a time is missing: its own, or the storage's, which may have none of what is damaged.
    """
    note = notes.get(found.name)
    if note is None or not found.created_at or note.born_at in (None, found.created_at):
        return note
    return None


def _to_info(found: NativeSnapshot, note: _Note | None) -> SnapshotInfo:
    facts = {"damaged": found.damaged, "path": found.path}
    if note is None:
        return SnapshotInfo(found.name, found.created_at, None, None, found.preserved_bytes, {}, **facts)
    return SnapshotInfo(
        found.name, note.created_at, note.file_count, note.used_bytes, found.preserved_bytes, note.metadata, **facts
    )
