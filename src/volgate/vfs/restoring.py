"""Bringing back what a snapshot holds: the live tree is changed where it differs, by the calls that users make.

So the quota holds, later snapshots keep what is overwritten, and every file appears whole: it is written under a name
of its own and renamed. What was restored already differs no more, so a restore that was cut off is simply done again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import attrs
import trio

from volgate.concurrency import note_progress
from volgate.core.names import RESERVED_ROOT_NAMES
from volgate.core.sizes import format_size
from volgate.drivers.base import NodeOwner, charged_usage
from volgate.dto import AttributeChanges, FileAttributes, Usage
from volgate.errors import InvalidArgument, NotADirectory, NotFound, QuotaExceeded, Stale, Unsupported
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.comparing import TreeChange, compare, open_directory
from volgate.volume.snapshots.recording import read_xattrs

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.vfs.file_system import FileSystem

_CHUNK_BYTES: Final = 1 << 20


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
        draft: a name that nobody has, for files that are not whole yet; the same one for a restore that is done again.

    Attributes:
        touched: names that lead to another inode than before, each with its directory's number.
    """

    def __init__(self, file_system: FileSystem, snapshot_id: str, path: bytes, draft: bytes) -> None:
        self._fs = file_system
        self._snapshot_id = snapshot_id
        self._path = path
        self._draft = draft
        self._live = Place(file_system.volume.backend, file_system.volume.root)
        self._links: dict[int, bytes] = {}
        self.touched: set[tuple[int, bytes]] = set()

    async def plan(self) -> list[TreeChange]:
        """Return what differs, as changes from the snapshot to the volume.

        Raises:
            NotFound: neither the snapshot nor the volume has the path. InvalidArgument: the path is the gateway's own.
        """
        snapshots = self._fs.volume.snapshots
        self._old = await snapshots.open(self._snapshot_id)
        parts = self._path.split(b"/") if self._path else []
        if parts and (parts[0] in RESERVED_ROOT_NAMES or any(part in (b"", b".", b"..") for part in parts)):
            raise InvalidArgument(f"{os.fsdecode(self._path)!r} is no path within the volume")

        changed = snapshots.changed_since(self._snapshot_id, None)
        was, is_ = await self._look(self._old, self._path), await self._look(self._live, self._path)
        if was is None and is_ is None:
            raise NotFound(f"neither the snapshot nor the volume has {os.fsdecode(self._path)!r}")
        if was is not None and is_ is not None and stat.S_ISDIR(was.mode) and stat.S_ISDIR(is_.mode):
            times = self._live.backend.capabilities.directory_times
            return [c async for c in compare(self._old, self._live, changed, self._path, directory_times=times)]
        above = self._path.rpartition(b"/")[0]
        if await self._look(self._live, above) is None:
            raise NotFound(f"{os.fsdecode(above)!r} is not there to restore into; restore that directory")
        near = [change async for change in compare(self._old, self._live, changed, above)]
        return [change for change in near if (change.path + b"/").startswith(self._path + b"/")]

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
        lost: list[tuple[bytes, Stale]] = []
        for change in reversed(changes):
            if change.kind == "added":
                await self._remove(change)
                await trio.lowlevel.checkpoint()
        for change in changes:
            try:
                if change.kind == "removed":
                    await self._create(change)
                elif change.kind == "changed":
                    await self._change(change)
            except Stale as error:
                lost.append((change.path, error))
            note_progress()
            await trio.lowlevel.checkpoint()
        await self._end_directories(changes, lost)
        with contextlib.suppress(Unsupported):
            await self._live.backend.sync_volume()
        if lost:
            path, why = lost[0]
            rest = f"; and {len(lost) - 1} more; all others are restored" if lost[1:] else "; all others are restored"
            raise Stale(f"{os.fsdecode(path)!r} cannot be restored: {why}{rest}") from why

    async def _end_directories(self, changes: list[TreeChange], lost: list[tuple[bytes, Stale]]) -> None:
        """Give directories their attributes, of which the times changed with each name that was restored in them.

        Those that are lost are added to ``lost``.
        """
        paths = {change.path.rpartition(b"/")[0] for change in changes}
        paths |= {change.path for change in changes if change.kind == "removed"}
        within = self._path + b"/" if self._path else b""
        for path in sorted(paths, key=lambda path: -path.count(b"/")):
            was = await self._look(self._old, path) if (path + b"/").startswith(within) else None
            if was is not None and stat.S_ISDIR(was.mode):
                try:
                    async with self._fs.turnstile.passed(), self._at(path) as inode:
                        await self._take_attributes(inode, path, was)
                except Stale as error:
                    lost.append((path, error))

    def check_quota(self, changes: list[TreeChange]) -> None:
        """Raise QuotaExceeded where a plan does not fit: a file is replaced once the new one stands beside it."""
        info = self._fs.volume.gate.info()
        links: Counter[int] = Counter()
        made: set[int] = set()
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
            if change.before is None or (change.kind == "changed" and "content" not in change.what):
                continue
            if change.before.ino not in made or change.before.nlink <= 1:
                made.add(change.before.ino)
                new = charged_usage(change.before)
                used = Usage(used.bytes_ + new.bytes_, used.inodes + new.inodes)
                most = Usage(max(most.bytes_, used.bytes_), max(most.inodes, used.inodes))
            if change.after is not None:
                let_go(change.after)
        for needed, free, what in (
            (most.bytes_, info.free_bytes, format_size), (most.inodes, info.free_inodes, lambda n: f"{n} inodes"),
        ):  # fmt: skip
            if free is not None and needed > free:
                raise QuotaExceeded(
                    f"a restore needs {what(needed)} more, and {what(free)} are free: a file is replaced once the new "
                    "one stands beside it; make room, or raise the limit"
                )

    # -- one name -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _at(self, path: bytes) -> AsyncIterator[Inode]:
        """Hold the live inode of a path. Raises Stale: somebody took it away meanwhile."""
        tree, inode, held = self._fs.tree, self._fs.tree.inodes.root, []
        try:
            for name in path.split(b"/") if path else []:
                found = await self._fs.namespace.lookup(inode, name)
                if found is None:
                    raise Stale(f"{os.fsdecode(path)!r} was removed while it was restored")
                inode = found[0]
                tree.inodes.count_lookup(inode)
                held.append(inode)
            yield inode
        finally:
            for inode in reversed(held):
                tree.inodes.forget(inode.ino, 1)

    async def _remove(self, change: TreeChange) -> None:
        assert change.after is not None
        above, _, name = change.path.rpartition(b"/")
        async with self._fs.turnstile.passed(), self._at(above) as parent:
            self.touched.add((parent.ino, name))
            with contextlib.suppress(NotFound):  # others were faster
                if stat.S_ISDIR(change.after.mode):
                    await self._fs.namespace.rmdir(parent, name)
                else:
                    await self._fs.namespace.unlink(parent, name)

    async def _create(self, change: TreeChange) -> None:
        was = change.before
        assert was is not None
        above, _, name = change.path.rpartition(b"/")
        names, owner = self._fs.namespace, NodeOwner(was.uid, was.gid)
        async with self._fs.turnstile.passed(), self._at(above) as parent:
            self.touched.add((parent.ino, name))
            if was.nlink > 1 and was.ino in self._links:
                async with self._at(self._links[was.ino]) as linked:
                    await names.link(linked, parent, name)
                return
            if stat.S_ISREG(was.mode):
                await self._write_file(parent, name, change)
            elif stat.S_ISLNK(was.mode):
                target = await self._old.backend.read_link(await open_directory(self._old, above), name, 0)
                await names.create_symlink(parent, name, target, owner)
            else:
                await names.create_node(parent, name, was.mode, owner, rdev=was.rdev)
            self._links[was.ino] = change.path
        if not stat.S_ISREG(was.mode) and not stat.S_ISDIR(was.mode):
            async with self._fs.turnstile.passed(), self._at(change.path) as inode:
                await self._take_attributes(inode, change.path, was)

    async def _change(self, change: TreeChange) -> None:
        above, _, name = change.path.rpartition(b"/")
        assert change.before is not None
        if "content" not in change.what:
            async with self._fs.turnstile.passed(), self._at(change.path) as inode:
                await self._take_attributes(inode, change.path, change.before)
            return
        async with self._fs.turnstile.passed(), self._at(above) as parent:
            self.touched.add((parent.ino, name))
            if stat.S_ISREG(change.before.mode):
                await self._write_file(parent, name, change)
                return
            await self._fs.namespace.unlink(parent, name)  # a symlink that leads elsewhere
        await self._create(change)

    async def _write_file(self, parent: Inode, name: bytes, change: TreeChange) -> None:
        """Put a file's content and attributes under a name, whole."""
        was = change.before
        assert was is not None
        names, io = self._fs.namespace, self._fs.file_io
        with contextlib.suppress(NotFound):  # of a restore that was cut off
            await names.unlink(parent, self._draft)
        if was.nlink > 1 and was.ino in self._links:
            async with self._at(self._links[was.ino]) as linked:
                await names.link(linked, parent, self._draft)
            await names.rename(parent, self._draft, parent, name, 0)
            return
        inode, attributes, file = await names.create_file(parent, self._draft, 0o600, NodeOwner(was.uid, was.gid))
        fh = io.register(inode, file, attributes, writable=True, privileged=True)
        try:
            await self._copy(change.path, was, fh)
            if was.size:
                await self._fs.attributes.resize(inode, file, was.size, privileged=True)
            await self._take_attributes(inode, change.path, was)
            await names.rename(parent, self._draft, parent, name, 0)
            self._links[was.ino] = change.path
        except BaseException:
            with contextlib.suppress(NotFound):
                await names.unlink(parent, self._draft)
            raise
        finally:
            await io.release(fh)

    async def _copy(self, path: bytes, was: FileAttributes, fh: int) -> None:
        above, _, name = path.rpartition(b"/")
        directory = await open_directory(self._old, above)
        source, _ = await self._old.backend.open_file(directory, name, 0, writable=False)
        try:
            for start in range(0, was.size, _CHUNK_BYTES):
                offset, content = start, await source.read(start, _CHUNK_BYTES)
                while content.strip(b"\0"):  # what is zeros becomes a hole
                    written = await self._fs.file_io.write(fh, offset, content)
                    content, offset = content[written:], offset + written
                note_progress()
                await trio.lowlevel.checkpoint()
        finally:
            await source.close()

    async def _take_attributes(self, inode: Inode, path: bytes, was: FileAttributes) -> None:
        """Give an inode the attributes of before; a right mtime is left alone, since setting it counts as a change."""
        attributes = self._fs.attributes
        above, _, name = path.rpartition(b"/")
        wanted = await read_xattrs(self._old.backend, await open_directory(self._old, above), name)
        if not stat.S_ISLNK(was.mode):
            there = await attributes.list_xattrs(inode, privileged=True)
            for attribute in set(there) - set(wanted):
                await attributes.remove_xattr(inode, attribute)
            for attribute, value in wanted.items():
                with contextlib.suppress(Unsupported):
                    await attributes.set_xattr(inode, attribute, value)
        now = await attributes.get(inode)
        is_owned = (now.uid, now.gid) == (was.uid, was.gid)
        has_times = self._live.backend.capabilities.directory_times or not stat.S_ISDIR(was.mode)
        is_timed = now.mtime_ns == was.mtime_ns or not has_times
        changes = AttributeChanges(
            mode=None if stat.S_ISLNK(was.mode) or (is_owned and now.mode == was.mode) else stat.S_IMODE(was.mode),
            uid=None if is_owned else was.uid,
            gid=None if is_owned else was.gid,
            atime_ns=None if is_timed else was.atime_ns,
            mtime_ns=None if is_timed else was.mtime_ns,
        )
        await attributes.set(inode, changes, size=None, fh=None, privileged=True)


def report(changes: list[TreeChange]) -> RestoreReport:
    """Return what a plan comes to."""
    replaced = sum(change.kind == "changed" and "content" in change.what for change in changes)
    return RestoreReport(
        created=sum(change.kind == "removed" for change in changes),
        replaced=replaced,
        removed=sum(change.kind == "added" for change in changes),
        adjusted=sum(change.kind == "changed" for change in changes) - replaced,
    )
