"""Names: lookup, create, mkdir, mknod, symlink, link, unlink, rmdir, rename.

Each change of a name runs between ``begin_*`` and ``end_*`` of the quota gate. When a driver fails in the middle, the
name is looked at again, so that what is charged is what stands there, whatever the driver said.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, cast

import attrs
import trio

from volgate.drivers.base import RENAME_EXCHANGE, RENAME_NOREPLACE, NodeOwner, charged_usage
from volgate.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    NotPermitted,
    StorageException,
)
from volgate.volume.quota_gate import InodeCharge, NameChange

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendDirectory, BackendFile
    from volgate.dto import FileAttributes
    from volgate.vfs.open_file import OpenFile
    from volgate.vfs.tree import Tree


class Namespace:
    """The tree's names. Arguments are inodes and name bytes; the kernel serializes changes of one directory.

    Args:
        drafts: whether drafts are seen and made: by the gateway itself, never by users.
    """

    def __init__(self, tree: Tree, *, drafts: bool = False) -> None:
        self._tree = tree
        self._drafts = drafts
        self._backend = tree.backend
        self._gate = tree.gate
        self._snapshots = tree.volume.snapshots

    async def lookup(self, parent: Inode, name: bytes) -> tuple[Inode, FileAttributes] | None:
        """Return what stands under a name; None where nothing does, which the kernel may remember.

        Raises:
            CrossDevice: another file system is mounted there.
        """
        if self._tree.is_hidden(parent, name, drafts=self._drafts):
            return None
        if len(name) > 255:
            self._tree.check_name(parent, name, drafts=self._drafts)
        directory = parent.directory or await self._tree.directory_of(parent)
        attributes = await self._backend.find_attributes(cast("BackendDirectory", directory), name)
        return None if attributes is None else (self._tree.inodes.observe(parent, name, attributes), attributes)

    async def create_file(
        self, parent: Inode, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[Inode, FileAttributes, BackendFile]:
        """Make an empty regular file and leave it open for reading and writing. Raises AlreadyExists."""
        directory, change = await self._begin_create(parent, name)
        try:
            file, attributes = await self._backend.create_file(directory, name, mode & 0o7777, owner)
            inode = self._tree.inodes.observe(parent, name, attributes)
        except BaseException as error:
            await self._end_failed_create(directory, name, change, error)
            raise
        self._gate.end_create(change, created=True)
        return inode, attributes, file

    async def create_node(
        self, parent: Inode, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> tuple[Inode, FileAttributes]:
        """Make a directory, regular file, fifo, socket or device node by the type bits of mode.

        The kernel lets only root make device nodes, and opens none here: every mount is nodev.
        """
        if stat.S_IFMT(mode) not in (stat.S_IFDIR, stat.S_IFREG) and not self._backend.capabilities.special_files:
            raise NotPermitted
        directory, change = await self._begin_create(parent, name)
        try:
            attributes = await self._backend.create_node(directory, name, mode, owner, rdev=rdev)
            inode = self._tree.inodes.observe(parent, name, attributes)
        except BaseException as error:
            await self._end_failed_create(directory, name, change, error)
            raise
        self._gate.end_create(change, created=True)
        return inode, attributes

    async def create_symlink(
        self, parent: Inode, name: bytes, target: bytes, owner: NodeOwner
    ) -> tuple[Inode, FileAttributes]:
        """Make a symlink; its target is stored as given, and charged only where the backend says so."""
        charged = len(target) if self._backend.capabilities.charges_links else 0
        directory, change = await self._begin_create(parent, name, charged)
        try:
            attributes = await self._backend.create_symlink(directory, name, target, owner)
            inode = self._tree.inodes.observe(parent, name, attributes)
        except BaseException as error:
            await self._end_failed_create(directory, name, change, error)
            raise
        self._gate.end_create(change, created=True)
        return inode, attributes

    async def _begin_create(
        self, parent: Inode, name: bytes, charged_bytes: int = 0
    ) -> tuple[BackendDirectory, NameChange]:
        self._tree.check_name(parent, name, drafts=self._drafts)
        directory = await self._tree.directory_of(parent)
        if self._gate.is_counting:
            await self._gate.wait_until_counted()
        return directory, self._gate.begin_create(self._backend.key_of_name(directory, name, 0), charged_bytes)

    async def _end_failed_create(
        self, directory: BackendDirectory, name: bytes, change: NameChange, error: BaseException
    ) -> None:
        """Settle a create that raised by what stands there now."""
        if isinstance(error, AlreadyExists):
            self._gate.end_create(change, created=False)
            return
        created = await self._look_after(error, directory, name) is not None
        self._gate.end_create(change, created=created)

    async def _look_after(
        self, error: BaseException, directory: BackendDirectory, name: bytes
    ) -> FileAttributes | None:
        """Return what stands under a name whose change raised ``error``; where that says nothing, usage is uncertain.

        A call that was given up may still happen, in its thread or on its server.
        """
        try:
            if isinstance(error, trio.Cancelled):
                raise error
            return await self._backend.find_attributes(directory, name)
        except BaseException:
            self._gate.leave_uncertain()
            raise

    async def link(self, inode: Inode, parent: Inode, name: bytes) -> tuple[Inode, FileAttributes]:
        """Give an inode another name; nothing more is charged. Raises NotPermitted for a directory."""
        if inode.is_directory:
            raise NotPermitted
        if not self._backend.capabilities.hard_links:
            raise NotPermitted
        self._tree.check_name(parent, name, drafts=self._drafts)
        target = await self._tree.directory_of(parent)
        attributes = await self._tree.at_place(
            inode,
            lambda directory, old_name: self._backend.link(directory, old_name, inode.backing_ino, target, name),
        )
        return self._tree.inodes.observe(parent, name, attributes), attributes

    async def read_link(self, inode: Inode) -> bytes:
        """Return a symlink's target."""
        target = await self._tree.at_place(
            inode, lambda directory, name: self._backend.read_link(directory, name, inode.backing_ino)
        )
        if b"\0" in target:
            raise InvalidArgument
        return target

    # -- removing -----------------------------------------------------------------------------------------------

    async def unlink(self, parent: Inode, name: bytes) -> None:
        """Remove a name that is no directory's. The inode stays charged until its last close."""
        await self._remove(parent, name, is_directory=False)

    async def rmdir(self, parent: Inode, name: bytes) -> None:
        """Remove an empty directory."""
        await self._remove(parent, name, is_directory=True)

    async def _remove(self, parent: Inode, name: bytes, *, is_directory: bool) -> None:
        self._tree.check_removable(parent, name, drafts=self._drafts)
        directory = await self._tree.directory_of(parent)
        attributes = await self._backend.get_attributes(directory, name)
        if self._snapshots.generation:
            attributes = await self._preserve(directory, name, attributes)
        with self._tree.kept_charged(attributes.ino):
            change = self._begin_remove(directory, name, attributes)
            try:
                await self._backend.remove(directory, name, is_directory=is_directory)
            except BaseException as error:
                if not await self._end_failed_remove(directory, parent, name, attributes, change, error):
                    raise
                self._after_remove(parent, name, attributes)
                raise
            if change is not None:
                self._end_remove(change, parent, name, attributes, removed=True)
            self._after_remove(parent, name, attributes)

    async def _preserve(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> FileAttributes:
        """Let the snapshots have an inode whose last name is about to go; returns what stands there afterwards."""
        while stat.S_ISREG(attributes.mode):
            ino = attributes.ino
            attributes = attrs.evolve(attributes, nlink=attributes.nlink - self._snapshots.links_of(ino))
            if attributes.nlink > 1:
                break
            inode = self._tree.inodes.find_backing(ino)
            file = None
            opened = None if inode is None else self._tree.usable_file(inode)
            if opened is not None:
                file = await opened.use(lambda file: file.reopen(writable=False))
            try:
                await self._snapshots.before_removal(directory, name, attributes, file)
            finally:
                if file is not None:
                    await file.close()
            attributes = await self._backend.get_attributes(directory, name)  # it may have grown meanwhile
            if attributes.ino == ino:
                return attrs.evolve(attributes, nlink=attributes.nlink - self._snapshots.links_of(ino))
        return attributes

    def _begin_remove(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> NameChange | None:
        """Tell the gate that a name goes. None: other names or open files keep the inode charged."""
        is_directory = stat.S_ISDIR(attributes.mode)
        if not is_directory and attributes.nlink > 1:
            return None
        inode = self._tree.inodes.find_backing(attributes.ino)
        if inode is not None and _is_charged(inode):
            self._gate.hold_unlinked(self._charge_of(inode, attributes))
            return None
        return self._gate.begin_remove(
            self._backend.key_of_name(directory, name, attributes.ino),
            charged_usage(attributes, charges_links=self._backend.capabilities.charges_links),
        )

    def _end_remove(
        self, change: NameChange, parent: Inode, name: bytes, attributes: FileAttributes, *, removed: bool
    ) -> None:
        """Settle a remove: with the name the inode is gone, unless somebody opened it meanwhile."""
        inode = self._standing(parent, name, attributes)
        if removed and inode is not None and _is_charged(inode):
            self._gate.hold_unlinked(self._charge_of(inode, attributes))
            removed = False
        self._gate.end_remove(change, removed=removed)

    def _standing(self, parent: Inode, name: bytes, attributes: FileAttributes) -> Inode | None:
        """Return the inode that stood under a name which was removed, None where nobody knows it.

        Storage may give its number away at once: who stands elsewhere by that number is another one. Whoever looked for
        it by its name meanwhile has found none.
        """
        inode = self._tree.inodes.find_backing(attributes.ino)
        names = () if inode is None else tuple(inode.names())
        return inode if not names or (parent, name) in names else None

    def _charge_of(self, inode: Inode, attributes: FileAttributes) -> InodeCharge:
        charge = inode.charge
        if charge is None:
            charge = inode.charge = InodeCharge(None, attributes.size)
        charge = cast("InodeCharge", charge)
        if charge.key is None and inode.open_files:
            charge.key = self._backend.key_of_file(cast("OpenFile", inode.open_files[0]).file)
        return charge

    async def _end_failed_remove(
        self,
        directory: BackendDirectory,
        parent: Inode,
        name: bytes,
        attributes: FileAttributes,
        change: NameChange | None,
        error: BaseException,
    ) -> bool:
        """Settle a remove that raised by what stands there now; returns whether the name is gone all the same."""
        standing = await self._look_after(error, directory, name)
        gone = standing is None or standing.ino != attributes.ino
        if change is not None:
            self._end_remove(change, parent, name, attributes, removed=gone)
        if not gone and self._snapshots.generation:
            await self._snapshots.after_failed_removal(attributes.ino)
        return gone

    def _after_remove(self, parent: Inode, name: bytes, attributes: FileAttributes) -> None:
        inode = self._standing(parent, name, attributes)
        if inode is None:
            return
        if inode.is_directory or attributes.nlink <= 1:
            inode.unlinked = True
            self._tree.close_directory(inode)
            self._tree.inodes.mark_gone(inode)
        else:
            self._tree.inodes.drop_name(inode, parent, name)

    # -- rename -------------------------------------------------------------------------------------------------

    async def rename(self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, flags: int) -> None:
        """Give a name another place as rename(2) does, RENAME_NOREPLACE and RENAME_EXCHANGE included.

        Raises:
            InvalidArgument: other flags, or flags that the backing cannot do.
            Busy: a copy is being made below it, in storage that cannot rename a directory at once.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise InvalidArgument
        if flags and not self._backend.capabilities.rename_flags:
            raise InvalidArgument
        self._tree.check_removable(parent, name, drafts=self._drafts)
        self._tree.check_name(new_parent, new_name, drafts=self._drafts)
        source = await self._tree.directory_of(parent)
        target = await self._tree.directory_of(new_parent)
        moved = await self._backend.get_attributes(source, name)
        replaced = await self._backend.find_attributes(target, new_name)
        self._tree.check_movable(moved.ino, *(() if replaced is None else (replaced.ino,)))
        if flags & RENAME_EXCHANGE:
            await self._exchange(parent, name, new_parent, new_name, moved, replaced)
            return
        with contextlib.nullcontext() if replaced is None else self._tree.kept_charged(replaced.ino):
            await self._move((source, parent, name), (target, new_parent, new_name), moved, replaced, flags)

    async def _move(
        self,
        from_: tuple[BackendDirectory, Inode, bytes],
        to: tuple[BackendDirectory, Inode, bytes],
        moved: FileAttributes,
        replaced: FileAttributes | None,
        flags: int,
    ) -> None:
        (source, parent, name), (target, new_parent, new_name) = from_, to
        same = replaced is not None and replaced.ino == moved.ino
        change = None
        if replaced is not None and not same and not flags:
            if self._snapshots.generation:
                replaced = await self._preserve(target, new_name, replaced)
            change = self._begin_remove(target, new_name, replaced)
        try:
            await self._backend.rename(source, name, target, new_name, flags)
        except BaseException as error:
            if not await self._end_failed_rename(to, moved, replaced, change, error):
                raise
            if not isinstance(error, StorageException):
                raise
            self._after_rename(parent, name, new_parent, new_name, moved, replaced)
            raise
        if change is not None and replaced is not None:
            self._end_remove(change, new_parent, new_name, replaced, removed=True)
        if not same:
            self._after_rename(parent, name, new_parent, new_name, moved, replaced)

    async def _end_failed_rename(
        self,
        to: tuple[BackendDirectory, Inode, bytes],
        moved: FileAttributes,
        replaced: FileAttributes | None,
        change: NameChange | None,
        error: BaseException,
    ) -> bool:
        """Settle a rename that raised by what stands at the target; returns whether it happened all the same."""
        target, new_parent, new_name = to
        standing = await self._look_after(error, target, new_name)
        happened = standing is not None and standing.ino == moved.ino
        if change is not None and replaced is not None:
            self._end_remove(change, new_parent, new_name, replaced, removed=happened)
        if not happened and replaced is not None and self._snapshots.generation:
            await self._snapshots.after_failed_removal(replaced.ino)
        return happened and (replaced is None or replaced.ino != moved.ino)

    def _after_rename(
        self,
        parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        moved: FileAttributes,
        replaced: FileAttributes | None,
    ) -> None:
        if replaced is not None:
            self._after_remove(new_parent, new_name, replaced)
        inode = self._tree.inodes.find_backing(moved.ino)
        if inode is not None:
            self._tree.inodes.move_name(inode, (parent, name), (new_parent, new_name))

    async def _exchange(
        self,
        parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        one: FileAttributes,
        other: FileAttributes | None,
    ) -> None:
        if other is None:
            raise NotFound
        source = await self._tree.directory_of(parent)
        target = await self._tree.directory_of(new_parent)
        await self._backend.rename(source, name, target, new_name, RENAME_EXCHANGE)
        inodes = self._tree.inodes
        for attributes, old, new in (
            (one, (parent, name), (new_parent, new_name)),
            (other, (new_parent, new_name), (parent, name)),
        ):
            inode = inodes.find_backing(attributes.ino)
            if inode is not None and one.ino != other.ino:
                inodes.move_name(inode, old, new)


def _is_charged(inode: Inode) -> bool:
    """Return whether the quota has a record of an inode, which its last close settles."""
    return bool(inode.open_files) or inode.charge is not None
