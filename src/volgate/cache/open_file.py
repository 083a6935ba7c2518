"""An open file of a volume in a bucket: reads what is staged over what the object has, stages what is written.

A small content is kept whole in memory, a large one in a staging file; both go to the journal at close, fsync and
rename, and to the bucket from there. Writes are one step from the moment there is room for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from volgate.cache.reading import Stream
from volgate.cache.staging import INLINE_BYTES
from volgate.cache.uploads import wait_for_upload
from volgate.core.content_map import ContentMap, Origin
from volgate.drivers.base import BackendFile
from volgate.errors import (
    FileTooLarge,
    InputOutput,
    NotFound,
    PermissionDenied,
    SourceChanged,
    Stale,
    TimedOut,
    Unsupported,
)

if TYPE_CHECKING:
    from volgate.cache.backend import CachedBackend
    from volgate.cache.nodes import Node
    from volgate.cache.overlay import Work
    from volgate.dto import AttributeChanges, FileAttributes

_COPIED_BYTES: Final = 4 << 20
"""What is smaller is faster here and back than copied twice by the server: aside, and with its attributes."""
MAX_FILE_BYTES: Final = 5 << 40
"""The largest object (Amazon S3 User Guide, "Multipart upload limits")."""


class CachedFile(BackendFile):
    """See the module."""

    __slots__ = ("_backend", "_generation", "_is_open", "_stream", "node")

    def __init__(self, backend: CachedBackend, node: Node) -> None:
        self._backend = backend
        self._stream = Stream()
        self._is_open = True
        self.node = node
        self._generation = node.generation
        node.handles += 1

    def _check(self) -> None:
        """Raise Stale where the node lost its name to another writer's object since this was opened."""
        if self._generation != self.node.generation:
            raise Stale("another writer replaced the file; see 'volgate quarantine list' for what was written here")

    async def read(self, offset: int, length: int) -> bytes:
        """See BackendFile. Raises Stale: the object was replaced by others, and is not cached whole."""
        self._check()
        node = self.node
        work = node.work
        if work is None or work.content is None:
            return await self._read_base(offset, length) if node.base is not None else b""
        if work.buffer is not None or work.is_journaled:
            return bytes(self._backend.overlay.load_buffer(node)[offset : offset + length])
        pieces: list[bytes] = []
        for origin, start, end in list(work.content.origins(offset, offset + length)):
            if origin is Origin.ZEROS:
                pieces.append(bytes(end - start))
            elif origin is Origin.STAGED:
                pieces.append(work.read_staged(start, end))
            else:
                pieces.append(await self._read_base(start, end - start))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _read_base(self, offset: int, length: int) -> bytes:
        """Read of the object that has the content; an upload or a rename may put another in its place meanwhile.

        That upload may be one of before a crash, of which nobody knows whether it was done.
        """
        node = self.node
        while True:
            base = node.base
            if base is None:
                raise InputOutput("the content's object is not known any more")
            try:
                return await self._backend.reading.read(base, offset, length, self._stream)
            except Stale:
                entry = self._backend.overlay.entries.get(node.key) if not node.is_unlinked else None
                if node.base == base and entry is not None:
                    await self._backend.uploads.look_for_own(entry)
                if node.base == base:
                    raise

    async def write(self, offset: int, data: bytes) -> int:
        """See BackendFile. May wait for room, and for an upload of the same file that writers kept from its end."""
        end = offset + len(data)
        if end > MAX_FILE_BYTES:
            raise FileTooLarge(f"an object has at most {MAX_FILE_BYTES} bytes")
        if not data:
            return 0
        self._backend.check_writable()
        node = self.node
        await self._backend.staging.wait_for_room(len(data))
        work = await self._begin(node, max(node.size, end))
        assert work.content is not None
        if work.buffer is not None and end <= INLINE_BYTES:
            self._backend.overlay.note_changed_buffer(work)
            buffer = work.buffer
            if offset > len(buffer):
                buffer.extend(bytes(offset - len(buffer)))
            buffer[offset:end] = data
        else:
            self._stage(work)
            assert work.staged is not None
            work.staged.write(offset, data)
        self._note_write(node, work, offset, end)
        return len(data)

    def _note_write(self, node: Node, work: Work, start: int, end: int) -> None:
        content = work.content
        assert content is not None
        content.write(start, end)
        if work.staged is not None:
            self._backend.staging.resize(work.staged, content.staged_bytes)
        node.size = content.size
        self._note_change(node, work, start, end)

    def _note_change(self, node: Node, work: Work, start: int, end: int) -> None:
        work.revision += 1
        work.is_settled = False
        if work.touched is not None:
            work.touched.append((start, end))
        node.touch(time.time_ns())
        if not node.is_unlinked:
            self._backend.overlay.pend(node).refused = ""  # what was refused is not what it holds now

    async def _begin(self, node: Node, size: int) -> Work:
        """Return the work of a file whose content is about to change and then has up to ``size`` bytes."""
        overlay = self._backend.overlay
        while True:
            self._check()
            work = overlay.work_of(node)
            if work.calm is not None:
                await wait_for_upload(work.calm)
                continue
            if work.content is not None:
                if work.is_journaled:
                    overlay.load_buffer(node)
                return work
            base = node.base
            if base is None or not 0 < node.size <= INLINE_BYTES or size > INLINE_BYTES:
                work.content = ContentMap(node.size, node.size if base is not None else 0)
                if node.size == 0:
                    work.buffer = bytearray()
                return work
            body = await self._read_base(0, base.size)
            if node.work is work and work.content is None and node.base == base:
                work.content = ContentMap(node.size, 0)
                work.buffer = bytearray(body)

    def _stage(self, work: Work) -> None:
        """Go over from a buffer to a staging file, where there is none yet."""
        staging = self._backend.staging
        if work.staged is None:
            work.staged = staging.create()
        if work.buffer is not None:
            self._backend.overlay.note_changed_buffer(work)
            size = len(work.buffer)
            work.staged.write(0, bytes(work.buffer))
            work.content = ContentMap(size, 0, ((0, size),) if size else ())
            staging.resize(work.staged, size)
            work.buffer = None

    def can_take(self, source: BackendFile) -> bool:
        """See BackendFile: of a large object of the same server, which no change of ours waits to replace."""
        if not isinstance(source, CachedFile) or source.node.work is not None or source.node.base is None:
            return False
        return source.node.size >= _COPIED_BYTES and self._backend.can_copy_of(source._backend)

    async def take_content(self, source: BackendFile, size: int) -> None:
        """See BackendFile: the server copies the object."""
        assert isinstance(source, CachedFile)
        self._check()
        self._backend.check_writable()
        base = source.node.base
        if base is None or base.size != size:
            raise SourceChanged
        try:
            await self._backend.take_content(self.node, source._backend, base)
        except (NotFound, Stale) as error:
            raise SourceChanged(str(error)) from error
        except (PermissionDenied, TimedOut) as error:  # a server may copy more slowly than it gives and takes
            raise Unsupported(str(error)) from error

    async def truncate(self, size: int) -> None:
        """See BackendFile."""
        if size < 0 or size > MAX_FILE_BYTES:
            raise FileTooLarge(f"an object has at most {MAX_FILE_BYTES} bytes")
        self._check()
        node = self.node
        if size == node.size:
            node.touch(time.time_ns())
            self._backend.note_attributes(node)
            return
        if 0 < size < node.size and node.work is not None and node.work.recorded is not None:
            await self._backend.settle(node, durably=False)
        work = await self._begin(node, size) if size else self._empty(node)
        was_settled = work.is_settled
        if work.buffer is not None and size > INLINE_BYTES:
            self._stage(work)
        content = work.content
        assert content is not None
        if work.buffer is not None:
            self._backend.overlay.note_changed_buffer(work)
            del work.buffer[size:]
            work.buffer.extend(bytes(size - len(work.buffer)))
        old_size = node.size
        content.truncate(size)
        if work.staged is not None:
            self._backend.staging.resize(work.staged, content.staged_bytes)
        node.size = size
        self._note_change(node, work, min(size, old_size), max(size, old_size))
        if size < old_size and was_settled and work.recorded is not None and work.recorded is work.staged:
            # What is written beyond the new end must not be seen within the old one.
            await self._backend.overlay.sync(self._backend.overlay.record(node))

    def _empty(self, node: Node) -> Work:
        """Begin a content anew, of nothing."""
        work = self._backend.overlay.work_of(node)
        self._backend.overlay.begin_anew(work)
        return work

    async def sync(self, *, data_only: bool) -> None:
        """See BackendFile: the bucket has it. Raises InputOutput: it is refused; Unavailable: not now, try again."""
        self._check()
        await self._backend.sync_node(self.node)

    async def flush(self) -> None:
        """Return when the local journal has what was written, durably: it will be uploaded, after a crash too."""
        self._check()
        await self._backend.settle(self.node, durably=True)

    async def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        self._check()
        return self.node.to_attributes()

    async def set_attributes(self, changes: AttributeChanges) -> FileAttributes:
        """See BackendFile."""
        self._check()
        return self._backend.apply(self.node, changes)

    async def reopen(self, *, writable: bool) -> CachedFile:
        """See BackendFile."""
        self._check()
        return CachedFile(self._backend, self.node)

    async def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        self._check()
        return self._backend.xattr_of(self.node, name)

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        """See BackendFile."""
        self._check()
        self._backend.change_xattr(self.node, name, value)

    async def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        self._check()
        return list(self.node.xattrs)

    async def remove_xattr(self, name: bytes) -> None:
        """See BackendFile."""
        self._check()
        self._backend.change_xattr(self.node, name, None)

    async def close(self) -> None:
        """See BackendFile."""
        if self._is_open:
            self._is_open = False
            self.node.handles -= 1
            if not self.node.handles:
                await self._backend.release(self.node)
