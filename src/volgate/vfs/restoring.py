"""Bringing back what a snapshot holds: the live tree is changed where it differs, by the calls that users make.

What was restored already differs no more, so a restore that was cut off is simply done again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from volgate.concurrency import note_progress
from volgate.core.names import RESERVED_ROOT_NAMES
from volgate.core.sizes import format_size
from volgate.drivers.base import charged_usage
from volgate.dto import FileAttributes, Usage
from volgate.errors import InvalidArgument, NotADirectory, NotFound, QuotaExceeded, Stale, Unsupported
from volgate.vfs.tree_writer import TreeWriter
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.comparing import TreeChange, compare, compare_at, open_directory, settle_links

if TYPE_CHECKING:
    from volgate.vfs.file_system import FileSystem


@attrs.frozen
class RestoreReport:
    """What a restore did, or would do: numbers of names.

    Attributes:
        created: that were not there. replaced: whose content was another. removed: that the snapshot does not have.
        adjusted: of which only mode, owner, times or extended attributes were others.
    """

    created: int
    replaced: int
    removed: int
    adjusted: int


class Restore:
    """Brings a path back to what a snapshot holds.

    Args:
        snapshot_id: of an existing one. path: relative to the volume's root; b"" = all of it.
        transfer_id: unique; the same one for a restore that is done again.

    Attributes:
        touched: names that lead to another inode than before, each with its directory's number.
    """

    def __init__(self, file_system: FileSystem, snapshot_id: str, path: bytes, transfer_id: str) -> None:
        self._fs = file_system
        self._snapshot_id = snapshot_id
        self._path = path
        self._transfer_id = transfer_id
        self._live = Place(file_system.volume.backend, file_system.volume.root)
        self._links: dict[int, bytes] = {}
        self.touched: set[tuple[int, bytes]] = set()

    async def plan(self) -> list[TreeChange]:
        """Return what differs, as changes from the snapshot to the volume.

        Raises:
            NotFound: neither the snapshot nor the volume has the path.
            InvalidArgument: it is the gateway's own, or not of the file which the snapshot holds alone.
        """
        snapshots = self._fs.volume.snapshots
        self._old = await snapshots.open(self._snapshot_id)
        self._path = self._path or self._old.path
        if self._old.path not in (b"", self._path):
            raise InvalidArgument(f"{self._snapshot_id} holds only {os.fsdecode(self._old.path)!r}")
        parts = self._path.split(b"/") if self._path else []
        if parts and (parts[0] in RESERVED_ROOT_NAMES or any(part in (b"", b".", b"..") for part in parts)):
            raise InvalidArgument(f"{os.fsdecode(self._path)!r} is no path within the volume")

        changed = snapshots.changed_since(self._snapshot_id, None)
        was, is_ = await self._look(self._old, self._path), await self._look(self._live, self._path)
        if was is None and is_ is None:
            raise NotFound(f"neither the snapshot nor the volume has {os.fsdecode(self._path)!r}")
        if was is not None and is_ is not None and stat.S_ISDIR(was.mode) and stat.S_ISDIR(is_.mode):
            times = self._live.backend.capabilities.directory_times
            found = compare(self._old, self._live, changed, self._path, directory_times=times, links=True)
            changes, self._links = await settle_links(found, snapshots.links_of)
            return changes
        above = self._path.rpartition(b"/")[0]
        if await self._look(self._live, above) is None:
            raise NotFound(f"{os.fsdecode(above)!r} is not there to restore into; restore that directory")
        found = compare_at(self._old, self._live, changed, self._path)
        changes, self._links = await settle_links(found, snapshots.links_of)
        return changes

    async def _look(self, place: Place, path: bytes) -> FileAttributes | None:
        above, _, name = path.rpartition(b"/")
        try:
            return await place.backend.find_attributes(await open_directory(place, above), name)
        except (NotFound, NotADirectory):
            return None

    async def run(self, changes: list[TreeChange]) -> None:
        """Carry a plan out; durable after return, as far as the storage can sync a volume.

        Raises:
            QuotaExceeded: it does not fit; nothing was changed.
            Stale: all but some files is restored, whose content is lost; the first one is named.
        """
        self.check_quota(changes)
        writer = TreeWriter(self._fs, self._old, self._transfer_id)
        writer.links.update(self._links)
        self.touched = writer.touched
        lost: list[tuple[bytes, Stale]] = []
        for change in reversed(changes):
            if change.kind == "added":
                above, _, name = change.path.rpartition(b"/")
                async with writer.at(above) as parent:
                    await writer.remove(parent, name)
        for change in changes:
            if change.kind != "added":
                try:
                    await self._bring_back(writer, change)
                except Stale as error:
                    lost.append((change.path, error))
            note_progress()
            await trio.lowlevel.checkpoint()
        await self._end_directories(writer, changes, lost)
        with contextlib.suppress(Unsupported):
            await self._live.backend.sync_volume()
        if lost:
            path, why = lost[0]
            more = f"; and {len(lost) - 1} more" if lost[1:] else ""
            rest = "; all others are restored" if len(changes) > len(lost) else ""
            raise Stale(f"{os.fsdecode(path)!r} cannot be restored: {why}{more}{rest}") from why

    async def _bring_back(self, writer: TreeWriter, change: TreeChange) -> None:
        was = change.before
        assert was is not None
        above, _, name = change.path.rpartition(b"/")
        async with writer.within(above, above) as pair:
            if change.kind == "removed":
                await writer.create(pair, name, was)
            elif change.replaces:
                await writer.replace(pair, name, was)
            else:
                await writer.adjust(pair, name, was, change.path)

    async def _end_directories(
        self, writer: TreeWriter, changes: list[TreeChange], lost: list[tuple[bytes, Stale]]
    ) -> None:
        """Give directories their attributes, of which the times changed with each name that was restored in them.

        Those that are lost are added to ``lost``.
        """
        paths = {change.path.rpartition(b"/")[0] for change in changes}
        paths |= {change.path for change in changes if change.kind == "removed"}
        within = self._path + b"/" if self._path else b""
        for path in sorted(paths, key=lambda path: -path.count(b"/")):
            was = await self._look(self._old, path) if (path + b"/").startswith(within) else None
            if was is not None and stat.S_ISDIR(was.mode):
                above, _, name = path.rpartition(b"/")
                try:
                    async with writer.within(above, above) as pair:
                        await writer.adjust(pair, name, was, path)
                except Stale as error:
                    lost.append((path, error))

    def check_quota(self, changes: list[TreeChange]) -> None:
        """Raise QuotaExceeded where a plan does not fit: a file is replaced once the new one stands beside it."""
        info = self._fs.volume.gate.info()
        links: Counter[int] = Counter()
        made = set(self._links)
        used = most = Usage(0, 0)

        def let_go(attributes: FileAttributes) -> None:
            """Count an inode as gone once all its names are, unless somebody has it open."""
            nonlocal used
            links[attributes.ino] += 1
            inode = self._fs.tree.inodes.find_backing(attributes.ino)
            is_last = stat.S_ISDIR(attributes.mode) or links[attributes.ino] == attributes.nlink
            if is_last and not (inode is not None and inode.open_files):
                freed = charged_usage(attributes)
                used = Usage(used.bytes_ - freed.bytes_, used.inodes - freed.inodes)

        for change in changes:
            if change.kind == "added" and change.after is not None:
                let_go(change.after)
        for change in changes:
            if change.before is None or (change.kind == "changed" and not change.replaces):
                continue
            if change.before.ino not in made or change.before.nlink <= 1:
                made.add(change.before.ino)
                new = charged_usage(change.before)
                used = Usage(used.bytes_ + new.bytes_, used.inodes + new.inodes)
                most = Usage(max(most.bytes_, used.bytes_), max(most.inodes, used.inodes))
            if change.after is not None:
                let_go(change.after)
        for needed, free, what in (
            (most.bytes_, info.free_bytes, _in_bytes), (most.inodes, info.free_inodes, lambda n: f"{n} inodes"),
        ):  # fmt: skip
            if free is not None and needed > free:
                raise QuotaExceeded(
                    f"a restore needs {what(needed)} more, and {what(free)} are free: a file is replaced once the new "
                    "one stands beside it; make room, or raise the limit"
                )


def _in_bytes(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def report(changes: list[TreeChange]) -> RestoreReport:
    """Return what a plan comes to."""
    replaced = sum(change.replaces for change in changes)
    return RestoreReport(
        created=sum(change.kind == "removed" for change in changes),
        replaced=replaced,
        removed=sum(change.kind == "added" for change in changes),
        adjusted=sum(change.kind == "changed" for change in changes) - replaced,
    )
