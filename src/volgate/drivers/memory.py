"""Volumes kept in memory: the reference that says what the Backend port means, and the fastest volume for tests.

Everything is gone when the last object that refers to the ``MemoryTree`` is. All calls are inline steps of the event
loop, so nothing here is locked. ACLs are not kept: their rules belong to the kernel.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from volgate.drivers.base import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    BackendDirectory,
    BackendFile,
    BackendSpace,
    BaseStorageBackend,
    Capabilities,
    NodeOwner,
    charged_usage,
)
from volgate.dto import AttributeChanges, BackendType, FileAttributes, Usage, VolumeOperationContext
from volgate.errors import (
    AlreadyExists,
    AttributeTooLarge,
    Busy,
    DirectoryNotEmpty,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotADirectory,
    NotFound,
    NotPermitted,
    Stale,
    TooManySymlinks,
    Unsupported,
)

BLOCK_BYTES: Final = 1 << 16
_MAX_NAME_BYTES: Final = 255
_MAX_TARGET_BYTES: Final = 4095
_MAX_XATTR_BYTES: Final = 1 << 16
_MAX_FILE_BYTES: Final = (1 << 63) - 1
_MADE_TYPES: Final = frozenset({stat.S_IFDIR, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK})
_FILE_KEY: Final = b"f"
_NAME_KEY: Final = b"n"


class _Node:
    """One inode: attributes, and what its type needs."""

    __slots__ = (
        "atime_ns",
        "blocks",
        "ctime_ns",
        "entries",
        "gid",
        "ino",
        "mode",
        "mtime_ns",
        "nlink",
        "opened",
        "parent",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, ino: int, mode: int, uid: int, gid: int, now_ns: int) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns
        self.blocks: dict[int, bytearray] = {}
        self.entries: dict[bytes, _Node] = {}
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.parent: _Node | None = None
        self.nlink = 0
        self.opened = 0

    @property
    def file_type(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        return self.file_type == stat.S_IFDIR

    def attributes(self) -> FileAttributes:
        return FileAttributes(
            self.ino,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            0,
            self.size,
            len(self.blocks) * (BLOCK_BYTES // 512),
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
        )


class MemoryTree:
    """The data of one volume; backends that share a tree are several hosts on one storage.

    Args:
        capacity_bytes: what all content together may take, counted in whole blocks of 64 KiB.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.root: _Node | None = None
        self.nodes: dict[int, _Node] = {}
        self.reserved: dict[str, bytes] = {}
        self.reserved_directories: _Node | None = None
        self.owner: object | None = None
        self.owner_line = b""
        self._last_ino = 0

    def make_node(self, mode: int, uid: int, gid: int) -> _Node:
        """Return a new inode that has no name yet."""
        self._last_ino += 1
        node = _Node(self._last_ino, mode, uid, gid, time.time_ns())
        self.nodes[node.ino] = node
        return node

    def allocate(self, node: _Node, number: int) -> bytearray | None:
        """Return a block of a file for writing, None where the storage is full."""
        block = node.blocks.get(number)
        if block is None and self.used_bytes + BLOCK_BYTES <= self.capacity_bytes:
            block = node.blocks[number] = bytearray(BLOCK_BYTES)
            self.used_bytes += BLOCK_BYTES
        return block

    def drop_unused(self, node: _Node) -> None:
        """Take an inode without names out of the table, and free its content unless it is open."""
        if not node.nlink:
            self.nodes.pop(node.ino, None)
            if not node.opened:
                self.free(node, 0)

    def free(self, node: _Node, first: int) -> None:
        """Give back the blocks from ``first`` on."""
        for number in [number for number in node.blocks if number >= first]:
            del node.blocks[number]
            self.used_bytes -= BLOCK_BYTES


class MemoryDirectory(BackendDirectory):
    """A directory held open."""

    __slots__ = ("node",)

    def __init__(self, node: _Node) -> None:
        self.node = node

    def close(self) -> None:
        """See BackendDirectory; nothing is held."""


class MemoryFile(BackendFile):
    """A regular file held open."""

    __slots__ = ("is_open", "node", "tree")

    def __init__(self, tree: MemoryTree, node: _Node) -> None:
        self.tree = tree
        self.node = node
        self.is_open = True
        node.opened += 1

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile."""
        end = min(offset + length, self.node.size)
        pieces = []
        for number, start, stop in _pieces(offset, end):
            block = self.node.blocks.get(number)
            pieces.append(bytes(stop - start) if block is None else bytes(block[start:stop]))
        return b"".join(pieces)

    async def write(self, offset: int, data: bytes) -> int:
        """See BackendFile; a full storage takes what fits."""
        if offset + len(data) > _MAX_FILE_BYTES:
            raise FileTooLarge
        written = 0
        for number, start, stop in _pieces(offset, offset + len(data)):
            block = self.tree.allocate(self.node, number)
            if block is None:
                break
            block[start:stop] = data[written : written + stop - start]
            written += stop - start
        if data and not written:
            raise NoSpace
        if written:
            self.node.size = max(self.node.size, offset + written)
            self.node.mtime_ns = self.node.ctime_ns = time.time_ns()
        return written

    async def truncate(self, size: int) -> None:
        """See BackendFile."""
        if size < 0:
            raise InvalidArgument
        if size > _MAX_FILE_BYTES:
            raise FileTooLarge
        if size < self.node.size:
            self.tree.free(self.node, -(-size // BLOCK_BYTES))
            last = self.node.blocks.get(size // BLOCK_BYTES)
            if last is not None:
                last[size % BLOCK_BYTES :] = bytes(BLOCK_BYTES - size % BLOCK_BYTES)
        self.node.size = size
        self.node.mtime_ns = self.node.ctime_ns = time.time_ns()

    async def sync(self, *, data_only: bool) -> None:
        """See BackendFile; as durable as the process."""

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return self.node.attributes()

    async def set_attributes(self, changes: AttributeChanges) -> FileAttributes:
        """See BackendFile."""
        return _change_attributes(self.node, changes)

    async def reopen(self, *, writable: bool) -> BackendFile:
        """See BackendFile."""
        return MemoryFile(self.tree, self.node)

    async def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return _get_xattr(self.node, name)

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        """See BackendFile."""
        _set_xattr(self.node, name, value)

    async def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return list(self.node.xattrs)

    async def remove_xattr(self, name: bytes) -> None:
        """See BackendFile."""
        _remove_xattr(self.node, name)

    async def close(self) -> None:
        """See BackendFile; the content of an unlinked file goes with its last close."""
        if self.is_open:
            self.is_open = False
            self.node.opened -= 1
            self.tree.drop_unused(self.node)


class MemoryBackend(BaseStorageBackend):
    """A volume in memory.

    Args:
        tree: the data, shared by all backends of one volume; a new one by default.
    """

    backend_type: ClassVar[BackendType] = "memory"

    def __init__(self, tree: MemoryTree | None = None) -> None:
        self.tree = tree if tree is not None else MemoryTree()

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> MemoryBackend:
        """Return a backend of a new, empty volume, whatever the source says."""
        return cls()

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return _CAPABILITIES

    async def create_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend."""
        if self.tree.root is None:
            self.tree.root = self.tree.make_node(stat.S_IFDIR | 0o755, 0, 0)
            self.tree.root.nlink = 2

    async def open_volume(self, context: VolumeOperationContext) -> MemoryDirectory:
        """See BaseStorageBackend."""
        if self.tree.root is None:
            raise NotFound
        return MemoryDirectory(self.tree.root)

    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> MemoryDirectory:
        """See BaseStorageBackend."""
        node = _find(parent, name, 0)
        if not node.is_directory:
            raise NotADirectory
        return MemoryDirectory(_checked(node, ino))

    # -- names and attributes -----------------------------------------------------------------------------------

    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        return list(_node(directory).entries)

    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        return _find(directory, name, 0).attributes()

    async def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        return _change_attributes(_find(directory, name, ino), changes)

    async def get_space(self) -> BackendSpace:
        """See BaseStorageBackend."""
        free_bytes = self.tree.capacity_bytes - self.tree.used_bytes
        return BackendSpace(self.tree.capacity_bytes, free_bytes, 0, 0, _MAX_NAME_BYTES)

    # -- files and nodes ----------------------------------------------------------------------------------------

    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = _find(directory, name, ino)
        if node.is_directory:
            raise IsADirectory
        if node.file_type == stat.S_IFLNK:
            raise TooManySymlinks
        if node.file_type != stat.S_IFREG:
            raise InvalidArgument("not a regular file")
        return MemoryFile(self.tree, node), node.attributes()

    async def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        node = self._create(directory, name, stat.S_IFREG | (mode & 0o7777 & ~owner.umask), owner)
        return MemoryFile(self.tree, node), node.attributes()

    async def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        if stat.S_IFMT(mode) not in _MADE_TYPES:
            raise NotPermitted
        return self._create(directory, name, mode & ~owner.umask, owner).attributes()

    async def create_symlink(
        self, directory: BackendDirectory, name: bytes, target: bytes, owner: NodeOwner
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        if len(target) > _MAX_TARGET_BYTES:
            raise NameTooLong
        node = self._create(directory, name, stat.S_IFLNK | 0o777, owner)
        node.target = target
        node.size = len(target)
        return node.attributes()

    def _create(self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner) -> _Node:
        parent = _node(directory)
        _check_free(parent, name)
        gid = owner.gid
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
        node = self.tree.make_node(mode, owner.uid, gid)
        _enter(parent, name, node)
        return node

    # -- changes of names ---------------------------------------------------------------------------------------

    async def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """See BaseStorageBackend."""
        node = _find(directory, name, 0)
        if is_directory and not node.is_directory:
            raise NotADirectory
        if not is_directory and node.is_directory:
            raise IsADirectory
        if node.entries:
            raise DirectoryNotEmpty
        self._leave(_node(directory), name)

    def _leave(self, parent: _Node, name: bytes) -> None:
        """Take a name away, and the inode from the table with its last one."""
        node = _take(parent, name)
        if node.is_directory:
            node.nlink = 0
        self.tree.drop_unused(node)

    async def rename(
        self,
        source: BackendDirectory,
        source_name: bytes,
        target: BackendDirectory,
        target_name: bytes,
        flags: int = 0,
    ) -> None:
        """See BaseStorageBackend."""
        old_parent, new_parent = _node(source), _node(target)
        moved = _find(source, source_name, 0)
        replaced = new_parent.entries.get(target_name)
        if moved.is_directory:
            _check_no_loop(moved, new_parent)
        if flags == RENAME_EXCHANGE:
            if replaced is None:
                raise NotFound
            if replaced.is_directory:
                _check_no_loop(replaced, old_parent)
            if moved is not replaced:
                _take(old_parent, source_name)
                _take(new_parent, target_name)
                _enter(new_parent, target_name, moved)
                _enter(old_parent, source_name, replaced)
            return
        if flags not in (0, RENAME_NOREPLACE):
            raise InvalidArgument
        if replaced is None:
            _check_free(new_parent, target_name)
        else:
            if flags == RENAME_NOREPLACE:
                raise AlreadyExists
            if replaced is moved:
                return
            _check_replaceable(moved, replaced)
            self._leave(new_parent, target_name)
        _take(old_parent, source_name)
        _enter(new_parent, target_name, moved)

    async def link(
        self, source: BackendDirectory, source_name: bytes, ino: int, target: BackendDirectory, target_name: bytes
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        node = _find(source, source_name, ino)
        if node.is_directory:
            raise NotPermitted
        _check_free(_node(target), target_name)
        _enter(_node(target), target_name, node)
        return node.attributes()

    async def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        node = _find(directory, name, ino)
        if node.file_type != stat.S_IFLNK:
            raise InvalidArgument("not a symlink")
        return node.target

    # -- extended attributes ------------------------------------------------------------------------------------

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        return _get_xattr(_find(directory, name, ino), attribute)

    async def set_xattr(
        self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes
    ) -> None:
        """See BaseStorageBackend."""
        _set_xattr(_find(directory, name, ino), attribute, value)

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        return list(_find(directory, name, ino).xattrs)

    async def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """See BaseStorageBackend."""
        _remove_xattr(_find(directory, name, ino), attribute)

    # -- keys, and the gateway's own ----------------------------------------------------------------------------

    def key_of_name(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend."""
        return _NAME_KEY + _node(directory).ino.to_bytes(8, "big") + ino.to_bytes(8, "big") + name

    def key_of_file(self, file: BackendFile) -> bytes | None:
        """See BaseStorageBackend."""
        assert isinstance(file, MemoryFile)
        return _FILE_KEY + file.node.ino.to_bytes(8, "big")

    async def measure_key(self, key: bytes) -> Usage:
        """See BaseStorageBackend."""
        if key[:1] not in (_FILE_KEY, _NAME_KEY) or len(key) < (9 if key[:1] == _FILE_KEY else 18):
            raise Stale("no key of this driver")
        node = self.tree.nodes.get(int.from_bytes(key[1:9], "big"))
        if key[:1] == _NAME_KEY and node is not None:
            ino = int.from_bytes(key[9:17], "big")
            node = node.entries.get(key[17:])
            if node is not None and ino not in (0, node.ino):
                node = None
        return Usage(0, 0) if node is None else charged_usage(node.attributes())

    async def load_reserved(self, name: str) -> bytes | None:
        """See BaseStorageBackend."""
        return self.tree.reserved.get(name)

    async def store_reserved(self, name: str, content: bytes) -> None:
        """See BaseStorageBackend."""
        self.tree.reserved[name] = content

    async def remove_reserved(self, name: str) -> None:
        """See BaseStorageBackend."""
        self.tree.reserved.pop(name, None)

    async def open_reserved(self, path: str) -> MemoryDirectory:
        """See BaseStorageBackend."""
        if self.tree.reserved_directories is None:
            self.tree.reserved_directories = self.tree.make_node(stat.S_IFDIR | 0o700, 0, 0)
            self.tree.reserved_directories.nlink = 2
        found = self.tree.reserved_directories
        for name in path.encode().split(b"/"):
            if name not in found.entries:
                _enter(found, name, self.tree.make_node(stat.S_IFDIR | 0o700, 0, 0))
            found = found.entries[name]
        return MemoryDirectory(found)

    async def clone(self, file: BackendFile, directory: BackendDirectory, name: bytes) -> None:
        """See BaseStorageBackend."""
        assert isinstance(file, MemoryFile)
        source, parent = file.node, _node(directory)
        if self.tree.used_bytes + len(source.blocks) * BLOCK_BYTES > self.tree.capacity_bytes:
            raise NoSpace
        made = self.tree.make_node(stat.S_IFREG | 0o600, 0, 0)
        for number, block in source.blocks.items():
            copied = self.tree.allocate(made, number)
            assert copied is not None
            copied[:] = block
        made.size = source.size
        if name in parent.entries:
            self._leave(parent, name)
        _enter(parent, name, made)

    def key_of_node(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend."""
        return _find(directory, name, ino).ino.to_bytes(8, "big")

    async def open_node(self, key: bytes) -> BackendFile:
        """See BaseStorageBackend."""
        node = self.tree.nodes.get(int.from_bytes(key, "big"))
        if node is None or node.file_type != stat.S_IFREG:
            raise Stale
        return MemoryFile(self.tree, node)

    async def sync_volume(self) -> None:
        """See BaseStorageBackend; as durable as the process."""

    async def acquire_ownership(self, holder: bytes) -> None:
        """See BaseStorageBackend."""
        if self.tree.owner is not None:
            raise Busy(self.tree.owner_line.decode("utf-8", "replace").strip())
        self.tree.owner, self.tree.owner_line = self, holder

    async def release_ownership(self) -> None:
        """See BaseStorageBackend."""
        if self.tree.owner is self:
            self.tree.owner = None

    async def close(self) -> None:
        """See BaseStorageBackend; the tree stays."""
        await self.release_ownership()


_CAPABILITIES: Final = Capabilities(
    inline_io=True,
    hard_links=True,
    symlinks=True,
    special_files=True,
    xattrs=True,
    acls=False,
    rename_flags=True,
    ownership=True,
    close_reports_errors=False,
    durable_keys=True,
    preserves=True,
)


def _node(directory: BackendDirectory) -> _Node:
    assert isinstance(directory, MemoryDirectory)
    return directory.node


def _find(directory: BackendDirectory, name: bytes, ino: int) -> _Node:
    node = _node(directory)
    if name:
        if len(name) > _MAX_NAME_BYTES:
            raise NameTooLong
        found = node.entries.get(name)
        if found is None:
            raise NotFound
        node = found
    return _checked(node, ino)


def _checked(node: _Node, ino: int) -> _Node:
    if ino not in (0, node.ino):
        raise Stale
    return node


def _pieces(offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (block, start, stop) of the pieces of [offset, end)."""
    while offset < end:
        number, start = divmod(offset, BLOCK_BYTES)
        stop = min(BLOCK_BYTES, start + end - offset)
        yield number, start, stop
        offset += stop - start


def _check_free(parent: _Node, name: bytes) -> None:
    if len(name) > _MAX_NAME_BYTES:
        raise NameTooLong
    if name in parent.entries:
        raise AlreadyExists
    if not parent.nlink:
        raise NotFound("the directory was removed")


def _check_no_loop(moved: _Node, into: _Node) -> None:
    """Refuse to move a directory into itself."""
    above: _Node | None = into
    while above is not None:
        if above is moved:
            raise InvalidArgument("a directory cannot be moved into itself")
        above = above.parent


def _check_replaceable(moved: _Node, replaced: _Node) -> None:
    if moved.is_directory and not replaced.is_directory:
        raise NotADirectory
    if replaced.is_directory and not moved.is_directory:
        raise IsADirectory
    if replaced.entries:
        raise DirectoryNotEmpty


def _enter(parent: _Node, name: bytes, node: _Node) -> None:
    parent.entries[name] = node
    if node.is_directory:
        node.parent = parent
        node.nlink = node.nlink or 2
        parent.nlink += 1
    else:
        node.nlink += 1
    parent.mtime_ns = parent.ctime_ns = node.ctime_ns = time.time_ns()


def _take(parent: _Node, name: bytes) -> _Node:
    node = parent.entries.pop(name)
    if node.is_directory:
        node.parent = None
        parent.nlink -= 1
    else:
        node.nlink -= 1
    parent.mtime_ns = parent.ctime_ns = node.ctime_ns = time.time_ns()
    return node


def _change_attributes(node: _Node, changes: AttributeChanges) -> FileAttributes:
    if changes.mode is not None and node.file_type == stat.S_IFLNK:
        raise Unsupported("a symlink has no mode of its own")
    if changes.uid is not None or changes.gid is not None:
        node.uid = node.uid if changes.uid is None else changes.uid
        node.gid = node.gid if changes.gid is None else changes.gid
        if not node.is_directory:
            cleared = stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0)
            node.mode &= ~cleared
    if changes.mode is not None:
        node.mode = node.file_type | (changes.mode & 0o7777)
    if changes.atime_ns is not None:
        node.atime_ns = changes.atime_ns
    if changes.mtime_ns is not None:
        node.mtime_ns = changes.mtime_ns
    if changes != _NO_CHANGES:
        node.ctime_ns = time.time_ns()
    return node.attributes()


_NO_CHANGES: Final = AttributeChanges()


def _get_xattr(node: _Node, name: bytes) -> bytes:
    _check_xattr(name)
    value = node.xattrs.get(name)
    if value is None:
        raise NoAttribute
    return value


def _set_xattr(node: _Node, name: bytes, value: bytes) -> None:
    _check_xattr(name)
    if name.startswith(b"user.") and node.file_type not in (stat.S_IFREG, stat.S_IFDIR):
        raise NotPermitted("only files and directories have user attributes")
    if len(value) > _MAX_XATTR_BYTES:
        raise AttributeTooLarge
    node.xattrs[name] = value
    node.ctime_ns = time.time_ns()


def _remove_xattr(node: _Node, name: bytes) -> None:
    _check_xattr(name)
    if node.xattrs.pop(name, None) is None:
        raise NoAttribute
    node.ctime_ns = time.time_ns()


def _check_xattr(name: bytes) -> None:
    if name.startswith(b"system."):
        raise Unsupported("ACLs are not kept")
