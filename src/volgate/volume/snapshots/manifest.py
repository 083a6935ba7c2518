"""What stood in a volume at one moment: every inode with its attributes and every name, in one SQLite file.

A manifest is written once, into a draft that nobody else opens, and read only ever after. The file on the local disk is
a copy: the storage has it too, and is asked where the local one is missing or another.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.dto import FileAttributes
from volgate.manifests.database import DraftDatabase, SealedDatabase

FORMAT_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE inodes (
    ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    rdev INTEGER NOT NULL, size INTEGER NOT NULL, blocks INTEGER NOT NULL, atime_ns NOT NULL, mtime_ns NOT NULL,
    ctime_ns NOT NULL, key BLOB, target BLOB, xattrs BLOB);
CREATE TABLE names (parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, PRIMARY KEY (parent, name))
    WITHOUT ROWID;
"""
_ATTRIBUTES: Final = (
    "inodes.ino, inodes.mode, inodes.nlink, inodes.uid, inodes.gid, inodes.rdev, inodes.size, inodes.blocks, "
    "inodes.atime_ns, inodes.mtime_ns, inodes.ctime_ns"
)
_COUNT: Final = 11
"""How many columns those are. The last three are text where 64 bits do not hold them: after the year 2262."""
_MAX_INTEGER: Final = (1 << 63) - 1
_LENGTHS: Final = struct.Struct("<HI")


@attrs.frozen
class ManifestNode:
    """One inode as it was.

    Attributes:
        attributes: as the backend gave them.
        key: of ``open_node``; None for what is no regular file.
        target: of a symlink, else None.
        xattrs: extended attributes, each with its value.
    """

    attributes: FileAttributes
    key: bytes | None
    target: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.attributes.mode)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.attributes.mode)


class ManifestWriter:
    """A draft.

    Args:
        path: of a file that does not exist.

    Attributes:
        file_count: inodes entered but the root. used_bytes: sizes of the regular files among them.
    """

    def __init__(self, path: Path) -> None:
        self._database = DraftDatabase(path, _TABLES)
        self._several_names: set[int] = set()
        self.file_count = 0
        self.used_bytes = 0

    def add_root(self, node: ManifestNode) -> None:
        """Enter the root directory."""
        self._database.set_head(FORMAT_VERSION, node.attributes.ino)
        self._insert([node])

    def meet(self, attributes: FileAttributes) -> bool:
        """Return whether an inode was met before, under another name."""
        if attributes.nlink <= 1 or stat.S_ISDIR(attributes.mode):
            return False
        is_known = attributes.ino in self._several_names
        self._several_names.add(attributes.ino)
        return is_known

    def add(self, parent: int, entries: Sequence[tuple[bytes, int, ManifestNode | None]]) -> None:
        """Enter names of a directory: (name, ino, node); None for an inode that was met before."""
        nodes = [node for _, _, node in entries if node is not None]
        self._insert(nodes)
        for node in nodes:
            self.file_count += 1
            if node.is_file:
                self.used_bytes += node.attributes.size
        rows = ((parent, name, ino) for name, ino, _ in entries)
        self._database.insert("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", rows)

    def _insert(self, nodes: Iterable[ManifestNode]) -> None:
        rows = (
            (
                found.ino, found.mode, found.nlink, found.uid, found.gid, found.rdev, found.size, found.blocks,
                _to_column(found.atime_ns), _to_column(found.mtime_ns), _to_column(found.ctime_ns), node.key,
                node.target, _pack(node.xattrs),
            )
            for node in nodes
            for found in (node.attributes,)
        )  # fmt: skip
        self._database.insert(f"INSERT OR REPLACE INTO inodes VALUES ({', '.join('?' * 14)})", rows)

    def finish(self) -> None:
        """See DraftDatabase."""
        self._database.finish()

    def discard(self) -> None:
        """See DraftDatabase."""
        self._database.discard()


class Manifest:
    """A manifest that is whole.

    Args:
        path: its file on the local disk.

    Calls after ``close`` raise Stale.

    Raises:
        InputOutput: it is damaged. Unsupported: a newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._database = SealedDatabase(path, FORMAT_VERSION)
        self.root = self._database.root

    def has(self, ino: int) -> bool:
        """Return whether an inode is in it."""
        return self._database.ask("SELECT 1 FROM inodes WHERE ino = ?", ino).fetchone() is not None

    def node(self, ino: int) -> ManifestNode | None:
        """Return an inode, None if it is not in it."""
        row = self._database.ask(f"SELECT {_ATTRIBUTES}, key, target, xattrs FROM inodes WHERE ino = ?", ino).fetchone()
        return None if row is None else _to_node(row)

    def find(self, parent: int, name: bytes) -> ManifestNode | None:
        """Return what stands under a name, None where nothing does."""
        row = self._database.ask(
            f"SELECT {_ATTRIBUTES}, key, target, xattrs FROM names JOIN inodes USING (ino) "
            "WHERE parent = ? AND name = ?", parent, name,
        ).fetchone()  # fmt: skip
        return None if row is None else _to_node(row)

    def names(self, parent: int) -> list[bytes]:
        """Return a directory's names, sorted."""
        return [name for (name,) in self._database.ask("SELECT name FROM names WHERE parent = ? ORDER BY name", parent)]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._database.close()


def _to_node(row: Sequence[Any]) -> ManifestNode:
    key, target, xattrs = row[_COUNT:]
    numbers: list[Any] = [int(number) for number in row[:_COUNT]]
    return ManifestNode(FileAttributes(*numbers), key, target, _unpack(xattrs))


def _to_column(time_ns: int) -> int | str:
    return time_ns if -_MAX_INTEGER <= time_ns <= _MAX_INTEGER else str(time_ns)


def _pack(xattrs: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    packed = b"".join(_LENGTHS.pack(len(name), len(value)) + name + value for name, value in xattrs)
    return packed or None


def _unpack(packed: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    found = []
    position = 0
    while packed and position < len(packed):
        name_end = position + _LENGTHS.size
        of_name, of_value = _LENGTHS.unpack_from(packed, position)
        value_start = name_end + of_name
        found.append((packed[name_end:value_start], packed[value_start : value_start + of_value]))
        position = value_start + of_value
    return tuple(found)
