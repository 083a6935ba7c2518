"""From internal values to pyfuse3's structures and back; pure conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyfuse3

from volgate.dto import AttributeChanges

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.dto import FileAttributes
    from volgate.vfs.attributes import FileSystemSpace

_BLOCK_BYTES = 4096


def to_entry(
    inode: Inode, attributes: FileAttributes, attr_timeout_s: float, entry_timeout_s: float
) -> pyfuse3.EntryAttributes:
    """Return the kernel's form of an inode's attributes."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = inode.ino
    entry.attr_timeout = attr_timeout_s
    entry.entry_timeout = entry_timeout_s
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def to_negative_entry(entry_timeout_s: float) -> pyfuse3.EntryAttributes:
    """Return the entry that says "no such name" and may be cached (nodeid 0)."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = entry_timeout_s
    return entry


def to_changes(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> tuple[AttributeChanges, int | None]:
    """Return what a SETATTR asks for, and the new size or None."""
    changes = AttributeChanges(
        mode=attr.st_mode & 0o7777 if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )
    return changes, attr.st_size if fields.update_size else None


def to_statvfs(space: FileSystemSpace) -> pyfuse3.StatvfsData:
    """Return statfs(2)'s structure; sizes in blocks of 4096 bytes, the total rounded up so that 1 byte is not 0."""
    reply = pyfuse3.StatvfsData()
    reply.f_bsize = _BLOCK_BYTES
    reply.f_frsize = _BLOCK_BYTES
    reply.f_blocks = -(-space.total_bytes // _BLOCK_BYTES)
    reply.f_bfree = reply.f_bavail = space.free_bytes // _BLOCK_BYTES
    reply.f_files = space.total_inodes
    reply.f_ffree = reply.f_favail = space.free_inodes
    reply.f_namemax = space.max_name_bytes
    return reply
