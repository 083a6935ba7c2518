"""What differs between two looks at a tree: decided from attributes, no I/O."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import TypeVar

from volgate.dto import FileAttributes

T = TypeVar("T")


def pair_names(before: Mapping[bytes, T], after: Mapping[bytes, T]) -> Iterator[tuple[bytes, T | None, T | None]]:
    """Yield every name of two directories once, sorted, with what stands there in each; None where nothing does."""
    for name in sorted(before.keys() | after.keys()):
        yield name, before.get(name), after.get(name)


def is_same_type(before: FileAttributes, after: FileAttributes) -> bool:
    """Return whether one could have become the other by changes; else it was replaced."""
    return stat.S_IFMT(before.mode) == stat.S_IFMT(after.mode) and before.rdev == after.rdev


class LinkGroups:
    """Which inode of the later tree has the names that one of the earlier tree has, told by the names seen so far."""

    def __init__(self) -> None:
        self._later: dict[int, int] = {}
        self._earlier: dict[int, int] = {}

    def agree(self, before_ino: int, after_ino: int) -> bool:
        """Return whether a name that leads from one to the other fits to those before; then it counts, too."""
        if (
            self._later.get(before_ino, after_ino) != after_ino
            or self._earlier.get(after_ino, before_ino) != before_ino
        ):
            return False
        self._later[before_ino], self._earlier[after_ino] = after_ino, before_ino
        return True


def is_untouched(before: FileAttributes, after: FileAttributes) -> bool:
    """Return whether nothing of an inode can have changed: every change sets its ctime (inode(7))."""
    return _all_of(before) == _all_of(after)


def _all_of(found: FileAttributes) -> tuple[int, ...]:
    return found.mode, found.uid, found.gid, found.size, found.mtime_ns, found.ctime_ns


def what_differs(
    before: FileAttributes, after: FileAttributes, *, content: bool, xattrs: bool, directory_times: bool
) -> tuple[str, ...]:
    """Return which of content, mode, owner, mtime and xattrs differ between two inodes of one type.

    Args:
        content: that it is known to differ; else size and mtime of a regular file decide, as rsync(1) has it.
        xattrs: that the extended attributes differ.
        directory_times: whether mtimes of directories count, which change with each name in them.
    """
    has_mtime = directory_times or not stat.S_ISDIR(before.mode)
    if stat.S_ISREG(before.mode):
        content = content or (before.size, before.mtime_ns) != (after.size, after.mtime_ns)
    found = {
        "content": content,
        "mode": before.mode != after.mode and not stat.S_ISLNK(before.mode),
        "owner": (before.uid, before.gid) != (after.uid, after.gid),
        "mtime": before.mtime_ns != after.mtime_ns and has_mtime,
        "xattrs": xattrs,
    }
    return tuple(name for name, differs in found.items() if differs)
