"""Volumes of objects for tests: a store that takes its time, paths in place of handles, and what lies in a volume."""

from __future__ import annotations

import contextlib
import random
import stat
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

import trio

from volgate.cache import open_file, uploads
from volgate.cache.backend import CachedBackend
from volgate.cache.counting import count_objects
from volgate.cache.settings import CacheSettings
from volgate.core import parts
from volgate.drivers.base import NodeOwner
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import VolumeOperationContext
from volgate.volume.snapshots import native

CONTEXT = VolumeOperationContext("test", Path("/test"), "test", "uid:0")
OWNER = NodeOwner(0, 0, 0)
STORE_CALLS = (
    "head", "list_page", "get_range", "put", "delete", "copy", "begin_upload", "put_part", "copy_part",
    "complete_upload", "abort_upload",
)  # fmt: skip
CALL = ContextVar("call")
"""Name, positional and named arguments of the call that a task makes of a ``HookedStore``."""
CHANGES = ("put", "delete", "copy", "begin_upload", "put_part", "copy_part", "complete_upload")


class HookedStore(MemoryObjectStore):
    """The reference store; ``before`` and ``after`` are awaited around each call, and may raise."""

    async def before(self, name, key):
        pass

    async def after(self, name, key):
        pass


def _hooked(name):
    async def call(self, *args, **kwargs):
        key = args[0] if args else ""
        CALL.set((name, args, kwargs))
        await self.before(name, key)
        result = await getattr(MemoryObjectStore, name)(self, *args, **kwargs)
        await self.after(name, key)
        return result

    return call


for _name in STORE_CALLS:
    setattr(HookedStore, _name, _hooked(_name))


class SlowStore(HookedStore):
    """Requests take a while to come there and answers to come back, so that others overtake them."""

    def __init__(self, seed=0):
        super().__init__()
        self.random = random.Random(seed)

    async def before(self, name, key):
        for _ in range(self.random.randrange(4)):
            await trio.lowlevel.checkpoint()

    after = before


@contextlib.contextmanager
def scaled_down(monkeypatch):
    """Let files of some bytes count as large ones, upload what was closed at once, and wait for nothing long."""
    with monkeypatch.context() as patch:
        patch.setattr(open_file, "INLINE_BYTES", 16)
        patch.setattr(uploads, "_SINGLE_BYTES", 64)
        patch.setattr(uploads, "_MERGE_S", 0.0)
        patch.setattr(uploads, "_MAX_PAUSE_S", 0.01)
        patch.setattr(parts, "_STEPS", ((10_000, 32),))
        patch.setattr(native, "_PATIENCE_S", 0.05)
        patch.setattr(native, "_AGAIN_S", 0.01)
        yield


@contextlib.asynccontextmanager
async def opened(store, directory, *, background=True, **settings) -> AsyncIterator[Volume]:
    """Open a volume, and close it as umount does."""
    backend = CachedBackend(store, CacheSettings(directory, min_free_bytes=0, **settings))
    try:
        root = await backend.open_volume(CONTEXT)
        async with trio.open_nursery() as nursery:
            if background:
                nursery.start_soon(backend.run)
            try:
                yield Volume(backend, root)
            finally:
                nursery.cancel_scope.cancel()
    finally:
        await backend.close()


class Volume:
    """A backend whose names are paths."""

    def __init__(self, backend, root):
        self.backend = backend
        self.root = root

    async def place(self, path):
        *above, name = path.encode().split(b"/")
        directory = self.root
        for part in above:
            directory = await self.backend.open_directory(directory, part, 0)
        return directory, name

    async def open(self, path, *, writable=True):
        directory, name = await self.place(path)
        return (await self.backend.open_file(directory, name, 0, writable=writable))[0]

    async def create(self, path, mode=0o644):
        directory, name = await self.place(path)
        return (await self.backend.create_file(directory, name, mode, OWNER))[0]

    async def write(self, path, content):
        """Make a file with this content, as a program does that opens with O_CREAT and O_TRUNC."""
        directory, name = await self.place(path)
        if await self.backend.find_attributes(directory, name) is None:
            file = await self.create(path)
        else:
            file = await self.open(path)
            await file.truncate(0)
        await write_all(file, content)
        await file.flush()
        await file.close()

    async def read(self, path):
        file = await self.open(path, writable=False)
        try:
            return await file.read(0, (await file.get_attributes()).size + 1)
        finally:
            await file.close()

    async def mkdir(self, path):
        directory, name = await self.place(path)
        await self.backend.create_node(directory, name, stat.S_IFDIR | 0o755, OWNER)

    async def symlink(self, path, target):
        directory, name = await self.place(path)
        await self.backend.create_symlink(directory, name, target, OWNER)

    async def remove(self, path, *, is_directory=False):
        directory, name = await self.place(path)
        await self.backend.remove(directory, name, is_directory=is_directory)

    async def rename(self, source, target, flags=0):
        await self.backend.rename(*await self.place(source), *await self.place(target), flags)

    async def set_attributes(self, path, changes):
        directory, name = await self.place(path)
        await self.backend.set_attributes(directory, name, 0, changes)

    async def tree(self):
        """Return all that lies here: path to (mode, content or target)."""
        found = {}
        waiting = [("", self.root)]
        while waiting:
            above, directory = waiting.pop()
            for name in await self.backend.list_names(directory):
                path = f"{above}{name.decode()}"
                attributes = await self.backend.get_attributes(directory, name)
                content = None
                if stat.S_ISDIR(attributes.mode):
                    waiting.append((f"{path}/", await self.backend.open_directory(directory, name, 0)))
                elif stat.S_ISLNK(attributes.mode):
                    content = await self.backend.read_link(directory, name, 0)
                else:
                    content = await self.read(path)
                    assert len(content) == attributes.size, path
                found[path] = attributes.mode, content
        return found


async def write_all(file, content, offset=0):
    while content:
        written = await file.write(offset, content)
        content, offset = content[written:], offset + written


async def count(store):
    """Return what a bucket counts by its listing."""
    return await count_objects(store, {}, lambda usage: None)
