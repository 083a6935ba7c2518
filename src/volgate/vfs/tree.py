"""From inodes to what the driver understands: open directories, names, locations.

Shared by all other vfs classes; holds the inode table, the handle tables and the cache of open directories.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from volgate.core.handle_table import Fh, HandleTable
from volgate.core.inode_table import Inode, InodeTable
from volgate.core.names import DRAFT_PREFIX, RESERVED_ROOT_NAMES, SNAPSHOTS_NAME
from volgate.drivers.base import BackendDirectory, BackendFile
from volgate.dto import FileAttributes, StorageLocation
from volgate.errors import Busy, NameTooLong, NotADirectory, NotFound, NotPermitted, Stale, StorageException
from volgate.vfs.locks import LinkLocks, NamesHeld, SizeLock
from volgate.vfs.open_file import OpenDirectory, OpenFile, privileges_to_clear
from volgate.volume.quota_gate import InodeCharge

if TYPE_CHECKING:
    from volgate.volume.volume import Volume

MAX_NAME_BYTES: Final = 255
MAX_OPEN_DIRECTORIES: Final = 1024

T = TypeVar("T")


class Tree:
    """The part of a volume that is in use.

    Args:
        volume: open volume; its root directory stays open with it.
        mount_point: where users see it; only named in locations.
        first_number: of its inodes and open files; None where it is the volume itself.

    Attributes:
        is_atomic: each change is one step of the event loop, so that no lock is needed.
        changes: how often links of an inode that has several, or a size, changed: attributes that were asked for before
            may be older.
    """

    def __init__(self, volume: Volume, mount_point: Path, first_number: int | None = None) -> None:
        self.volume = volume
        self.backend = volume.backend
        self.gate = volume.gate
        self.mount_point = mount_point
        self.inodes = InodeTable(first_number)
        self.files: HandleTable[OpenFile] = HandleTable(first_number or 1)
        self.directories: HandleTable[OpenDirectory] = HandleTable(first_number or 1)
        self._hidden: dict[tuple[Inode, bytes], frozenset[int]] = {}
        self._root_directory = volume.root
        self._magic_names = volume.backend.capabilities.magic_names
        self._open_directories: OrderedDict[Inode, None] = OrderedDict()
        self._links = LinkLocks()
        self.changes = 0
        self.is_atomic = volume.backend.capabilities.inline_io

    # -- inodes -------------------------------------------------------------------------------------------------

    def inode(self, ino: int) -> Inode:
        """Return the inode of a kernel's number. Raises Stale."""
        inode = self.inodes.get(ino)
        if inode is None:
            raise Stale(f"inode {ino} is not known any more")
        return inode

    def open_file(self, fh: int) -> OpenFile:
        """Return an open file. Raises Stale."""
        opened = self.files.get(fh)
        if opened is None:
            raise Stale(f"open file {fh} is not known any more")
        return opened

    def usable_file(self, inode: Inode) -> OpenFile | None:
        """Return an open file of an inode, for ``OpenFile.use``: it may be closed at any await."""
        opened = cast("tuple[OpenFile, ...]", inode.open_files)
        return next((file for file in reversed(opened) if not file.is_closing), None)

    def is_being_written(self, inode: Inode) -> bool:
        """Return whether somebody has it open for writing, or just closes it."""
        return any(opened.writable for opened in cast("tuple[OpenFile, ...]", inode.open_files))

    def check_name(self, parent: Inode, name: bytes, *, drafts: bool = False) -> None:
        """Refuse a name that cannot be made here.

        Args:
            drafts: the caller is the gateway, whose drafts have names that users cannot make.

        Raises:
            NameTooLong: over 255 bytes. NotPermitted: the gateway's own, or the storage's.
        """
        if len(name) > MAX_NAME_BYTES:
            raise NameTooLong
        if self.is_hidden(parent, name, drafts=drafts):
            where = "at the root" if name in RESERVED_ROOT_NAMES else "in every directory"
            raise NotPermitted(f"{os.fsdecode(name)!r} is reserved {where} of a volume")

    def check_removable(self, parent: Inode, name: bytes, *, drafts: bool = False) -> None:
        """Refuse to take away what is not the user's. Raises NotPermitted, or NotFound for what users do not see."""
        if self.is_hidden(parent, name, drafts=drafts):
            raise NotPermitted if name == SNAPSHOTS_NAME else NotFound

    def is_hidden(self, parent: Inode, name: bytes, *, drafts: bool = False) -> bool:
        """Return whether a name is the gateway's own, or the storage's; ``drafts``: the gateway sees its drafts."""
        if name.startswith(DRAFT_PREFIX) or (self._hidden and (parent, name) in self._hidden):
            return not drafts
        return (parent is self.inodes.root and name in RESERVED_ROOT_NAMES) or name in self._magic_names

    def names_held(self, *directories: Inode, change: bool = True) -> NamesHeld:
        """Let no other change of these directories' names come between what is done inside.

        The kernel sees to that among its own requests; the gateway's own work comes beside them.

        Args:
            change: it is one itself: who looked at a name of theirs meanwhile finds ``Inode.changes`` another.
        """
        return NamesHeld(directories, locked=not self.is_atomic, change=change)

    def links_held(self, backing_ino: int) -> contextlib.AbstractAsyncContextManager[None]:
        """Let nobody else make or remove a link of an inode. Hold the names of directories before that."""
        return contextlib.nullcontext() if self.is_atomic else self._links.held(backing_ino)

    def size_lock(self, inode: Inode) -> SizeLock:
        """Return the lock over an inode's size; not needed where the tree ``is_atomic``.

        The kernel has its own over writes and truncations, but neither an open(2) with O_TRUNC (fuse_open() of Linux's
        fs/fuse/file.c, without its writeback cache) nor what it writes back of a mapping waits for that.
        """
        lock = inode.size_lock = cast("SizeLock | None", inode.size_lock) or SizeLock()
        return lock

    # -- drafts that do not look so -----------------------------------------------------------------------------

    def hide(self, parent: Inode, name: bytes) -> None:
        """Let a name be a draft's until ``show``; the directories above it keep their places as long."""
        self.inodes.count_lookup(parent)
        above: Inode | None = parent
        numbers: set[int] = set()
        while above is not None:
            numbers.add(above.backing_ino)
            above = above.parent
        self._hidden[parent, name] = frozenset(numbers)

    def show(self, parent: Inode, name: bytes) -> None:
        """Let a name be the users'; nothing happens where it is."""
        if self._hidden.pop((parent, name), None) is not None:
            self.inodes.forget(parent.ino, 1)

    def is_draft(self, parent: Inode, name: bytes) -> bool:
        """Return whether a name was hidden."""
        return (parent, name) in self._hidden

    def check_movable(self, *numbers: int) -> None:
        """Refuse to move what has a draft below it, which is found by its path. Args: the backend's. Raises Busy."""
        if any(not above.isdisjoint(numbers) for above in self._hidden.values()):
            raise Busy("a copy is being made in the directory, or below it: it can be renamed afterwards")

    # -- directories --------------------------------------------------------------------------------------------

    async def directory_of(self, inode: Inode) -> BackendDirectory:
        """Return the driver's open directory of a directory inode.

        Raises:
            NotADirectory: not a directory. Stale: it is not where it was, or it is gone.
        """
        directory = inode.directory
        if directory is not None:
            self._open_directories.move_to_end(inode)
            return cast("BackendDirectory", directory)
        if inode is self.inodes.root:
            return self._root_directory
        if not inode.is_directory:
            raise NotADirectory
        return await self._open_chain(inode)

    async def _open_chain(self, inode: Inode) -> BackendDirectory:
        """Open a directory and those above it that are not open; a loop, since trees may be thousands deep."""
        closed: list[Inode] = []
        above = inode
        while above.directory is None and above is not self.inodes.root:
            closed.append(above)
            if above.parent is None:
                raise Stale("the directory is gone")
            above = above.parent
        directory = cast("BackendDirectory | None", above.directory) or self._root_directory
        for child in reversed(closed):
            try:
                directory = await self.backend.open_directory(directory, child.name, child.backing_ino)
            except (NotFound, NotADirectory) as error:
                raise Stale("the directory is not where it was") from error
            self._keep(child, directory)
        return directory

    def _keep(self, inode: Inode, directory: BackendDirectory) -> None:
        inode.directory = directory
        self._open_directories[inode] = None
        if len(self._open_directories) > MAX_OPEN_DIRECTORIES:
            oldest, _ = self._open_directories.popitem(last=False)
            oldest.directory = None  # closes when its last user is done

    def forget(self, ino: int, count: int) -> None:
        """Take the kernel's references back."""
        self.inodes.forget(ino, count)

    def close_directory(self, inode: Inode) -> None:
        """Drop the driver's open directory of an inode, if there is one."""
        if inode.directory is not None:
            inode.directory = None
            self._open_directories.pop(inode, None)

    # -- places -------------------------------------------------------------------------------------------------

    async def at_place(self, inode: Inode, call: Callable[[BackendDirectory, bytes], Awaitable[T]]) -> T:
        """Run a driver's call on an inode by one of its names; by the next one if a name is stale.

        Raises:
            Stale: no known name leads to the inode. Whatever the call raises.
        """
        if inode.is_directory:
            return await call(await self.directory_of(inode), b"")
        for parent, name in inode.names():
            try:
                return await call(await self.directory_of(parent), name)
            except (NotFound, Stale):
                self.inodes.drop_name(inode, parent, name)
        raise Stale("no known name leads to the inode")

    async def on_inode(
        self,
        inode: Inode,
        by_name: Callable[[BackendDirectory, bytes], Awaitable[T]],
        by_file: Callable[[BackendFile], Awaitable[T]],
    ) -> T:
        """Run a call by an open file where there is one (it survives unlink and rename), else by name."""
        opened = self.usable_file(inode)
        if opened is not None:
            return await opened.use(by_file)
        return await self.at_place(inode, by_name)

    # -- open files ---------------------------------------------------------------------------------------------

    async def open_backing(self, inode: Inode, *, writable: bool) -> tuple[BackendFile, FileAttributes]:
        """Return a handle of one's own, to be registered without an await, and the attributes as they are now.

        Raises:
            Stale: it is gone. Whatever the driver raises.
        """
        settled = inode.settled
        opened = self.usable_file(inode) if inode.parent is None else None
        if opened is not None:
            file = await opened.use(lambda file: file.reopen(writable=writable))
            attributes = await file.get_attributes()
        else:
            file, attributes = await self.at_place(
                inode,
                lambda directory, name: self.backend.open_file(directory, name, inode.backing_ino, writable=writable),
            )
        while settled != inode.settled:  # another writer came and went meanwhile
            settled = inode.settled
            attributes = await file.get_attributes()
        if inode.unlinked and self.usable_file(inode) is None:  # meanwhile; it is counted as nothing already
            await file.close()
            raise Stale
        return file, attributes

    def register(
        self, inode: Inode, file: BackendFile, attributes: FileAttributes, *, writable: bool, privileged: bool
    ) -> Fh:
        """Enter an opened backing file. No await: the number exists before the reply that names it."""
        opened = OpenFile(inode, file, writable=writable, privileged=privileged)
        if writable:
            if inode.charge is None:
                inode.charge = InodeCharge(None, attributes.size)
            opened.strip_mode = not privileged and privileges_to_clear(attributes.mode) != 0
        inode.open_files = (*inode.open_files, opened)
        return self.files.add(opened)

    async def release(self, fh: int) -> None:
        """Close a handle; once the last one is closed, settle the quota. Never raises what nobody could see.

        Until it is closed it counts as open: whoever removes or truncates the inode meanwhile finds its charge.
        """
        opened = self.files.remove(fh)
        if opened is None:
            return
        inode = opened.inode
        try:
            if opened.written:
                await self._look_once_more(opened)
            opened.is_closing = True
            if inode.unlinked:
                self.leave_number(inode)
            await opened.close()
        finally:
            inode.open_files = tuple([other for other in inode.open_files if other is not opened])
            self._settle(inode)

    def leave_number(self, inode: Inode) -> None:
        """Note that an inode has no name; storage may give its number to another one once nobody has it open.

        Until then storage may show it under a name of its own, and whoever looks that up has to find what is charged.
        """
        if self.usable_file(inode) is None:
            self.inodes.mark_gone(inode)
        else:
            self.inodes.drop_names(inode)

    @contextlib.contextmanager
    def kept_charged(self, backing_ino: int) -> Iterator[Inode | None]:
        """Let the charge of an inode whose name is being removed outlive its last close, until that has ended.

        Gives the inode; None where nobody knows it.
        """
        inode = self.inodes.find_backing(backing_ino)
        if inode is None:
            yield None
            return
        inode.removals += 1
        try:
            yield inode
        finally:
            inode.removals -= 1
            if not inode.removals and not inode.open_files:
                inode.links = None
            self._settle(inode)

    def _settle(self, inode: Inode) -> None:
        """End an inode's record of the quota where nothing needs it any more."""
        if inode.open_files or inode.removals:
            return
        charge = cast("InodeCharge | None", inode.charge)
        inode.charge = None
        if charge is not None:
            inode.settled += 1
            self.changes += 1
            self.gate.release(charge, gone=inode.unlinked)
        self.inodes.drop_unused(inode)

    async def _look_once_more(self, opened: OpenFile) -> None:
        """Note what the kernel's page cache holds now, and charge what a failed call left uncertain."""
        inode, charge = opened.inode, cast("InodeCharge | None", opened.inode.charge)
        try:
            attributes = await opened.file.get_attributes()
        except StorageException:
            inode.version = None
            return
        inode.version = (attributes.mtime_ns, attributes.size)
        if charge is not None and charge.uncertain and not charge.pending:
            self.gate.correct(charge, attributes.size)

    # -- names for people ---------------------------------------------------------------------------------------

    def location(self, ino: int, name: bytes = b"") -> StorageLocation:
        """Return the place of an inode, or of a name in it, for logs, errors and reports. Never raises."""
        parts = [name] if name else []
        inode = self.inodes.get(ino)
        while inode is not None and inode.parent is not None and len(parts) < 4096:
            parts.append(inode.name)
            inode = inode.parent
        if inode is not self.inodes.root:
            parts.append(b"(inode %d)" % ino)
        relative = os.fsdecode(b"/".join(reversed(parts))).replace("\0", "")
        return StorageLocation(self.volume.identity.volume_id, self.mount_point, Path(relative))
