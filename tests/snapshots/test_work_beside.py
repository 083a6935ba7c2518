"""Whatever is done to a volume, each of its snapshots shows what stood there when it was taken."""

import os
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from worked import Worked

import volumes
from volgate.drivers.memory import MemoryBackend, MemoryTree
from volumes import CONTEXT, SlowStore

NAMES = ["a", "b", "c", "d/a", "d/b"]
NAME = st.sampled_from(NAMES)
CONTENT = st.binary(min_size=1, max_size=20)
STEP = st.one_of(
    st.tuples(st.just("write"), NAME, CONTENT, st.integers(0, 30), st.booleans()),
    st.tuples(st.just("truncate"), NAME, st.integers(0, 30)),
    st.tuples(st.just("remove"), NAME),
    st.tuples(st.just("rename"), NAME, NAME),
    st.tuples(st.just("move_directory")),
    st.tuples(st.just("link"), NAME, NAME),
    st.tuples(st.just("touch"), NAME, st.integers(0, 1 << 30)),
    st.tuples(st.just("chmod"), NAME, st.sampled_from([0o600, 0o644, 0o755])),
    st.tuples(st.just("hold"), NAME),
    st.tuples(st.just("write_held"), st.integers(0, 3), CONTENT),
    st.tuples(st.just("release"), st.integers(0, 3)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("delete"), st.integers(0, 5)),
    st.tuples(st.just("remount"), st.booleans()),
)


class Work:
    def __init__(self, place):
        self.place = place
        self.taken = {}
        self.count = 0
        self.folder = "d"

    async def run(self, steps):
        async with trio.open_nursery() as self.nursery:
            self.worked = await self.open()
            await self.worked.mkdir("d")
            for name, *arguments in steps:
                await getattr(self, name)(*(self.at(argument) for argument in arguments))
                await self.check()
            await self.end()
            await self.worked.close()

    async def open(self):
        return await Worked.open(self.place)

    async def end(self):
        """What comes after the steps."""

    def at(self, argument):
        return argument.replace("d/", f"{self.folder}/") if isinstance(argument, str) else argument

    async def check(self):
        for snapshot, tree in self.taken.items():
            assert await self.worked.tree_of(snapshot) == tree, snapshot
        infos = await self.worked.volume.snapshots.list_all()
        assert [info.snapshot_id for info in infos] == list(self.taken)
        if (preserved := self.preserved_bytes()) is not None:
            assert sum(info.preserved_bytes for info in infos) == preserved
        await self.worked.check_usage()

    def preserved_bytes(self):
        return sum(self.worked.preserved().values())

    async def there(self, path):
        return await self.worked.find(path) is not None

    async def write(self, path, content, offset, truncate):
        await self.worked.write(path, content, offset, truncate=truncate)

    async def truncate(self, path, size):
        if await self.there(path):
            await self.worked.set_attributes(path, size=size)

    async def remove(self, path):
        if await self.there(path):
            await self.worked.remove(path)

    async def rename(self, source, target):
        if await self.there(source):
            await self.worked.rename(source, target)

    async def move_directory(self):
        other = "e" if self.folder == "d" else "d"
        await self.worked.rename(self.folder, other)
        self.folder = other

    async def link(self, source, target):
        has_links = self.worked.backend.capabilities.hard_links
        if has_links and await self.there(source) and not await self.there(target):
            await self.worked.link(source, target)

    async def touch(self, path, seconds):
        if await self.there(path):
            await self.worked.set_attributes(path, mtime_ns=seconds * 10**9)

    async def chmod(self, path, mode):
        if await self.there(path):
            await self.worked.set_attributes(path, mode=mode)

    async def hold(self, path):
        if len(self.worked.handles) < 4:
            self.worked.handles.append(await self.worked.open_file(path, os.O_RDWR))

    async def write_held(self, number, content):
        if number < len(self.worked.handles):
            await self.worked.fs.file_io.write(self.worked.handles[number], 0, content)

    async def release(self, number):
        if number < len(self.worked.handles):
            await self.worked.fs.tree.release(self.worked.handles.pop(number))

    async def snapshot(self):
        self.count += 1
        name = f"s{self.count}"
        info = await self.worked.snapshot(name)
        self.taken[name] = await self.worked.tree()
        usage = self.worked.volume.gate.info()
        if not self.worked.handles:  # what has no name any more is charged, and in no snapshot
            assert (info.used_bytes, info.file_count) == (usage.used_bytes, usage.file_count)

    async def delete(self, number):
        if number < len(self.taken):
            name = list(self.taken)[number]
            await self.worked.volume.snapshots.delete(name)
            del self.taken[name]

    async def remount(self, cleanly):
        await (self.worked.close if cleanly else self.worked.die)()
        self.worked = await self.open()


class BucketWork(Work):
    """The same in a bucket, whose answers take a while."""

    def __init__(self, place, seed):
        super().__init__(place)
        self.store = SlowStore(seed)

    async def open(self):
        return await Worked.on_bucket(self.place, self.store, self.nursery)

    def preserved_bytes(self):
        """Nobody knows what is kept while uploads go on."""

    async def end(self):
        await super().end()
        await self.worked.backend.drain()
        kept = ".volgate/snapshots/kept/"
        there = sum(info.size for key, (info, _) in self.store._objects.items() if key.startswith(kept))
        assert there == sum(info.preserved_bytes for info in await self.worked.volume.snapshots.list_all())
        for name in list(self.taken):
            await self.worked.volume.snapshots.delete(name)
            del self.taken[name]
            await self.check()
        assert not [key for key in self.store._objects if key.startswith(".volgate/snapshots/")]


class MemoryWork(Work):
    """The same in memory."""

    def __init__(self, place):
        super().__init__(place)
        self.tree = MemoryTree()

    async def open(self):
        backend = MemoryBackend(self.tree)
        await backend.create_volume(CONTEXT)
        return await Worked.open(self.place, backend)

    def preserved_bytes(self):
        place = self.tree.reserved_directories.entries[b"snapshots"]
        return sum(
            blob.size for folder in place.entries.values() for name, blob in folder.entries.items() if name.isdigit()
        )


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "150")), deadline=None)
@given(st.lists(STEP, max_size=30))
def test_every_snapshot_in_memory_shows_what_stood_there(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(MemoryWork(Path(place)).run, steps)


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "150")), deadline=None)
@given(st.lists(STEP, max_size=30))
def test_every_snapshot_shows_what_stood_there(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(Work(Path(place)).run, steps)


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "100")), deadline=None)
@given(st.lists(STEP, max_size=25), st.integers(0, 1 << 30))
def test_every_snapshot_of_a_bucket_shows_what_stood_there(steps, seed):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place, pytest.MonkeyPatch.context() as patch:
        with volumes.scaled_down(patch):
            trio.run(BucketWork(Path(place), seed).run, steps)
