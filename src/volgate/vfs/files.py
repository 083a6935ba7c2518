"""Files by their paths, for programs that have no mount: listed, made, moved, removed, read, written.

All is done by the calls that users make, so the quota holds and snapshots keep what goes. No symlink is ever followed:
one on the way of a path is an error, one at its end is itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio

from volgate.core.names import DRAFT_PREFIX, RESERVED_ROOT_NAMES
from volgate.core.sizes import format_size
from volgate.drivers.base import NodeOwner, attributes_by_name
from volgate.dto import FileAttributes
from volgate.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    QuotaExceeded,
    ReadOnly,
    Stale,
    StorageException,
    Unsupported,
)
from volgate.vfs.paths import held, join
from volgate.vfs.tree_writer import TreeWriter
from volgate.volume.snapshots.base import Place

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.vfs.file_system import FileSystem

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1 << 20
_NOTE: Final = "uploads.json"
"""The reserved file that names the drafts of uploads: what is left of them when a process was killed goes."""
_REPLACED_TIMES: Final = 10
T = TypeVar("T")
Read = Callable[[int, int], Awaitable[bytes]]
"""Reads (offset, length) of a file; shorter only at its end."""


@attrs.frozen
class Entry:
    """What stands under a name.

    Attributes:
        name: "" for the root. attributes: of it. target: where a symlink leads, b"" for all else.
    """

    name: bytes
    attributes: FileAttributes
    target: bytes = b""


def to_path(text: str) -> bytes:
    """Return a path in a volume, without slashes at its ends; b"" = the root. Raises InvalidArgument: it is none."""
    try:
        path = os.fsencode(text).strip(b"/")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{text!r} is no text") from error
    parts = path.split(b"/") if path else []
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise InvalidArgument(f"{text!r} is no path within a volume")
    if parts and parts[0] in RESERVED_ROOT_NAMES:
        raise InvalidArgument(f"{text!r} is not the users'")
    if any(part.startswith(DRAFT_PREFIX) for part in parts):
        raise NotFound(f"there is no {text!r}")
    return path


class Files:
    """The files of one volume.

    Args:
        drop_caches: has the kernel forget names, each with its directory's number.
    """

    def __init__(
        self, file_system: FileSystem, drop_caches: Callable[[Collection[tuple[int, bytes]]], Awaitable[None]]
    ) -> None:
        self._fs = file_system
        self._drop_caches = drop_caches
        self._backend = file_system.volume.backend
        self._drafts: set[str] = set()
        self._left: set[str] = set()
        self._noting = trio.Lock()

    # -- places -------------------------------------------------------------------------------------------------

    def _at(self, path: bytes) -> contextlib.AbstractAsyncContextManager[Inode]:
        return held(self._fs, self._fs.namespace, path)

    @contextlib.asynccontextmanager
    async def _parent_of(self, path: bytes) -> AsyncIterator[tuple[Inode, bytes]]:
        """Hold the directory that a path's last name is in. Raises as ``_at``; InvalidArgument: it is the root."""
        above, _, name = path.rpartition(b"/")
        if not name:
            raise InvalidArgument("the root of a volume is what it is")
        async with self._at(above) as parent:
            if not parent.is_directory:
                raise NotADirectory(f"{os.fsdecode(above)!r} is no directory")
            yield parent, name

    @contextlib.asynccontextmanager
    async def _changing(self, *names: tuple[Inode, bytes]) -> AsyncIterator[None]:
        """Run a change of names that is inside, and have the kernel forget them. Raises ReadOnly."""
        if self._fs.read_only:
            raise ReadOnly
        try:
            async with self._fs.turnstile.passed():
                yield
        finally:
            with trio.CancelScope(shield=True):
                await self._drop_caches({(parent.ino, name) for parent, name in names})

    # -- looking ------------------------------------------------------------------------------------------------

    async def stat(self, path: bytes) -> Entry:
        """Return what stands at a path. Raises NotFound, NotADirectory."""

        async def look() -> Entry:
            async with self._at(path) as inode:
                target = b""
                if inode.file_type == stat.S_IFLNK:
                    target = await self._fs.namespace.read_link(inode)
                return Entry(path.rpartition(b"/")[2], await self._fs.attributes.get(inode), target)

        return await _anew_where_replaced(look)

    async def list(self, path: bytes, after: bytes, limit: int) -> tuple[list[Entry], bytes | None]:
        """Return entries of a directory by name, behind a name, and behind which there are more; None = there are none.

        Raises:
            NotADirectory: it is none.
        """
        async with self._at(path) as inode:
            if not inode.is_directory:
                raise NotADirectory(f"{os.fsdecode(path)!r} is no directory")
            directory = await self._fs.tree.directory_of(inode)
            names = sorted(
                name
                for name in await self._backend.list_names(directory)
                if name > after and not self._fs.tree.is_hidden(inode, name)
            )
            found = await attributes_by_name(self._backend, directory, names[:limit])
            entries = []
            for name, attributes in found:
                target = b""
                if stat.S_ISLNK(attributes.mode):
                    try:
                        target = await self._backend.read_link(directory, name, attributes.ino)
                    except (NotFound, Stale):  # removed, or replaced, meanwhile
                        continue
                entries.append(Entry(name, attributes, target))
            return entries, names[limit - 1] if len(names) > limit else None

    # -- names --------------------------------------------------------------------------------------------------

    async def make_directory(self, path: bytes, *, parents: bool) -> Entry:
        """Make a directory; ``parents``: with those above it, and one that is there is fine.

        Raises:
            AlreadyExists: something is there. QuotaExceeded: no inode is left under the limit.
        """
        parts = path.split(b"/")
        first = 1 if parents else len(parts)
        for end in range(first, len(parts) + 1):
            async with self._parent_of(b"/".join(parts[:end])) as (parent, name):
                found = await self._fs.namespace.lookup(parent, name)
                if found is not None and parents and found[0].is_directory:
                    continue
                if found is not None:
                    raise AlreadyExists(f"{os.fsdecode(b'/'.join(parts[:end]))!r} is there already")
                async with self._changing((parent, name)):
                    await self._fs.namespace.create_node(parent, name, stat.S_IFDIR | 0o755, _owner())
        return await self.stat(path)

    async def move(self, source: bytes, target: bytes) -> None:
        """Give what stands at a path another one. Raises AlreadyExists: the target is there."""
        if (target + b"/").startswith(source + b"/"):
            raise InvalidArgument(f"{os.fsdecode(source)!r} cannot be moved into itself")
        async with self._parent_of(source) as old, self._parent_of(target) as new, self._changing(old, new):
            if await self._fs.namespace.lookup(*old) is None:
                raise NotFound(f"there is no {os.fsdecode(source)!r}")
            await self._fs.namespace.rename(*old, *new, 0, replaces=False)

    async def remove(self, path: bytes, *, recursive: bool) -> None:
        """Remove what stands at a path; ``recursive``: a directory with all below it. Raises DirectoryNotEmpty."""
        async with self._parent_of(path) as (parent, name):
            found = await self._fs.namespace.lookup(parent, name)
            if found is None:
                raise NotFound(f"there is no {os.fsdecode(path)!r}")
            if self._fs.read_only:
                raise ReadOnly
            if found[0].is_directory and not recursive:
                names = await self._backend.list_names(await self._fs.tree.directory_of(found[0]))
                if names:
                    raise DirectoryNotEmpty(f"{os.fsdecode(path)!r} is not empty; say 'recursive'")
            writer = TreeWriter(self._fs, Place(self._backend, self._fs.volume.root), "remove")
            try:
                await writer.remove(parent, name)
            finally:
                with trio.CancelScope(shield=True):
                    await self._drop_caches(writer.touched)

    # -- content ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reading(
        self, path: bytes
    ) -> AsyncIterator[tuple[FileAttributes, Callable[[int, int], Awaitable[bytes]]]]:
        """Hold a regular file open; gives its attributes, and what reads (offset, length) of it.

        Raises:
            IsADirectory, InvalidArgument: it is no regular file.
        """

        async def open_() -> tuple[Inode, int]:
            async with self._at(path) as inode:
                if inode.is_directory:
                    raise IsADirectory(f"{os.fsdecode(path)!r} is a directory")
                if inode.file_type != stat.S_IFREG:
                    raise InvalidArgument(f"{os.fsdecode(path)!r} is no regular file")
                return inode, (await self._fs.file_io.open(inode, os.O_RDONLY, privileged=True))[0]

        inode, fh = await _anew_where_replaced(open_)
        try:
            attributes = await self._fs.attributes.get(inode)

            async def read(offset: int, length: int) -> bytes:
                return await self._fs.file_io.read(fh, offset, length)

            yield attributes, read
        finally:
            with trio.CancelScope(shield=True):
                await self._fs.tree.release(fh)

    async def write(self, path: bytes, size: int, chunks: AsyncIterator[bytes], *, overwrite: bool) -> Entry:
        """Store a file of so many bytes, whole or not at all; durable after return as after fsync(2).

        Raises:
            AlreadyExists: it is there. QuotaExceeded: it does not fit, which is found out before anything is read.
            InvalidArgument: there are more or fewer bytes than was said.
        """
        if self._fs.read_only:
            raise ReadOnly
        async with self._parent_of(path) as (parent, name):
            found = await self._fs.namespace.lookup(parent, name)
            if found is not None and not overwrite:
                raise AlreadyExists(f"{os.fsdecode(path)!r} is there already")
            if found is not None and found[0].is_directory:
                raise IsADirectory(f"{os.fsdecode(path)!r} is a directory")
            free = self._fs.volume.gate.info().free_bytes
            if free is not None and size > free:
                raise QuotaExceeded(f"it is {format_size(size)}, and {format_size(free)} are free under the limit")
            draft = DRAFT_PREFIX + b"upload-" + os.urandom(8).hex().encode()
            noted = os.fsdecode(join(path.rpartition(b"/")[0], draft))
            await self._note(noted)
            async with self._changing():
                inode, attributes, file = await self._fs.own_names.create_file(parent, draft, 0o644, _owner())
                fh = self._fs.tree.register(inode, file, attributes, writable=True, privileged=True)
            try:
                if await self._store(fh, chunks) != size:
                    raise InvalidArgument(f"the content was not of {size} bytes")
                await self._fs.file_io.sync(fh, data_only=False)
                async with self._changing((parent, name)):
                    await self._fs.own_names.rename(parent, draft, parent, name, 0, replaces=overwrite)
                return Entry(name, await self._fs.attributes.get(inode))
            except BaseException:
                with trio.CancelScope(shield=True), contextlib.suppress(StorageException):
                    await self._fs.own_names.unlink(parent, draft)
                raise
            finally:
                self._drafts.discard(noted)  # the note that names it longer harms nobody
                with trio.CancelScope(shield=True):
                    await self._fs.tree.release(fh)

    async def _note(self, draft: str) -> None:
        """Note a draft, durably, before it is made."""
        self._drafts.add(draft)
        async with self._noting:  # on storage whose calls take their time, else, a store would take another's draft
            with contextlib.suppress(Unsupported):
                await self._backend.store_reserved(_NOTE, json.dumps(sorted(self._drafts)).encode())

    async def load(self) -> None:
        """Find out what an earlier owner left of uploads that it did not end; call before the first upload."""
        try:
            content = None if self._fs.read_only else await self._backend.load_reserved(_NOTE)
            self._left = set() if content is None else set(map(str, json.loads(content)))
        except Unsupported:
            return
        except (StorageException, ValueError, TypeError) as error:
            log.warning("what is left of uploads is not known", extra={"error": str(error)})
        self._drafts |= self._left

    async def tidy(self) -> None:
        """Remove what was left."""
        for draft in sorted(self._left):
            try:
                await self._remove_draft(os.fsencode(draft))
            except StorageException as error:
                log.warning("what is left of an upload stays", extra={"path": draft, "error": str(error)})
            else:
                self._drafts.discard(draft)

    async def _remove_draft(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        if name.startswith(DRAFT_PREFIX):
            with contextlib.suppress(NotFound, NotADirectory):
                async with held(self._fs, self._fs.own_names, above) as parent, self._fs.turnstile.passed():
                    await self._fs.own_names.unlink(parent, name)

    async def _store(self, fh: int, chunks: AsyncIterator[bytes]) -> int:
        offset = 0
        async for chunk in chunks:
            while chunk:
                async with self._fs.turnstile.passed():
                    written = await self._fs.file_io.write(fh, offset, chunk)
                chunk, offset = chunk[written:], offset + written
        return offset


async def _anew_where_replaced(call: Callable[[], Awaitable[T]]) -> T:
    """Run a call on what stands at a path, anew where another file took its place meanwhile, as the kernel does."""
    for _ in range(_REPLACED_TIMES):
        with contextlib.suppress(Stale):
            return await call()
    return await call()


def _owner() -> NodeOwner:
    return NodeOwner(os.geteuid(), os.getegid(), 0)
