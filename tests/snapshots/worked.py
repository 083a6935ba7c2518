"""A volume without a kernel, by paths: for work beside snapshots, and for looking into them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import trio

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.base import NodeOwner
from volgate.drivers.posix.backend import PosixBackend
from volgate.dto import AttributeChanges, VolumeSnapshotContext
from volgate.vfs.file_system import FileSystem
from volgate.volume.counting import count_usage
from volgate.volume.volume import open_volume

OWNER = NodeOwner(0, 0, 0o022)


class Worked:
    """A file system of a volume, and paths in place of inodes. ``await Worked.open(place)`` makes one."""

    @classmethod
    async def open(cls, place: Path, backend=None) -> Worked:
        (place / "data").mkdir(exist_ok=True)
        self = cls()
        self.place = place
        self.backend = backend or PosixBackend(place / "data")
        self.volume = await open_volume(
            self.backend, source=str(place / "data"), mount_path=place / "mnt", state_directory=place / "state",
            runtime_directory=place / "run",
        )  # fmt: skip
        self.fs = FileSystem(self.volume, mount_point=place / "mnt", attr_timeout_s=0, entry_timeout_s=0)
        self.handles = []
        self.background = trio.CancelScope()
        return self

    @classmethod
    async def on_bucket(cls, place: Path, store, nursery) -> Worked:
        """Open a volume of objects, with what it does in the background."""
        backend = CachedBackend(store, CacheSettings(place / "cache", min_free_bytes=0))
        self = await cls.open(place, backend)
        self.ended = trio.Event()

        async def run():
            with self.background:
                await self.volume.run()
            self.ended.set()

        nursery.start_soon(run)
        while self.volume.gate.is_counting:
            await trio.sleep(0.001)
        return self

    async def close(self):
        await self.fs.close()
        self.background.cancel()
        await self.volume.close()

    async def die(self):
        """Leave all as kill -9 does: only what the kernel takes back is given back."""
        if isinstance(self.backend, CachedBackend):
            self.background.cancel()
            await self.ended.wait()
            self.backend._held.close()
            return
        await self.volume.snapshots.close()
        for opened in [self.fs.tree.files.get(fh) for fh in self.fs.tree.files.numbers()]:
            await opened.file.close()
        self.volume.root.close()
        await self.backend.close()

    # -- paths --------------------------------------------------------------------------------------------------

    async def find(self, path, fs=None):
        """Return the inode of a path, None where there is none; references are never given back."""
        fs = fs or self.fs
        inode = fs.tree.inodes.root
        for name in [part.encode() for part in path.split("/") if part]:
            if not inode.is_directory:
                return None
            found = await fs.namespace.lookup(inode, name)
            if found is None:
                return None
            inode = found[0]
            fs.tree.inodes.count_lookup(inode)
        return inode

    async def parent(self, path):
        above, _, name = path.rpartition("/")
        return await self.find(above), name.encode()

    async def open_file(self, path, flags=os.O_RDWR):
        inode = await self.find(path)
        if inode is None:
            parent, name = await self.parent(path)
            inode, attributes, file = await self.fs.namespace.create_file(parent, name, 0o644, OWNER)
            return self.fs.tree.register(inode, file, attributes, writable=True, privileged=True)
        return (await self.fs.file_io.open(inode, flags, privileged=True))[0]

    async def write(self, path, content, offset=0, *, truncate=False):
        fh = await self.open_file(path, os.O_RDWR | (os.O_TRUNC if truncate else 0))
        if content:
            assert await self.fs.file_io.write(fh, offset, content) == len(content)
        await self.fs.tree.release(fh)

    async def mkdir(self, path):
        parent, name = await self.parent(path)
        await self.fs.namespace.create_node(parent, name, stat.S_IFDIR | 0o755, OWNER)

    async def remove(self, path):
        parent, name = await self.parent(path)
        inode = await self.find(path)
        await (self.fs.namespace.rmdir if inode.is_directory else self.fs.namespace.unlink)(parent, name)

    async def rename(self, source, target, flags=0):
        await self.fs.namespace.rename(*await self.parent(source), *await self.parent(target), flags)

    async def link(self, source, target):
        await self.fs.namespace.link(await self.find(source), *await self.parent(target))

    async def set_attributes(self, path, size=None, **changes):
        inode = await self.find(path)
        await self.fs.attributes.set(inode, AttributeChanges(**changes), size=size, fh=None, privileged=True)

    # -- trees --------------------------------------------------------------------------------------------------

    async def tree(self, path="", fs=None):
        """Return all that lies below a path: path to (type and mode, mtime, content)."""
        fs = fs or self.fs
        found = {}
        top = await self.find(path, fs)
        assert top is not None, path
        waiting = [("", top)]
        while waiting:
            above, directory = waiting.pop()
            fh = await fs.directories.open(directory)
            opened = fs.directories.get(fh)
            names = [(name, attributes) async for name, attributes, _ in fs.directories.entries(opened, 0)]
            fs.directories.release(fh)
            for name, attributes in names:
                inode = fs.tree.inodes.observe(directory, name, attributes)
                fs.tree.inodes.count_lookup(inode)
                if attributes.provisional:
                    attributes = await fs.attributes.get(inode)
                here = f"{above}{name.decode()}"
                content = None
                if inode.is_directory:
                    waiting.append((f"{here}/", inode))
                elif stat.S_ISREG(attributes.mode):
                    file, _ = await fs.file_io.open(inode, os.O_RDONLY, privileged=True)
                    content = await fs.file_io.read(file, 0, attributes.size + 1)
                    await fs.tree.release(file)
                    assert len(content) == attributes.size, here
                elif stat.S_ISLNK(attributes.mode):
                    content = await fs.namespace.read_link(inode)
                mtime_ns = None if inode.is_directory else attributes.mtime_ns
                found[here] = attributes.mode, mtime_ns, content
        return found

    async def snapshot(self, name, metadata=None):
        context = VolumeSnapshotContext(
            self.volume.identity.volume_id, name, Path(".snapshots") / name, 1, metadata or {}
        )
        return await self.volume.snapshots.create(context, self.fs.turnstile.closed)

    async def tree_of(self, snapshot):
        return await self.tree(snapshot, self.fs.shown)

    async def check_usage(self):
        """Prove that the gate knows what a walk finds: what snapshots keep is charged to nobody."""
        table = self.fs.tree.files
        if self.volume.gate.uncertain:
            return  # a call failed, and the next owner counts
        if any(table.get(fh).inode.unlinked for fh in table.numbers()):
            return  # an open file without a name is charged, and no walk finds it
        if self.backend.capabilities.keeps_usage:
            if table.numbers():
                return  # what is being written is counted when it is closed
            walked = await self.backend.count_usage(lambda usage: None, keep=False)
        else:
            walked = await count_usage(self.volume.backend, self.volume.root)
        quota = self.volume.gate.info()
        assert (quota.used_bytes, quota.file_count) == (walked.bytes_, walked.inodes)

    def preserved(self):
        """Return sizes and inodes of what is kept, by snapshot's directory."""
        place = self.place / "data/.volgate/snapshots"
        return {
            folder.name: sum(blob.stat().st_size for blob in folder.iterdir() if blob.name.isdigit())
            for folder in sorted(place.iterdir())
        }
