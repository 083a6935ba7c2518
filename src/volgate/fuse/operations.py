"""pyfuse3's methods: convert, call the vfs, reply. No decisions here; errors are the door's business."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import pyfuse3
import trio

from volgate.core.inode_table import FIRST_SHOWN_INO, ROOT_INO
from volgate.core.names import SNAPSHOTS_NAME
from volgate.drivers.base import NodeOwner
from volgate.errors import InputOutput, NotPermitted, PermissionDenied, ReadOnly, ShuttingDown, Stale
from volgate.fuse.convert import to_changes, to_entry, to_negative_entry, to_statvfs
from volgate.fuse.door import DEADLINE_S, Desk, change, handler

if TYPE_CHECKING:
    from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, SetattrFields, StatvfsData

    from volgate.core.handle_table import Fh
    from volgate.core.inode_table import Inode
    from volgate.dto import FileAttributes
    from volgate.fuse.datapath import DataPath
    from volgate.vfs.file_system import FileSystem


MAX_CHANGED: Final = 1024
"""Files changed behind the mount that may wait for invalidation; more are found again at their next use."""

_MAX_ABSENT: Final = 10_000
"""Names that do not exist which are remembered for ``drop_caches``; of more, the kernel's own memory has to run out."""


class Operations(pyfuse3.Operations):
    """One mounted volume, as pyfuse3 wants to see it.

    Args:
        file_system: the vfs.
        data_path: told of every open file before the reply that names it.
        deadline_s: how long a request to a driver that can hang may stand still.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, file_system: FileSystem, data_path: DataPath, *, deadline_s: float = DEADLINE_S) -> None:
        super().__init__()
        capabilities = file_system.volume.backend.capabilities
        self.file_system = file_system
        self.desk = Desk()
        self.inline = capabilities.inline_io
        self.deadline_s = deadline_s
        self._id_map = file_system.id_map
        self.enable_acl = capabilities.acls and self._id_map is None  # the ids within an ACL would not be translated
        self.stopping = False
        self._data_path = data_path
        self._changed, self._changed_inodes = trio.open_memory_channel[tuple["Inode", tuple[int, int]]](MAX_CHANGED)
        self._absent: set[tuple[int, bytes]] = set()
        self._flush_has_work = capabilities.close_reports_errors
        self._tree = file_system.tree
        self._namespace = file_system.namespace
        self._attributes = file_system.attributes
        self._file_io = file_system.file_io
        self.turnstile = file_system.turnstile

    def _inode(self, ino: int) -> Inode:
        """Return an inode of the volume, of which anything may be changed. Raises ReadOnly: it lies in a snapshot."""
        if ino >= FIRST_SHOWN_INO:
            raise ReadOnly
        inode = self._tree.inodes.get(ino)
        if inode is None:
            raise Stale(f"inode {ino} is not known any more")
        return inode

    def _find(self, ino: int) -> tuple[FileSystem, Inode]:
        """Return an inode of the volume or of a snapshot, and where it lies."""
        if ino < FIRST_SHOWN_INO:
            return self.file_system, self._inode(ino)
        side = self.file_system.side(ino)
        return side, side.tree.inode(ino)

    def _entry(self, side: FileSystem, inode: Inode, attributes: FileAttributes) -> EntryAttributes:
        provisional = attributes.provisional
        if inode.version not in (None, (attributes.mtime_ns, attributes.size)) and not provisional:
            self._note_change(inode, attributes)
        if self._id_map is not None:
            attributes = self._id_map.show(attributes)
        if provisional:
            return to_entry(inode, attributes, 0, 0)
        return to_entry(inode, attributes, side.attr_timeout_s, side.entry_timeout_s)

    def _owner(self, ctx: RequestContext) -> NodeOwner:
        """Return whose a new node becomes. Raises PermissionDenied for a caller whom the id map leaves out."""
        if self._id_map is None:
            return NodeOwner(ctx.uid, ctx.gid, ctx.umask)
        owner = self._id_map.store_owner(ctx.uid, ctx.gid)
        if owner is None:
            raise PermissionDenied
        return NodeOwner(*owner, ctx.umask)

    def _note_change(self, inode: Inode, attributes: FileAttributes) -> None:
        """Have the kernel drop its pages of a file that changed behind the mount while it is being read.

        One that nobody has open needs nothing: its next open finds the change, and the kernel drops the pages there.
        """
        if not inode.open_files or self._tree.is_being_written(inode):
            return  # or our own writer changed it
        with contextlib.suppress(trio.WouldBlock):
            self._changed.send_nowait((inode, (attributes.mtime_ns, attributes.size)))
            inode.version = None  # until the pages are dropped, an open must not keep them

    async def invalidate_changed(self) -> None:
        """Invalidate what ``_note_change`` found, for as long as the session lives.

        In a thread of its own: the kernel waits there for pages whose reads this very loop has to answer.
        """
        async for inode, version in self._changed_inodes:
            with contextlib.suppress(OSError):  # the kernel does not know it any more
                await trio.to_thread.run_sync(pyfuse3.invalidate_inode, inode.ino, False, abandon_on_cancel=True)
            if inode.version is None:
                inode.version = version

    def forget_attributes(self, backing_ino: int) -> None:
        """Have the kernel ask anew for an inode: its name leads to another one now."""
        inode = self._tree.inodes.find_backing(backing_ino)
        if inode is not None:
            with contextlib.suppress(trio.WouldBlock):
                self._changed.send_nowait((inode, inode.version or (0, 0)))

    async def drop_caches(self, changed: Collection[tuple[int, bytes]] = ()) -> None:
        """Have the kernel ask anew for what it remembers of attributes, contents, and names that were not there.

        Args:
            changed: names that lead to another inode now, each with its directory's number: else the kernel goes on to
                the one before, as long as that lives.

        Names that exist need no word: with their attributes gone they are looked up again before they are used. In a
        thread, as in ``invalidate_changed``.
        """
        known = self._tree.inodes.numbers()
        absent, self._absent = self._absent, set()

        def drop() -> None:
            for ino in known:
                with contextlib.suppress(OSError):  # the kernel does not know it any more
                    pyfuse3.invalidate_inode(ino, False)
            for parent, name in (*absent, *changed):
                with contextlib.suppress(OSError):
                    pyfuse3.invalidate_entry(parent, name)

        await trio.to_thread.run_sync(drop, abandon_on_cancel=True)

    def _note_absent(self, parent: int, name: bytes) -> None:
        """Remember a name that the kernel was told not to exist."""
        if len(self._absent) >= _MAX_ABSENT:
            self._absent.clear()
        self._absent.add((parent, name))

    def _looked_up(self, side: FileSystem, inode: Inode, attributes: FileAttributes) -> EntryAttributes:
        """Return an entry whose reply gives the kernel one reference."""
        entry = self._entry(side, inode, attributes)
        side.tree.inodes.count_lookup(inode)
        return entry

    # -- names --------------------------------------------------------------------------------------------------

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """LOOKUP."""
        side, parent = self._find(parent_inode)
        shown = side.shown
        if name == SNAPSHOTS_NAME and parent_inode == ROOT_INO and shown is not None:
            root = shown.tree.inodes.root
            return self._looked_up(shown, root, await shown.attributes.get(root))
        found = await side.namespace.lookup(parent, name)
        if found is None:
            self._note_absent(parent_inode, name)
            return to_negative_entry(side.entry_timeout_s)
        return self._looked_up(side, *found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """FORGET; has no reply and must not fail."""
        for ino, count in inode_list:
            self.file_system.side(ino).tree.forget(ino, count)

    @handler
    @change
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """CREATE: make and open in one request."""
        self._refuse_new_opens()
        inode, attributes, file = await self._namespace.create_file(
            self._inode(parent_inode), name, mode, self._owner(ctx)
        )
        fh = self._tree.register(inode, file, attributes, writable=True, privileged=ctx.uid == 0)
        self._data_path.register(fh)
        return pyfuse3.FileInfo(fh=fh, keep_cache=True), self._looked_up(self.file_system, inode, attributes)

    @handler
    @change
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """MKNOD."""
        return self._looked_up(
            self.file_system,
            *await self._namespace.create_node(self._inode(parent_inode), name, mode, self._owner(ctx), rdev=rdev),
        )

    @handler
    @change
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """MKDIR."""
        return self._looked_up(
            self.file_system,
            *await self._namespace.create_node(self._inode(parent_inode), name, mode, self._owner(ctx)),
        )

    @handler
    @change
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """SYMLINK."""
        return self._looked_up(
            self.file_system,
            *await self._namespace.create_symlink(self._inode(parent_inode), name, target, self._owner(ctx)),
        )

    @handler
    @change
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """LINK."""
        return self._looked_up(
            self.file_system,
            *await self._namespace.link(self._inode(inode), self._inode(new_parent_inode), new_name),
        )

    @handler
    @change
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """UNLINK."""
        await self._namespace.unlink(self._inode(parent_inode), name)

    @handler
    @change
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """RMDIR."""
        await self._namespace.rmdir(self._inode(parent_inode), name)

    @handler
    @change
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """RENAME2."""
        await self._namespace.rename(
            self._inode(parent_inode_old), name_old, self._inode(parent_inode_new), name_new, flags
        )

    @handler
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """READLINK."""
        side, known = self._find(inode)
        return _as_bytes(await side.namespace.read_link(known))

    # -- attributes ---------------------------------------------------------------------------------------------

    @handler
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """GETATTR."""
        side, known = self._find(inode)
        return self._entry(side, known, await side.attributes.get(known))

    @handler
    @change
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """SETATTR: chmod, chown, truncate, utimensat."""
        known = self._inode(inode)
        changes, size = to_changes(attr, fields)
        if self._id_map is not None:
            allowed = self._id_map.store_changes(changes, ctx.uid)
            if allowed is None:
                raise NotPermitted
            changes = allowed
        attributes = await self._attributes.set(known, changes, size=size, fh=fh, privileged=ctx.uid == 0)
        return self._entry(self.file_system, known, attributes)

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """STATFS."""
        return to_statvfs(await self._attributes.get_space())

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """GETXATTR. The kernel asks for security.capability before the first write of each file; none has one."""
        if name.startswith(b"security."):
            raise pyfuse3.FUSEError(errno.ENODATA)
        side, known = self._find(inode)
        return _as_bytes(await side.attributes.get_xattr(known, name))

    @handler
    @change
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """SETXATTR."""
        await self._attributes.set_xattr(self._inode(inode), name, value)

    @handler
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """LISTXATTR."""
        side, known = self._find(inode)
        names = await side.attributes.list_xattrs(known, privileged=ctx.uid == 0)
        return [_as_bytes(name) for name in names]

    @handler
    @change
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """REMOVEXATTR."""
        await self._attributes.remove_xattr(self._inode(inode), name)

    # -- open files ---------------------------------------------------------------------------------------------

    def _refuse_new_opens(self) -> None:
        if self.stopping:
            raise ShuttingDown

    @handler
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """OPEN."""
        self._refuse_new_opens()
        side, known = self._find(inode)
        if side.read_only and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
            raise ReadOnly
        if flags & os.O_TRUNC:
            fh, keep_cache = await self._open_changing(known, flags, ctx)
        else:
            fh, keep_cache = await side.file_io.open(known, flags, privileged=ctx.uid == 0)
        self._data_path.register(fh)
        return pyfuse3.FileInfo(fh=fh, keep_cache=keep_cache)

    @change
    async def _open_changing(self, inode: Inode, flags: int, ctx: RequestContext) -> tuple[Fh, bool]:
        return await self._file_io.open(inode, flags, privileged=ctx.uid == 0)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """READ."""
        side = self.file_system if fh < FIRST_SHOWN_INO else self.file_system.side(fh)
        data = await side.file_io.read(fh, off, size)
        self.desk.read_bytes += len(data)
        return data

    @handler
    @change
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """WRITE."""
        written = await self._file_io.write(fh, off, buf)
        self.desk.written_bytes += written
        return written

    @handler
    async def flush(self, fh: int) -> None:
        """FLUSH: at each close(2). ENOSYS where closing has nothing to say: the kernel then asks no more."""
        if not self._flush_has_work:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        await self.file_system.side(fh).file_io.flush(fh)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """FSYNC."""
        await self.file_system.side(fh).file_io.sync(fh, data_only=datasync)

    @handler
    async def release(self, fh: int) -> None:
        """RELEASE: the last close of an open file and its mappings."""
        self._data_path.release(fh)
        await self.file_system.side(fh).tree.release(fh)

    # -- open directories ---------------------------------------------------------------------------------------

    @handler
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """OPENDIR."""
        side, known = self._find(inode)
        return await side.directories.open(known)

    @handler
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """READDIRPLUS. A lookup is counted only where the reply took the entry, never for . and .. ."""
        side = self.file_system.side(fh)
        opened = side.directories.get(fh)
        if start_id < 2 and not await self._reply_dots(side, opened.inode, start_id, token):
            return
        inodes = side.tree.inodes
        accepted = start_id < 2
        try:
            async for name, attributes, next_id in side.directories.entries(opened, start_id):
                inode = inodes.observe(opened.inode, name, attributes)
                if not pyfuse3.readdir_reply(token, name, self._entry(side, inode, attributes), next_id):
                    inodes.drop_unused(inode)
                    return
                inodes.count_lookup(inode)
                accepted = True
        except Exception:
            if not accepted:
                raise  # once an entry was taken, an error would lose its lookup: the next call meets it again

    async def _reply_dots(self, side: FileSystem, inode: Inode, start_id: int, token: ReaddirToken) -> bool:
        attributes = await side.attributes.get(inode)
        if start_id < 1 and not pyfuse3.readdir_reply(token, b".", self._entry(side, inode, attributes), 1):
            return False
        return pyfuse3.readdir_reply(token, b"..", self._entry(side, inode.parent or inode, attributes), 2)

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FSYNCDIR."""
        await self.file_system.side(fh).directories.sync(fh)

    @handler
    async def releasedir(self, fh: int) -> None:
        """RELEASEDIR."""
        self.file_system.side(fh).directories.release(fh)


def _as_bytes(value: bytes) -> bytes:
    if type(value) is not bytes:
        raise InputOutput("the driver returned what was not asked for")
    return value
