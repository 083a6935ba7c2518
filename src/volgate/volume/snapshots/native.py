"""Snapshots of a storage that takes them by itself: CephFS, Hammerspace."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from typing import Any, Final
from weakref import WeakValueDictionary

import trio

from volgate.drivers.allowance import Allowance
from volgate.drivers.base import BaseStorageBackend, NativeSnapshot
from volgate.dto import SnapshotInfo, Usage, VolumeSnapshotContext
from volgate.dto.validation import SNAPSHOT_ID
from volgate.errors import Busy, NotFound, Unavailable
from volgate.volume.snapshots.base import FREEZE_S, Freeze, SnapshotRoot, Snapshots

_FILE: Final = "snapshot-notes.json"


class NativeSnapshots(Snapshots):
    """See the module. What the storage does not keep of a snapshot lies in a reserved file beside the data.

    Others may remove a snapshot in the storage and take another one of its name. So it is known by the storage's own
    time of it as well: a note holds for the snapshot that it was made for, and so does a root that is open.

    Args:
        usage: returns what the volume counts now.
    """

    def __init__(self, backend: BaseStorageBackend, usage: Callable[[], Usage]) -> None:
        self._backend = backend
        self._usage = usage
        self._creating, self._noting = trio.Lock(), trio.Lock()
        self._notes: dict[str, dict[str, Any]] | None = None
        self._numbers: dict[tuple[str, float], int] = {}
        self._roots: WeakValueDictionary[tuple[str, float], SnapshotRoot] = WeakValueDictionary()
        """Those that somebody looks into: a snapshot of a bucket that was listed takes 0.5 KiB a file."""

    @property
    def allowance(self) -> Allowance | None:
        """See Snapshots."""
        return self._backend.allowance

    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """See Snapshots: atomic in the storage."""
        async with self._creating:
            await self._store_all()  # so that little is left to be done while it stands still
            async with freeze():
                usage = self._usage()
                await self._create(context.snapshot_id)
            note = {
                "created_at": context.created_at, "file_count": usage.inodes, "used_bytes": usage.bytes_,
                "metadata": dict(context.metadata),
            }  # fmt: skip
            async with self._noting:
                await self._store_notes({**await self._load_notes(), context.snapshot_id: note})
        return await self.get(context.snapshot_id)

    async def _store_all(self) -> None:
        """Have the storage hold all that was acknowledged. Raises Unavailable: it does not take something."""
        left = await self._backend.drain()
        if left:
            report = self._backend.report()
            why = (report.last_error if report is not None else "") or "see 'volgate quarantine list'"
            raise Unavailable(f"a snapshot needs all in the storage, and {left} changes are not: {why}")

    async def _create(self, snapshot_id: str) -> None:
        with trio.move_on_after(FREEZE_S) as limit:
            await self._store_all()
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
            root = SnapshotRoot(self._backend.backend_of_snapshot(directory), directory, number)
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

    async def _load_notes(self) -> dict[str, dict[str, Any]]:
        if self._notes is None:
            content = await self._backend.load_reserved(_FILE)
            try:
                notes = json.loads(content or b"{}")
            except ValueError:  # only notes: the snapshots themselves are the storage's
                notes = {}
            self._notes = notes if isinstance(notes, dict) else {}
        return self._notes

    async def _store_notes(self, notes: dict[str, dict[str, Any]]) -> None:
        kept = {
            found.name: {"born_at": found.created_at, **note}
            for found in await self._backend.list_snapshots()
            if (note := _note_of(found, notes))
        }
        await self._backend.store_reserved(_FILE, json.dumps(kept, indent=1).encode())
        self._notes = kept


def _note_of(found: NativeSnapshot, notes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is noted of a snapshot; nothing where the note was made for another one of its name.

    It counts where a time is missing: a note has none before it is stored, nor where an earlier version stored it; and
    the storage may have none, of what is damaged.
    """
    note = notes.get(found.name, {})
    return note if not found.created_at or note.get("born_at", found.created_at) == found.created_at else {}


def _to_info(found: NativeSnapshot, note: dict[str, Any]) -> SnapshotInfo:
    return SnapshotInfo(
        found.name, note.get("created_at", found.created_at), note.get("file_count"), note.get("used_bytes"),
        found.preserved_bytes, note.get("metadata", {}), damaged=found.damaged,
    )  # fmt: skip
