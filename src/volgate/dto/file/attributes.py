"""The attributes of an inode as a backend reports them."""

from __future__ import annotations

import attrs


@attrs.frozen
class FileAttributes:
    """Attributes of one inode, as stat(2) names them.

    Not validated: made for every request, by drivers whose contract suite checks them.

    Attributes:
        ino: the backend's number of the inode, 1..2**63-1; stable while the inode lives. Never 0.
        mode: type and permission bits (st_mode).
        nlink: number of names.
        uid: owner.
        gid: group.
        rdev: device number, 0 for all that is no device.
        size: bytes; for a symlink the length of its target.
        blocks: units of 512 bytes that are allocated.
        atime_ns: UNIX nanoseconds, as the two that follow.
        mtime_ns: last change of content.
        ctime_ns: last change of inode or content.
        provisional: only type, ino and size are sure; nobody may keep the rest.
    """

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    provisional: bool = False


@attrs.frozen
class AttributeChanges:
    """What a setattr asks for; None = leave as it is.

    Attributes:
        mode: permission bits only (0..0o7777).
        uid: new owner.
        gid: new group.
        atime_ns: UNIX nanoseconds.
        mtime_ns: UNIX nanoseconds.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
