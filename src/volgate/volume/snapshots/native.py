"""Snapshots of a storage that takes them by itself: CephFS, Hammerspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import trio

from volgate.drivers.base import BaseStorageBackend, NativeSnapshot
from volgate.dto import SnapshotInfo, Usage, VolumeSnapshotContext
from volgate.dto.validation import SNAPSHOT_ID
from volgate.volume.snapshots.base import Freeze, SnapshotRoot, Snapshots

_FILE: Final = "snapshot-notes.json"


class NativeSnapshots(Snapshots):
    """See the module. What the storage does not keep of a snapshot lies in a reserved file beside the data.

    Args:
        usage: returns what the volume counts now.
    """

    def __init__(self, backend: BaseStorageBackend, usage: Callable[[], Usage]) -> None:
        self._backend = backend
        self._usage = usage
        self._lock = trio.Lock()
        self._roots: dict[tuple[str, float], SnapshotRoot] = {}

    async def create(self, context: VolumeSnapshotContext, freeze: Freeze) -> SnapshotInfo:
        """See Snapshots: atomic in the storage."""
        async with self._lock:
            async with freeze():
                usage = self._usage()
                await self._backend.create_snapshot(context.snapshot_id)
            notes = await self._load_notes()
            notes[context.snapshot_id] = {
                "created_at": context.created_at, "file_count": usage.inodes, "used_bytes": usage.bytes_,
                "metadata": dict(context.metadata),
            }  # fmt: skip
            await self._store_notes(notes)
        return await self.get(context.snapshot_id)

    async def list_all(self) -> list[SnapshotInfo]:
        """See Snapshots: those that others took in the storage, too, as far as their names are ids."""
        notes = await self._load_notes()
        found = [info for info in await self._backend.list_snapshots() if SNAPSHOT_ID.fullmatch(info.name)]
        return sorted((_to_info(info, notes.get(info.name, {})) for info in found), key=lambda info: info.created_at)

    async def delete(self, snapshot_id: str) -> None:
        """See Snapshots."""
        async with self._lock:
            await self._backend.delete_snapshot(snapshot_id)
            for key in [key for key in self._roots if key[0] == snapshot_id]:
                self._roots.pop(key).root.close()
            notes = await self._load_notes()
            if notes.pop(snapshot_id, None) is not None:
                await self._store_notes(notes)

    async def open(self, snapshot_id: str) -> SnapshotRoot:
        """See Snapshots."""
        info = await self.get(snapshot_id)
        key = snapshot_id, info.created_at
        if key not in self._roots:
            directory = await self._backend.open_snapshot(snapshot_id)
            self._roots.setdefault(key, SnapshotRoot(self._backend, directory, len(self._roots) + 1))
        return self._roots[key]

    async def close(self) -> None:
        """See Snapshots."""
        for snapshot in self._roots.values():
            snapshot.root.close()

    async def _load_notes(self) -> dict[str, dict[str, Any]]:
        content = await self._backend.load_reserved(_FILE)
        try:
            notes = json.loads(content or b"{}")
        except ValueError:  # only notes: the snapshots themselves are the storage's
            return {}
        return notes if isinstance(notes, dict) else {}

    async def _store_notes(self, notes: dict[str, dict[str, Any]]) -> None:
        there = {info.name for info in await self._backend.list_snapshots()}
        kept = {name: note for name, note in notes.items() if name in there}
        await self._backend.store_reserved(_FILE, json.dumps(kept, indent=1).encode())


def _to_info(found: NativeSnapshot, note: dict[str, Any]) -> SnapshotInfo:
    return SnapshotInfo(
        found.name, note.get("created_at", found.created_at), note.get("file_count"), note.get("used_bytes"), None,
        note.get("metadata", {}), damaged="",
    )  # fmt: skip
