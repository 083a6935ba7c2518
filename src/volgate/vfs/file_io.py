"""Open files: open, read, write, flush, fsync.

The hot path. Sizes of an open file belong to its backing; the quota's ``InodeCharge`` follows every change made here.
Writes of one inode may run at once; what sets its size runs alone (``Tree.size_lock``).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, cast

import trio

from volgate.core.handle_table import Fh
from volgate.dto import AttributeChanges
from volgate.errors import InputOutput, IsADirectory, TextFileBusy
from volgate.vfs.open_file import privileges_to_clear

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.vfs.attributes import Attributes
    from volgate.vfs.open_file import OpenFile
    from volgate.vfs.tree import Tree
    from volgate.volume.quota_gate import InodeCharge

_FMODE_EXEC: Final = 0x20
"""Among an OPEN's flags: by execve(2) (__FMODE_EXEC of Linux's include/linux/fs.h)."""


class FileIo:
    """Open files of a tree."""

    def __init__(self, tree: Tree, attributes: Attributes) -> None:
        self._tree = tree
        self._backend = tree.backend
        self._gate = tree.gate
        self._attributes = attributes
        self._snapshots = tree.volume.snapshots

    async def open(self, inode: Inode, flags: int, *, privileged: bool) -> tuple[Fh, bool]:
        """Give a regular file an open-file number; O_APPEND, O_DIRECT, O_SYNC are the kernel's business.

        Returns:
            The open-file number, and whether the kernel may keep its cached pages: true unless the file was changed
            behind the mount since they were read.

        Raises:
            TextFileBusy: O_TRUNC of a running program. The kernel refuses by itself, but asks for the truncation first.
        """
        if inode.is_directory:
            raise IsADirectory
        truncate = bool(flags & os.O_TRUNC)
        writable = truncate or flags & os.O_ACCMODE != os.O_RDONLY
        opened = cast("tuple[OpenFile, ...]", inode.open_files)
        if truncate and any(file.executing and not file.is_closing for file in opened):
            raise TextFileBusy
        if truncate and self._snapshots.generation:
            await self._attributes.preserve(inode)
        file, attributes = await self._tree.open_backing(inode, writable=writable)
        keep = truncate or self._tree.is_being_written(inode)
        fh = self._tree.register(inode, file, attributes, writable=writable, privileged=privileged)
        if truncate and attributes.size:
            try:
                attributes = await self._attributes.resize(inode, file, 0, privileged=privileged)
            except BaseException:
                await self._tree.release(fh)
                raise
        version = (attributes.mtime_ns, attributes.size)
        keep |= inode.version == version
        inode.version = version
        if flags & _FMODE_EXEC:
            self._tree.open_file(fh).executing = True
        return fh, keep

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Return up to length bytes; fewer only at end of file."""
        opened = self._tree.files.get(fh) or self._tree.open_file(fh)
        data = await opened.file.read(offset, length)
        if type(data) is not bytes or len(data) > length:
            raise InputOutput("the driver returned what was not asked for")
        return data

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write as much as fits under the limit and return how many bytes that was, > 0.

        Raises:
            QuotaExceeded: not one byte fits. NoSpace: the backing is full.
            InputOutput: an earlier write of this handle was given up; likewise of ``sync``.
        """
        opened = self._tree.files.get(fh) or self._tree.open_file(fh)
        if self._tree.is_atomic:
            return await self._write(opened, offset, data)
        async with self._tree.size_lock(opened.inode).writing():
            return await self._write(opened, offset, data)

    async def _write(self, opened: OpenFile, offset: int, data: bytes) -> int:
        _refuse_poisoned(opened)
        if opened.preserved != self._snapshots.generation:
            await self._preserve(opened)
        opened.written = True
        if opened.strip_mode:
            await self._strip_mode(opened)
        charge = cast("InodeCharge", opened.inode.charge)
        end = offset + len(data)
        if end <= charge.size:
            try:
                return _checked(await opened.file.write(offset, data), len(data))
            except trio.Cancelled:
                self._give_up(opened, charge)
                raise
        if charge.key is None:
            charge.key = self._backend.key_of_file(opened.file)
        if self._gate.is_counting:
            await self._gate.wait_until_counted()
        allowed = self._gate.reserve(charge, offset, end)
        if allowed < end:
            data = data[: allowed - offset]
        try:
            written = _checked(await opened.file.write(offset, data), len(data))
        except trio.Cancelled:
            self._give_up(opened, charge)
            raise
        except BaseException:
            await self._correct(opened, charge)
            raise
        if written < len(data):
            await self._correct(opened, charge)
        elif not self._gate.settle(charge):
            self._gate.correct(charge, (await opened.file.get_attributes()).size)
        return written

    async def _preserve(self, opened: OpenFile) -> None:
        """Let the snapshots have what they need of a file before its content changes."""
        generation = self._snapshots.generation
        await self._snapshots.before_change(opened.inode.backing_ino, opened.file)
        opened.preserved = generation

    def _give_up(self, opened: OpenFile, charge: InodeCharge) -> None:
        """Note that a write was given up: it may still happen, and then undo what later writes of this handle did."""
        opened.poisoned = True
        self._gate.abandon(charge)

    async def _correct(self, opened: OpenFile, charge: InodeCharge) -> None:
        """Charge what the file really has after a write that failed or fell short; if that fails, a later call will."""
        if not self._gate.fail(charge):
            self._gate.correct(charge, (await opened.file.get_attributes()).size)

    async def _strip_mode(self, opened: OpenFile) -> None:
        attributes = await opened.file.get_attributes()
        mode = stat.S_IMODE(attributes.mode)
        bits = privileges_to_clear(attributes.mode)
        if bits:
            await opened.file.set_attributes(AttributeChanges(mode=mode & ~bits))
        opened.strip_mode = False

    async def flush(self, fh: int) -> None:
        """Report late errors of this handle's writes at a close(2)."""
        await self._tree.open_file(fh).file.flush()

    async def sync(self, fh: int, *, data_only: bool) -> None:
        """Make a file's content durable, as fsync(2) and fdatasync(2) promise."""
        opened = self._tree.open_file(fh)
        _refuse_poisoned(opened)
        await opened.file.sync(data_only=data_only)


def _checked(written: int, length: int) -> int:
    if type(written) is not int or not 0 <= written <= length:
        raise InputOutput("the driver reports more written than it was given")
    return written


def _refuse_poisoned(opened: OpenFile) -> None:
    if opened.poisoned:
        raise InputOutput("an earlier write was given up and may still happen")
