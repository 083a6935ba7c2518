"""Names: lookup, create, mkdir, mknod, symlink, link, unlink, rmdir, rename.

Each change of a name runs between ``begin_*`` and ``end_*`` of the quota gate, one at a time in each directory. When a
driver fails in the middle, the name is looked at again, so that what is charged is what stands there, whatever the
driver said.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

import attrs
import trio

from volgate.drivers.base import RENAME_EXCHANGE, RENAME_NOREPLACE, NodeOwner, charged_usage
from volgate.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    NotPermitted,
)
from volgate.volume.quota_gate import InodeCharge, NameChange

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendDirectory, BackendFile
    from volgate.dto import FileAttributes
    from volgate.vfs.open_file import OpenFile
    from volgate.vfs.tree import Tree


class Namespace:
    """The tree's names. Arguments are inodes and name bytes.

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
        directory = cast("BackendDirectory", parent.directory or await self._tree.directory_of(parent))
        changes = parent.changes
        attributes = await self._backend.find_attributes(directory, name)
        if changes != parent.changes:  # it may have been this name's
            async with self._tree.names_held(parent, change=False):
                attributes = await self._backend.find_attributes(directory, name)
        return None if attributes is None else (self._tree.inodes.observe(parent, name, attributes), attributes)

    async def create_file(
        self, parent: Inode, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[Inode, FileAttributes, BackendFile]:
        """Make an empty regular file and leave it open for reading and writing. Raises AlreadyExists."""
        async with self._creating(parent, name) as directory:
            file, attributes = await self._backend.create_file(directory, name, mode & 0o7777, owner)
            inode = self._tree.inodes.observe_made(parent, name, attributes)
        return inode, attributes, file

    async def create_node(
        self, parent: Inode, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> tuple[Inode, FileAttributes]:
        """Make a directory, regular file, fifo, socket or device node by the type bits of mode.

        The kernel lets only root make device nodes, and opens none here: every mount is nodev.
        """
        if stat.S_IFMT(mode) not in (stat.S_IFDIR, stat.S_IFREG) and not self._backend.capabilities.special_files:
            raise NotPermitted
        async with self._creating(parent, name) as directory:
            attributes = await self._backend.create_node(directory, name, mode, owner, rdev=rdev)
            inode = self._tree.inodes.observe_made(parent, name, attributes)
        return inode, attributes

    async def create_symlink(
        self, parent: Inode, name: bytes, target: bytes, owner: NodeOwner
    ) -> tuple[Inode, FileAttributes]:
        """Make a symlink; its target is stored as given, and charged only where the backend says so."""
        charged = len(target) if self._backend.capabilities.charges_links else 0
        async with self._creating(parent, name, charged) as directory:
            attributes = await self._backend.create_symlink(directory, name, target, owner)
            inode = self._tree.inodes.observe_made(parent, name, attributes)
        return inode, attributes

    @contextlib.asynccontextmanager
    async def _creating(self, parent: Inode, name: bytes, charged_bytes: int = 0) -> AsyncIterator[BackendDirectory]:
        """Run what makes a node under a name, reserved by the quota; gives the open directory to make it in."""
        self._tree.check_name(parent, name, drafts=self._drafts)
        if self._gate.is_counting:
            await self._gate.wait_until_counted()
        async with self._tree.names_held(parent):
            directory = await self._tree.directory_of(parent)
            change = self._gate.begin_create(self._backend.key_of_name(directory, name, 0), charged_bytes)
            try:
                yield directory
            except AlreadyExists:
                self._gate.end_create(change, created=False)
                raise
            except BaseException as error:
                created = await self._look_after(error, directory, name) is not None
                self._gate.end_create(change, created=created)
                raise
            self._gate.end_create(change, created=True)

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
        async with self._tree.names_held(parent):
            target = await self._tree.directory_of(parent)
            async with self._tree.links_held(inode.backing_ino):
                try:
                    attributes = await self._tree.at_place(
                        inode,
                        lambda directory, old: self._backend.link(directory, old, inode.backing_ino, target, name),
                    )
                finally:
                    self._tree.changes += 1
                if inode.links is not None:
                    inode.links += 1
                inode.unlinked = False  # of a name that storage keeps until the last close
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
        async with self._tree.names_held(parent):
            place = _Place(await self._tree.directory_of(parent), parent, name)
            changes = self._tree.changes
            attributes = await self._backend.get_attributes(place.directory, name)
            async with self._going(place, attributes, changes) as going:
                try:
                    await self._backend.remove(place.directory, name, is_directory=is_directory)
                except BaseException as error:
                    standing = await self._look_after(error, place.directory, name)
                    await self._end_remove(going, removed=standing is None or standing.ino != going.attributes.ino)
                    raise
                await self._end_remove(going, removed=True)

    @contextlib.asynccontextmanager
    async def _going(self, place: _Place, attributes: FileAttributes, changes: int) -> AsyncIterator[_Going]:
        """Begin to remove a name. Inside nobody else makes or removes a link of the inode.

        Args:
            attributes: of what stands there. changes: ``Tree.changes`` when these were asked for.
        """
        async with self._tree.links_held(attributes.ino):
            if changes != self._tree.changes:
                attributes = await self._settled_attributes(place, attributes.ino)
            if self._snapshots.generation:
                attributes = await self._preserve(place.directory, place.name, attributes)
            with self._tree.kept_charged(attributes.ino) as inode:
                going = self._begin_remove(place, attributes, inode)
                try:
                    yield going
                finally:
                    self._tree.changes += not going.is_last

    async def _settled_attributes(self, place: _Place, ino: int) -> FileAttributes:
        """Return the attributes of what stands under a name, since when nobody who wrote it has closed it."""
        while True:
            inode = self._tree.inodes.find_backing(ino)
            settled = 0 if inode is None else inode.settled
            attributes = await self._backend.get_attributes(place.directory, place.name)
            if inode is self._tree.inodes.find_backing(ino) and (inode is None or settled == inode.settled):
                return attributes

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

    def _begin_remove(self, place: _Place, attributes: FileAttributes, inode: Inode | None) -> _Going:
        """Tell the gate that a name goes, of an inode that is known or not."""
        if stat.S_ISDIR(attributes.mode):
            links = 1
        else:
            links = attributes.nlink if inode is None or inode.links is None else min(attributes.nlink, inode.links)
        going = _Going(place, attributes, inode, is_last=links <= 1)
        if not going.is_last:
            if inode is not None:
                inode.links = links - 1
        elif inode is not None and _is_charged(inode):
            self._gate.hold_unlinked(self._charge_of(inode, attributes))
        else:
            going.change = self._gate.begin_remove(
                self._backend.key_of_name(place.directory, place.name, attributes.ino),
                charged_usage(attributes, charges_links=self._backend.capabilities.charges_links),
            )
        return going

    async def _end_remove(self, going: _Going, *, removed: bool) -> None:
        """Settle a remove: with its last name an inode is gone, unless somebody has it open."""
        inode = going.inode or self._standing(going)
        if going.change is not None:
            frees = removed
            if removed and inode is not None and _is_charged(inode):  # it was opened meanwhile
                self._gate.hold_unlinked(self._charge_of(inode, going.attributes))
                frees = False
            self._gate.end_remove(going.change, removed=frees)
        if not removed:
            if inode is not None and not going.is_last and inode.links is not None:
                inode.links += 1
            if self._snapshots.generation:
                await self._snapshots.after_failed_removal(going.attributes.ino)
        elif inode is not None and going.is_last:
            inode.unlinked = True
            self._tree.close_directory(inode)
            self._tree.leave_number(inode)
        elif inode is not None:
            self._tree.inodes.drop_name(inode, going.place.parent, going.place.name)

    def _standing(self, going: _Going) -> Inode | None:
        """Return the inode that stood under a name which was removed and was looked up meanwhile; None: nobody did.

        Storage may give its number away at once: who stands elsewhere by that number is another one.
        """
        inode = self._tree.inodes.find_backing(going.attributes.ino)
        names = () if inode is None else inode.names()
        return inode if (going.place.parent, going.place.name) in names else None

    def _charge_of(self, inode: Inode, attributes: FileAttributes) -> InodeCharge:
        charge = inode.charge
        if charge is None:
            charge = inode.charge = InodeCharge(None, attributes.size)
        charge = cast("InodeCharge", charge)
        if charge.key is None and inode.open_files:
            charge.key = self._backend.key_of_file(cast("OpenFile", inode.open_files[0]).file)
        return charge

    # -- rename -------------------------------------------------------------------------------------------------

    async def rename(
        self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, flags: int, *, replaces: bool = True
    ) -> None:
        """Give a name another place as rename(2) does, RENAME_NOREPLACE and RENAME_EXCHANGE included.

        Args:
            replaces: False: as RENAME_NOREPLACE; where the storage cannot do that, among the users of this mount.

        Raises:
            AlreadyExists: something is there that is not to be replaced.
            InvalidArgument: other flags, or flags that the backing cannot do.
            Busy: a copy is being made below it, in storage that cannot rename a directory at once.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise InvalidArgument
        if flags and not self._backend.capabilities.rename_flags:
            raise InvalidArgument
        if not replaces and self._backend.capabilities.rename_flags:
            flags |= RENAME_NOREPLACE
        self._tree.check_removable(parent, name, drafts=self._drafts)
        self._tree.check_name(new_parent, new_name, drafts=self._drafts)
        async with self._tree.names_held(parent, new_parent):
            from_ = _Place(await self._tree.directory_of(parent), parent, name)
            to = _Place(await self._tree.directory_of(new_parent), new_parent, new_name)
            changes = self._tree.changes
            moved = await self._backend.get_attributes(from_.directory, name)
            replaced = await self._backend.find_attributes(to.directory, new_name)
            if replaced is not None and not replaces:
                raise AlreadyExists(f"{os.fsdecode(new_name)!r} is there already")
            self._tree.check_movable(moved.ino, *(() if replaced is None else (replaced.ino,)))
            if flags & RENAME_EXCHANGE:
                await self._exchange(from_, to, moved, replaced)
            elif replaced is None or flags:
                await self._move(from_, to, moved, None, flags)
            elif replaced.ino == moved.ino:  # two names of one inode: both stay
                await self._backend.rename(from_.directory, name, to.directory, new_name, flags)
            else:
                async with self._going(to, replaced, changes) as going:
                    await self._move(from_, to, moved, going, flags)

    async def _move(self, from_: _Place, to: _Place, moved: FileAttributes, going: _Going | None, flags: int) -> None:
        """Rename. Args: going: what stands at the target, None where nothing does."""
        try:
            await self._backend.rename(from_.directory, from_.name, to.directory, to.name, flags)
        except BaseException as error:
            standing = await self._look_after(error, to.directory, to.name)
            happened = standing is not None and standing.ino == moved.ino
            if going is not None:
                await self._end_remove(going, removed=happened)
            if happened:
                self._follow(moved, from_, to)
            raise
        if going is not None:
            await self._end_remove(going, removed=True)
        self._follow(moved, from_, to)

    async def _exchange(self, one: _Place, other: _Place, first: FileAttributes, second: FileAttributes | None) -> None:
        if second is None:
            raise NotFound
        await self._backend.rename(one.directory, one.name, other.directory, other.name, RENAME_EXCHANGE)
        if first.ino != second.ino:
            self._follow(first, one, other)
            self._follow(second, other, one)

    def _follow(self, moved: FileAttributes, from_: _Place, to: _Place) -> None:
        """Note that an inode has another name in place of one."""
        inode = self._tree.inodes.find_backing(moved.ino)
        if inode is not None:
            self._tree.inodes.move_name(inode, (from_.parent, from_.name), (to.parent, to.name))


@attrs.frozen
class _Place:
    """A name. Attributes: directory: the driver's, open. parent: of the tree."""

    directory: BackendDirectory
    parent: Inode
    name: bytes


@attrs.define
class _Going:
    """A name that is being removed.

    Attributes:
        attributes: of what it led to. inode: of it; None: nobody knew it when that began.
        is_last: the inode goes with it. change: the quota's; None: the inode stays charged.
    """

    place: _Place
    attributes: FileAttributes
    inode: Inode | None
    is_last: bool
    change: NameChange | None = None


def _is_charged(inode: Inode) -> bool:
    """Return whether the quota has a record of an inode, which its last close settles."""
    return bool(inode.open_files) or inode.charge is not None
