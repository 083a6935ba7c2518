"""What an open(2) and an opendir(3) of a user hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.drivers.base import BackendFile
    from volgate.dto import FileAttributes


class OpenFile:
    """One open regular file.

    Attributes:
        inode: what is open.
        file: the driver's handle.
        writable: opened for writing.
        executing: opened by execve(2); it lasts as long as the program runs.
        privileged: the opener has CAP_FSETID (taken from uid 0), so its writes keep suid and sgid.
        strip_mode: the next write has to clear suid and sgid first.
        written: content changed through this handle.
        poisoned: a write of it was given up and may still happen.
        preserved: the generation of snapshots that have the file's content as they need it.
    """

    __slots__ = (
        "executing",
        "file",
        "inode",
        "poisoned",
        "preserved",
        "privileged",
        "strip_mode",
        "writable",
        "written",
    )

    def __init__(self, inode: Inode, file: BackendFile, *, writable: bool, privileged: bool) -> None:
        self.inode = inode
        self.file = file
        self.writable = writable
        self.privileged = privileged
        self.executing = False
        self.strip_mode = False
        self.written = False
        self.poisoned = False
        self.preserved = 0


class OpenDirectory:
    """One open directory: a listing taken at its start, so that a cursor means the same entry until it is rewound.

    Attributes:
        inode: the directory.
        names: the listing, None before the first read.
        ahead: entries fetched but not yet taken, by position.
    """

    __slots__ = ("ahead", "inode", "names")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.names: list[bytes] | None = None
        self.ahead: dict[int, FileAttributes | None] = {}
