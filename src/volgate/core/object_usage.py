"""What the objects of a listing count as files and directories.

Pure. A directory is an object whose key ends in a slash, or just what keys have in common up to a slash; either counts
one inode, once. What no name can show counts nothing.
"""

from __future__ import annotations

from collections.abc import Container

from volgate.core.names import GATEWAY_NAME, why_not_shown


class ObjectUsage:
    """Counts keys, which come in the order of a listing.

    Args:
        prefix: what all keys begin with: "" or a directory with its slash, which itself is not counted.
        passed_over: keys that count nothing here.

    Attributes:
        bytes_: sizes of files. inodes: files and directories.
    """

    def __init__(self, prefix: str, passed_over: Container[str]) -> None:
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
        if key in self._passed_over or key == self._prefix:
            return
        parts = key.rstrip("/").split("/") if key.endswith("/") and not key.endswith("//") else key.split("/")
        if parts[0].encode() == GATEWAY_NAME or any(why_not_shown(part) for part in parts):
            return
        directories = parts if key.endswith("/") else parts[:-1]
        self._enter(directories)
        if not key.endswith("/"):
            self.bytes_ += size
            self.inodes += 1
            self._candidates.append((key, size))

    def _enter(self, directories: list[str]) -> None:
        common = self._depth
        while common < min(len(directories), len(self._above)) and directories[common] == self._above[common]:
            common += 1
        for depth in range(common, len(directories)):
            path = "/".join(directories[: depth + 1])
            if path + "/" not in self._passed_over:
                self.inodes += 1
            if self._candidates and self._candidates[-1][0] == path:  # a file of that name is hidden by the directory
                _, hidden = self._candidates.pop()
                self.bytes_ -= hidden
                self.inodes -= 1
        self._above = directories
