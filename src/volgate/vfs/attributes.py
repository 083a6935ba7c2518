"""Attributes: getattr, setattr with its truncate, statfs, extended attributes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from volgate.dto import AttributeChanges, FileAttributes
from volgate.errors import IsADirectory, NoAttribute, NotPermitted, StorageException, Unsupported
from volgate.vfs.open_file import privileges_to_clear

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendDirectory, BackendFile
    from volgate.vfs.tree import Tree
    from volgate.volume.quota_gate import InodeCharge

_ACLS: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})
_RESERVED_PREFIX: Final = b"user.volgate."


@attrs.frozen
class FileSystemSpace:
    """What df shows.

    Attributes:
        free_bytes: min(limit - used, free in the backing). total_bytes: used + free, so that df's "used" is right.
        free_inodes: likewise. total_inodes: likewise.
        max_name_bytes: longest name.
    """

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int
    max_name_bytes: int


class Attributes:
    """Attributes of inodes, by open file where there is one, else by name."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._backend = tree.backend
        self._gate = tree.gate
        self._snapshots = tree.volume.snapshots

    async def get(self, inode: Inode) -> FileAttributes:
        """Return an inode's attributes.

        Raises:
            Stale: it is gone, or another inode stands under its name now.
        """
        opened = self._tree.usable_file(inode)
        if opened is not None:
            return await opened.use(_attributes_of)
        if inode.is_directory:
            return await self._backend.get_attributes(await self._tree.directory_of(inode), b"")
        parent = inode.parent
        if parent is not None:
            try:
                found = await self._backend.get_attributes(await self._tree.directory_of(parent), inode.name)
            except StorageException:
                found = None
            if found is not None and found.ino == inode.backing_ino:
                return found
        return await self._tree.at_place(inode, lambda directory, name: self._get_checked(directory, name, inode))

    async def _get_checked(self, directory: object, name: bytes, inode: Inode) -> FileAttributes:
        # AttributeChanges() changes nothing, but makes the driver verify the inode before it answers.
        return await self._backend.set_attributes(directory, name, inode.backing_ino, AttributeChanges())  # type: ignore[arg-type]

    async def set(
        self, inode: Inode, changes: AttributeChanges, *, size: int | None, fh: int | None, privileged: bool
    ) -> FileAttributes:
        """Change size, then the other attributes, and return the new ones.

        Raises:
            QuotaExceeded: a larger size does not fit; nothing changed.
            IsADirectory: size of a directory.
        """
        attributes = None
        pages_are_valid = (size is not None or changes.mtime_ns is not None) and await self._pages_are_valid(inode)
        if size is not None:
            attributes = await self._set_size(inode, size, fh, privileged=privileged)
        if changes != _NO_CHANGES:
            if changes.mtime_ns is not None and self._snapshots.generation:
                await self.preserve(inode)
            attributes = await self._apply(inode, changes)
            if changes.mode is not None and privileges_to_clear(changes.mode):
                self._strip_at_next_write(inode)
        if attributes is None:
            attributes = await self.get(inode)
        if pages_are_valid:
            inode.version = (attributes.mtime_ns, attributes.size)  # our own change: the kernel's pages stay valid
        return attributes

    async def _pages_are_valid(self, inode: Inode) -> bool:
        """Return whether the kernel's pages of a file, if it has any, are what the backing holds."""
        if inode.version is None:
            return False
        before = await self.get(inode)
        return inode.version == (before.mtime_ns, before.size)

    async def preserve(self, inode: Inode) -> None:
        """Let the snapshots have a file before its size or mtime is set: by both they see whether others changed it.

        By a handle of its own: others may be closed meanwhile. It may take long, so whatever the caller knew of the
        inode is to be looked at again.
        """
        if inode.file_type != stat.S_IFREG:
            return
        file = await self._tree.on_inode(
            inode,
            lambda directory, name: self._open_to_read(directory, name, inode),
            lambda file: file.reopen(writable=False),
        )
        try:
            await self._snapshots.before_change(inode.backing_ino, file)
        finally:
            await file.close()

    async def _open_to_read(self, directory: BackendDirectory, name: bytes, inode: Inode) -> BackendFile:
        return (await self._backend.open_file(directory, name, inode.backing_ino, writable=False))[0]

    async def _apply(self, inode: Inode, changes: AttributeChanges) -> FileAttributes:
        return await self._tree.on_inode(
            inode,
            lambda directory, name: self._backend.set_attributes(directory, name, inode.backing_ino, changes),
            lambda file: file.set_attributes(changes),
        )

    def _strip_at_next_write(self, inode: Inode) -> None:
        for opened in inode.open_files:
            if opened.writable and not opened.privileged:  # type: ignore[attr-defined]
                opened.strip_mode = True  # type: ignore[attr-defined]

    async def _set_size(self, inode: Inode, size: int, fh: int | None, *, privileged: bool) -> FileAttributes:
        if inode.is_directory:
            raise IsADirectory
        if self._snapshots.generation:
            await self.preserve(inode)
        opened = self._tree.files.get(fh) if fh is not None else None
        if opened is not None and opened.writable:
            return await self.resize(inode, opened.file, size, privileged=privileged)
        file, attributes = await self._tree.open_backing(inode, writable=True)
        own = self._tree.register(inode, file, attributes, writable=True, privileged=privileged)
        try:
            return await self.resize(inode, file, size, privileged=privileged)
        finally:
            await self._tree.release(own)

    async def resize(self, inode: Inode, file: BackendFile, size: int, *, privileged: bool) -> FileAttributes:
        """Set a file's size through the quota gate and return its new attributes. ``preserve`` comes before it.

        Args:
            file: of a handle that is registered.
        """
        if self._tree.is_atomic:
            return await self._resize(inode, file, size, privileged=privileged)
        async with self._tree.size_lock(inode).alone():
            return await self._resize(inode, file, size, privileged=privileged)

    async def _resize(self, inode: Inode, file: BackendFile, size: int, *, privileged: bool) -> FileAttributes:
        charge = cast("InodeCharge", inode.charge)
        if charge.key is None:
            charge.key = self._backend.key_of_file(file)
        grows = size > charge.size
        if grows and self._gate.is_counting:
            await self._gate.wait_until_counted()
        if grows:
            self._gate.reserve(charge, size - 1, size)
        else:
            self._gate.begin_shrink(charge)
        try:
            await file.truncate(size)
        except trio.Cancelled:
            self._gate.abandon(charge)
            raise
        finally:
            after = await self._measure(charge, file, reserved=grows)
        bits = 0 if privileged else privileges_to_clear(after.mode)
        if bits:
            after = await file.set_attributes(AttributeChanges(mode=stat.S_IMODE(after.mode) & ~bits))
        return after

    async def _measure(self, charge: InodeCharge, file: BackendFile, *, reserved: bool) -> FileAttributes:
        """Charge what the file has after a change of its size, done or failed, and return its attributes."""
        charge.uncertain = True
        if reserved:
            charge.pending -= 1
        attributes = await file.get_attributes()
        self._gate.correct(charge, attributes.size)
        return attributes

    async def get_space(self) -> FileSystemSpace:
        """Return what statfs(2) reports: the limit where there is one, never more free than the backing has."""
        space = await self._backend.get_space()
        quota = self._gate.info()
        free_bytes = quota.free_bytes
        if free_bytes is None:
            free_bytes = space.free_bytes
        elif space.total_bytes:  # a Ceph without its manager does not know
            free_bytes = min(free_bytes, space.free_bytes)
        free_inodes = quota.free_inodes
        if free_inodes is None:
            free_inodes = space.free_inodes
        elif space.total_inodes:  # some file systems do not count theirs
            free_inodes = min(free_inodes, space.free_inodes)
        return FileSystemSpace(
            quota.used_bytes + free_bytes,
            free_bytes,
            quota.file_count + free_inodes,
            free_inodes,
            min(255, space.max_name_bytes),
        )

    # -- extended attributes ------------------------------------------------------------------------------------

    def _check_attribute(self, attribute: bytes) -> None:
        if attribute.startswith(b"user."):
            if not self._backend.capabilities.xattrs:
                raise Unsupported
        elif attribute in _ACLS:
            if not self._backend.capabilities.acls:
                raise Unsupported
        elif not (attribute.startswith(b"trusted.") and self._backend.capabilities.xattrs):
            raise Unsupported

    async def get_xattr(self, inode: Inode, attribute: bytes) -> bytes:
        """Return an extended attribute's value; the root also has ``user.volgate.*``. Raises NoAttribute."""
        if attribute.startswith(_RESERVED_PREFIX):
            return self._get_own_attribute(inode, attribute.removeprefix(_RESERVED_PREFIX))
        self._check_attribute(attribute)
        return await self._tree.on_inode(
            inode,
            lambda directory, name: self._backend.get_xattr(directory, name, inode.backing_ino, attribute),
            lambda file: file.get_xattr(attribute),
        )

    def _get_own_attribute(self, inode: Inode, attribute: bytes) -> bytes:
        """Return what the mount says of itself at its root. Not listed, so that no copy takes it along."""
        if inode is not self._tree.inodes.root:
            raise NoAttribute
        quota = self._gate.info()
        facts: dict[bytes, str | int | None] = {
            b"volume": quota.volume_id,
            b"backend": quota.backend_type,
            b"quota.bytes": quota.quota_bytes,
            b"quota.inodes": quota.quota_inodes,
            b"used.bytes": quota.used_bytes,
            b"used.inodes": quota.file_count,
        }
        if attribute.startswith(b"backlog."):
            report = self._backend.report()
            if report is not None:
                facts |= {b"backlog.bytes": report.backlog_bytes, b"backlog.files": report.backlog_files}
        if attribute not in facts:
            raise NoAttribute
        fact = facts[attribute]
        return b"none" if fact is None else str(fact).encode()

    async def set_xattr(self, inode: Inode, attribute: bytes, value: bytes) -> None:
        """Set an extended attribute.

        Raises:
            NotPermitted: ``user.volgate.*``. Unsupported: ``security.*``, or the backing has none.
        """
        if attribute.startswith(_RESERVED_PREFIX):
            raise NotPermitted
        self._check_attribute(attribute)
        await self._tree.on_inode(
            inode,
            lambda directory, name: self._backend.set_xattr(directory, name, inode.backing_ino, attribute, value),
            lambda file: file.set_xattr(attribute, value),
        )

    async def list_xattrs(self, inode: Inode, *, privileged: bool) -> list[bytes]:
        """Return the names of the attributes that may be read here; ``trusted.*`` only for root (xattr(7))."""
        if not self._backend.capabilities.xattrs:
            return []
        names = await self._tree.on_inode(
            inode,
            lambda directory, name: self._backend.list_xattrs(directory, name, inode.backing_ino),
            lambda file: file.list_xattrs(),
        )
        acls = self._backend.capabilities.acls
        return [
            name
            for name in names
            if name.startswith(b"user.") or (name in _ACLS and acls) or (name.startswith(b"trusted.") and privileged)
        ]

    async def remove_xattr(self, inode: Inode, attribute: bytes) -> None:
        """Remove an extended attribute. Raises NoAttribute, NotPermitted for ``user.volgate.*``."""
        if attribute.startswith(_RESERVED_PREFIX):
            raise NotPermitted
        self._check_attribute(attribute)
        await self._tree.on_inode(
            inode,
            lambda directory, name: self._backend.remove_xattr(directory, name, inode.backing_ino, attribute),
            lambda file: file.remove_xattr(attribute),
        )


_NO_CHANGES: Final = AttributeChanges()


async def _attributes_of(file: BackendFile) -> FileAttributes:
    return await file.get_attributes()
