"""What the objects of a listing count as files and directories.

Pure. A directory is an object whose key ends in a slash, or just what keys have in common up to a slash; either counts
one inode, once. What no name can show counts nothing; the directories above it do.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from volgate.core.names import RESERVED_ROOT_NAMES, name_of, why_not_shown
from volgate.dto import Usage


class ObjectUsage:
    """Counts keys, which come in the order of a listing.

    Args:
        prefix: what all keys begin with: "" or a directory with its slash, which itself is not counted.
        passed_over: keys that count nothing here, with what others count for them.

    Attributes:
        bytes_: sizes of files. inodes: files and directories.
    """

    def __init__(self, prefix: str, passed_over: Mapping[str, Usage]) -> None:
        self._depth = prefix.count("/")
        self._prefix = prefix
        self._passed_over = passed_over
        self._above: list[str] = []
        self._candidates: list[tuple[str, int]] = []
        self.bytes_ = 0
        self.inodes = 0

    def add(self, key: str, size: int) -> None:
        """Count one object."""
        while self._candidates and not key.startswith(self._candidates[-1][0]):
            self._candidates.pop()
        other = self._passed_over.get(key)
        if key == self._prefix or (other is not None and not other.inodes):
            return
        *above, last = key.split("/")
        if (above[0] if above else name_of(last)).encode() in RESERVED_ROOT_NAMES:
            return
        shown = list(takewhile(lambda part: not why_not_shown(part), above))
        self._enter(shown)
        name = name_of(last)
        if other is not None or not last or len(shown) < len(above) or why_not_shown(name):
            return
        path = "/".join((*above, name))
        if any(path == found for found, _ in self._candidates):  # rclone's link beside an object of its name
            return
        self.bytes_ += size
        self.inodes += 1
        self._candidates.append((path, size))

    def _enter(self, directories: list[str]) -> None:
        common = self._depth
        while common < min(len(directories), len(self._above)) and directories[common] == self._above[common]:
            common += 1
        for depth in range(common, len(directories)):
            path = "/".join(directories[: depth + 1])
            other = self._passed_over.get(path + "/")
            if other is None or not other.inodes:
                self.inodes += 1
            if self._candidates and self._candidates[-1][0] == path:  # a file of that name is hidden by the directory
                _, hidden = self._candidates.pop()
                self.bytes_ -= hidden
                self.inodes -= 1
        self._above = directories
