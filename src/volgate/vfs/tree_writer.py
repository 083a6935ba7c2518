"""Making parts of a volume like another tree, by the calls that users make.

So the quota holds, snapshots keep what is overwritten, and every file appears whole: it is written under the name of a
draft, read back, and renamed. What the source says of a file before and after it was read has to be the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from volgate.concurrency import give_turn, note_progress
from volgate.core.checksums import crc64nvme, to_text
from volgate.core.names import DRAFT_PREFIX
from volgate.drivers.base import NodeOwner
from volgate.dto import AttributeChanges, FileAttributes, FileTransferMetadata
from volgate.errors import AlreadyExists, InputOutput, NoAttribute, NotFound, SourceChanged, Stale, Unsupported
from volgate.vfs.paths import held, join
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.comparing import open_directory
from volgate.volume.snapshots.recording import read_xattrs

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendDirectory, BackendFile
    from volgate.vfs.file_system import FileSystem

_CHUNK_BYTES: Final = 1 << 20
_HOLE_BYTES: Final = 64 << 10
"""Zeros that are as long and lie so aligned become a hole where the source has holes."""
_ZEROS: Final = bytes(_CHUNK_BYTES)

Pace = Callable[[int], Awaitable[None]]
"""Called after so many bytes were moved: it may wait."""
OnFile = Callable[[FileTransferMetadata], None]
"""Called after a file's content was moved."""


class Pair:
    """A directory of the source and the one that it becomes, held while work is done in them.

    Attributes:
        source_path: of the source's. path: of the live one, from the volume's root. live: its inode.
    """

    __slots__ = ("_source", "live", "path", "source_path")

    def __init__(self, source_path: bytes, path: bytes, live: Inode) -> None:
        self.source_path = source_path
        self.path = path
        self.live = live
        self._source: BackendDirectory | None = None

    async def source(self, place: Place) -> BackendDirectory:
        """Return the source's directory. Raises NotFound, NotADirectory."""
        if self._source is None:
            self._source = await open_directory(place, self.source_path)
        return self._source


class TreeWriter:
    """Writes what a source has into a volume.

    Args:
        source: what is read.
        transfer_id: of the whole work: a file's draft has the same name when it is done again.
        in_place: nobody sees where it is written, so files need no draft.
        pace, on_file: see there.

    Attributes:
        touched: names that lead to another inode than before, each with its directory's number.
        links: by the source's inode number, the live path of what has several names and stands there already.
    """

    def __init__(
        self,
        file_system: FileSystem,
        source: Place,
        transfer_id: str,
        *,
        in_place: bool = False,
        pace: Pace | None = None,
        on_file: OnFile | None = None,
    ) -> None:
        self._fs = file_system
        self._names = file_system.own_names
        self._backend = file_system.volume.backend
        self._source = source
        self._transfer_id = transfer_id
        self._in_place = in_place
        self._pace = pace
        self._on_file = on_file
        self._storage_copies = True
        self.touched: set[tuple[int, bytes]] = set()
        self.links: dict[int, bytes] = {}

    # -- places -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def at(self, path: bytes) -> AsyncIterator[Inode]:
        """Hold the live inode of a path. Raises Stale: somebody took it away meanwhile."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                inode = await stack.enter_async_context(held(self._fs, self._names, path))
            except NotFound as error:
                raise Stale(f"{os.fsdecode(path)!r} was removed meanwhile") from error
            yield inode

    @contextlib.asynccontextmanager
    async def within(self, source_path: bytes, path: bytes) -> AsyncIterator[Pair]:
        """Hold a directory of both. Raises Stale as ``at`` does."""
        async with self.at(path) as live:
            yield Pair(source_path, path, live)

    def _hold(self, inode: Inode, holding: list[Inode]) -> None:
        self._fs.tree.inodes.count_lookup(inode)
        holding.append(inode)

    def _let_go(self, holding: list[Inode]) -> None:
        for inode in reversed(holding):
            self._fs.tree.inodes.forget(inode.ino, 1)

    # -- one name -----------------------------------------------------------------------------------------------

    async def remove(self, parent: Inode, name: bytes) -> None:
        """Remove a name, with all that is below it; nothing happens where it is gone."""
        self.touched.add((parent.ino, name))
        waiting = [(parent, name)]
        holding: list[Inode] = []
        try:
            while waiting:
                above, name = waiting[-1]
                if not await self._remove_one(above, name, waiting, holding):
                    waiting.pop()
                await give_turn()
        finally:
            self._let_go(holding)

    async def _remove_one(
        self, above: Inode, name: bytes, waiting: list[tuple[Inode, bytes]], holding: list[Inode]
    ) -> bool:
        """Remove a name; returns whether that has to wait for what is below it, which was added to ``waiting``."""
        found = await self._names.lookup(above, name)
        if found is None:
            return False
        inode = found[0]
        if inode.is_directory:
            self._hold(inode, holding)
            names = await self._backend.list_names(await self._fs.tree.directory_of(inode))
            below = [below for below in names if not self._fs.tree.is_hidden(inode, below, drafts=True)]
            if below:
                waiting.extend((inode, child) for child in below)
                return True
        async with self._fs.turnstile.passed():
            with contextlib.suppress(NotFound):
                await (self._names.rmdir if inode.is_directory else self._names.unlink)(above, name)
        return False

    async def create(self, pair: Pair, name: bytes, was: FileAttributes, live_name: bytes | None = None) -> None:
        """Make what the source has under a name; a directory gets its attributes by ``adjust``.

        Args:
            live_name: what it is called in the volume; None = the same.

        Raises:
            SourceChanged: it was changed while it was read; nothing was made of it.
        """
        live_name = name if live_name is None else live_name
        self.touched.add((pair.live.ino, live_name))
        if await self._link(pair, live_name, was):
            return
        owner = NodeOwner(was.uid, was.gid)
        if stat.S_ISREG(was.mode):
            await self._write_file(pair, name, live_name, replaces=False)
        else:
            source = await pair.source(self._source)
            holding: list[Inode] = []
            async with self._fs.turnstile.passed():
                try:
                    if stat.S_ISLNK(was.mode):
                        target = await self._source.backend.read_link(source, name, 0)
                        made, _ = await self._names.create_symlink(pair.live, live_name, target, owner)
                    else:
                        made, _ = await self._names.create_node(pair.live, live_name, was.mode, owner, rdev=was.rdev)
                    self._hold(made, holding)
                    if not made.is_directory:
                        await self._take_attributes(made, await self._read_xattrs(source, name, was), was)
                finally:
                    self._let_go(holding)
        self._note_link(was, join(pair.path, live_name))

    async def replace(self, pair: Pair, name: bytes, was: FileAttributes, live_name: bytes | None = None) -> None:
        """Give what stands under a name the content, and all else, of the source's. Raises as ``create``."""
        live_name = name if live_name is None else live_name
        if not stat.S_ISREG(was.mode):  # a symlink that leads elsewhere
            await self.remove(pair.live, live_name)
            await self.create(pair, name, was, live_name)
            return
        self.touched.add((pair.live.ino, live_name))
        if not await self._link(pair, live_name, was, replaces=True):
            await self._write_file(pair, name, live_name, replaces=True)
            self._note_link(was, join(pair.path, live_name))

    async def adjust(self, pair: Pair, name: bytes, was: FileAttributes, path: bytes) -> None:
        """Give what stands at a live path the attributes that the source's name has; b"" = the pair's own directory."""
        async with self.at(path) as inode, self._fs.turnstile.passed():
            wanted = await self._read_xattrs(await pair.source(self._source), name, was)
            await self._take_attributes(inode, wanted, was)

    # -- hard links ---------------------------------------------------------------------------------------------

    async def _link(self, pair: Pair, name: bytes, was: FileAttributes, *, replaces: bool = False) -> bool:
        """Make a further name of an inode that stands there already; returns whether it does."""
        path = self.links.get(was.ino) if was.nlink > 1 and not stat.S_ISDIR(was.mode) else None
        if path is None or not self._backend.capabilities.hard_links:
            return False
        async with self.at(path) as inode, self._fs.turnstile.passed():
            if not replaces:
                await self._names.link(inode, pair.live, name)
                return True
            draft = self.draft_of(name)
            with contextlib.suppress(NotFound):  # of work that was cut off
                await self._names.unlink(pair.live, draft)
            await self._names.link(inode, pair.live, draft)
            await self._names.rename(pair.live, draft, pair.live, name, 0)
        return True

    def _note_link(self, was: FileAttributes, path: bytes) -> None:
        if was.nlink > 1 and not stat.S_ISDIR(was.mode):
            self.links[was.ino] = path

    # -- files --------------------------------------------------------------------------------------------------

    def draft_of(self, name: bytes) -> bytes:
        """Return the name of what is to be called so, until it is whole."""
        return DRAFT_PREFIX + f"{self._transfer_id}-{hashlib.blake2b(name, digest_size=8).hexdigest()}".encode()

    async def _write_file(self, pair: Pair, name: bytes, live_name: bytes, *, replaces: bool) -> None:
        """Put a file's content and attributes under a name, whole."""
        directory = await pair.source(self._source)
        source, was = await self._source.backend.open_file(directory, name, 0, writable=False)
        try:
            draft = live_name if self._in_place and not replaces else self.draft_of(live_name)
            async with self._drafted(pair.live, draft, NodeOwner(was.uid, was.gid)) as (inode, file, fh):
                checksum = ""
                if not await self._take_content(source, was, inode, file):
                    checksum = to_text(await self._move_content(source, was, inode, file, fh))
                if _state_of(await source.get_attributes()) != _state_of(was):
                    raise SourceChanged(f"{os.fsdecode(join(pair.source_path, name))!r} was changed while it was read")
                await file.flush()  # as at a user's close(2): its time says from now on that it is whole
                async with self._fs.turnstile.passed():
                    await self._take_attributes(inode, await self._xattrs_of(source), was)
                    if draft != live_name:
                        await self._give_name(pair.live, draft, live_name, replaces=replaces)
        finally:
            await source.close()
        source_path, path = (os.fsdecode(join(*at)) for at in ((pair.source_path, name), (pair.path, live_name)))
        if self._on_file is not None:
            self._on_file(FileTransferMetadata(source_path, path, was.size, checksum, self._transfer_id))

    async def _give_name(self, parent: Inode, draft: bytes, name: bytes, *, replaces: bool) -> None:
        """Raises AlreadyExists: somebody made what is called so, and it is not to be replaced."""
        try:
            await self._names.rename(parent, draft, parent, name, 0, replaces=replaces)
        except AlreadyExists as error:
            raise AlreadyExists(f"{os.fsdecode(name)!r} was made by somebody meanwhile") from error

    @contextlib.asynccontextmanager
    async def _drafted(
        self, parent: Inode, draft: bytes, owner: NodeOwner
    ) -> AsyncIterator[tuple[Inode, BackendFile, int]]:
        """Make a file and hold it open; it is removed again where what is done with it fails."""
        async with self._fs.turnstile.passed():
            try:
                inode, attributes, file = await self._names.create_file(parent, draft, 0o600, owner)
            except AlreadyExists:  # of work that was cut off
                await self._names.unlink(parent, draft)
                inode, attributes, file = await self._names.create_file(parent, draft, 0o600, owner)
            fh = self._fs.tree.register(inode, file, attributes, writable=True, privileged=True)
        try:
            yield inode, file, fh
        except BaseException:
            with trio.CancelScope(shield=True), contextlib.suppress(NotFound):
                await self._names.unlink(parent, draft)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._fs.tree.release(fh)

    async def _take_content(self, source: BackendFile, was: FileAttributes, inode: Inode, file: BackendFile) -> bool:
        """Have the storage itself copy a source, or share its blocks; returns whether it did."""
        if not (self._storage_copies and was.size and file.can_take(source)):
            return False
        async with self._fs.turnstile.passed():
            await self._fs.attributes.resize(inode, file, was.size, privileged=True)
        try:
            await file.take_content(source, was.size)
        except Unsupported:
            self._storage_copies = False
            return False
        if self._pace is not None:
            await self._pace(was.size)
        return True

    async def _move_content(
        self, source: BackendFile, was: FileAttributes, inode: Inode, file: BackendFile, fh: int
    ) -> int:
        """Write all of a source into a new file and read it back; returns the checksum of both."""
        read = found = end = 0
        step = _HOLE_BYTES if was.blocks * 512 < was.size else _CHUNK_BYTES
        for start in range(0, was.size, _CHUNK_BYTES):
            content = await source.read(start, _CHUNK_BYTES)
            read = crc64nvme(content, read)
            end = max(end, await self._write(fh, start, content, step))
            if self._pace is not None:
                await self._pace(len(content))
            note_progress()
            await give_turn()
        if end < was.size:
            async with self._fs.turnstile.passed():
                await self._fs.attributes.resize(inode, file, was.size, privileged=True)
        for start in range(0, was.size, _CHUNK_BYTES):
            found = crc64nvme(await file.read(start, _CHUNK_BYTES), found)
            note_progress()
            await give_turn()
        if read != found and was.size:
            raise InputOutput(f"what was written is read back otherwise: {to_text(read)}, then {to_text(found)}")
        return read

    async def _write(self, fh: int, start: int, content: bytes, step: int) -> int:
        """Write what is not all zeros, which become a hole; returns where what was written ends, 0 = nothing was."""
        end = offset = 0
        while offset < len(content):
            stop = offset
            while stop < len(content) and not _is_zero(content[stop : stop + step]):
                stop += step
            data = content[offset:stop]
            while data:
                async with self._fs.turnstile.passed():
                    written = await self._fs.file_io.write(fh, start + offset, data)
                data, offset = data[written:], offset + written
                end = start + offset
            offset = max(offset, stop)
            while offset < len(content) and _is_zero(content[offset : offset + step]):
                offset += step
        return end

    # -- attributes ---------------------------------------------------------------------------------------------

    async def _read_xattrs(self, directory: BackendDirectory, name: bytes, was: FileAttributes) -> dict[bytes, bytes]:
        return {} if stat.S_ISLNK(was.mode) else await read_xattrs(self._source.backend, directory, name)

    async def _xattrs_of(self, source: BackendFile) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if self._source.backend.capabilities.xattrs:
            for attribute in await source.list_xattrs():
                with contextlib.suppress(NoAttribute):
                    found[attribute] = await source.get_xattr(attribute)
        return found

    async def _take_attributes(self, inode: Inode, wanted: dict[bytes, bytes], was: FileAttributes) -> None:
        """Give an inode the source's attributes; a right mtime is left alone, since setting it counts as a change."""
        attributes, capabilities = self._fs.attributes, self._backend.capabilities
        if not stat.S_ISLNK(was.mode) and capabilities.xattrs:
            there = await attributes.list_xattrs(inode, privileged=True)
            for attribute in set(there) - set(wanted):
                await attributes.remove_xattr(inode, attribute)
            for attribute, value in wanted.items():
                with contextlib.suppress(Unsupported):
                    await attributes.set_xattr(inode, attribute, value)
        now = await attributes.get(inode)
        is_owned = (now.uid, now.gid) == (was.uid, was.gid)
        has_times = capabilities.directory_times or not stat.S_ISDIR(was.mode)
        is_timed = now.mtime_ns == was.mtime_ns or not has_times
        changes = AttributeChanges(
            mode=None if stat.S_ISLNK(was.mode) or (is_owned and now.mode == was.mode) else stat.S_IMODE(was.mode),
            uid=None if is_owned else was.uid,
            gid=None if is_owned else was.gid,
            atime_ns=None if is_timed else was.atime_ns,
            mtime_ns=None if is_timed else was.mtime_ns,
        )
        await attributes.set(inode, changes, size=None, fh=None, privileged=True)


def _is_zero(block: bytes) -> bool:
    return block == _ZEROS[: len(block)]


def _state_of(attributes: FileAttributes) -> tuple[int, ...]:
    return attributes.ino, attributes.size, attributes.mtime_ns, attributes.ctime_ns
