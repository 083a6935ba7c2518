"""Random work beside another writer of the bucket: whatever was acknowledged here was stored, or lies in quarantine."""

import contextlib
import stat
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import volumes
from volgate.dto import AttributeChanges, Usage
from volgate.errors import StorageException
from volumes import SlowStore

PATHS = st.sampled_from(["a", "b", "d/a", "d/b", "e/a"])
SIZES = st.sampled_from([8, 10, 30, 80, 130])
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, SIZES),
    st.tuples(st.just("write"), PATHS, SIZES),
    st.tuples(st.just("others_put"), PATHS, SIZES),
    st.tuples(st.just("others_put"), PATHS, SIZES),
    st.tuples(st.just("others_delete"), PATHS),
    st.tuples(st.just("append"), PATHS, SIZES),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("rename"), st.just("d"), st.just("e")),
    st.tuples(st.just("rename"), st.just("e"), st.just("d")),
    st.tuples(st.just("chmod"), PATHS),
    st.tuples(st.just("mkdir"), st.sampled_from(["d", "e"])),
    st.tuples(st.just("open"), PATHS),
    st.tuples(st.just("close")),
    st.tuples(st.just("retry")),
    st.tuples(st.just("drop")),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("count")),
    st.tuples(st.just("drain")),
    st.tuples(st.just("pause"), st.sampled_from([1, 3, 10, 30])),
)


class _RememberingStore(SlowStore):
    """Remembers each content that it ever held."""

    def __init__(self, seed):
        super().__init__(seed)
        self.held = set()

    async def after(self, name, key):
        if key in self._objects:
            self.held.add(self._objects[key][1])
        await super().after(name, key)


class _Runner:
    """Does steps; keeps what was acknowledged and is nobody's wish any more, so may be gone."""

    def __init__(self, volume, store, folder):
        self.volume, self.store, self.folder = volume, store, folder
        self.acknowledged, self.replaced = set(), set()
        self.files = []
        self.exports = 0

    async def do(self, number, step):
        name, *arguments = step
        with contextlib.suppress(StorageException):  # then it is not acknowledged
            await getattr(self, name)(number, *arguments)

    async def note_replaced(self, path):
        """Note that what is seen under a name is about to be replaced on purpose."""
        with contextlib.suppress(StorageException):
            self.replaced.add(await self.volume.read(path))

    async def write(self, number, path, size):
        content = b"%d-" % number + bytes([number % 251]) * size
        await self.note_replaced(path)
        await self.volume.write(path, content)
        self.acknowledged.add(content)

    async def append(self, number, path, size):
        before = await self.volume.read(path)
        file = await self.volume.open(path)
        try:
            if await file.read(0, 1000) == before:
                await volumes.write_all(file, bytes([number % 251]) * size, len(before))
                await file.flush()
                self.replaced.add(before)
                self.acknowledged.add(before + bytes([number % 251]) * size)
        finally:
            await file.close()

    async def others_put(self, number, path, size):
        await self.store.put(path, b"others-%d-" % number + bytes([number % 251]) * size)

    async def others_delete(self, number, path):
        await self.store.delete(path)

    async def remove(self, number, path):
        await self.note_replaced(path)
        await self.volume.remove(path)

    async def rename(self, number, source, target):
        await self.note_replaced(target)
        await self.volume.rename(source, target)

    async def chmod(self, number, path):
        await self.volume.set_attributes(path, AttributeChanges(mode=0o600 + number % 8))

    async def mkdir(self, number, path):
        await self.volume.mkdir(path)

    async def open(self, number, path):
        self.files.append(await self.volume.open(path))

    async def close(self, number):
        if self.files:
            await self.files.pop().close()

    def losers(self):
        return [change for change in self.volume.backend.quarantine.list() if not change.is_orphan]

    async def retry(self, number):
        for change in self.losers()[:1]:
            if "@" in change.name:
                await self.note_replaced(change.name.rpartition("@")[0])
            await self.volume.backend.quarantine.retry(change.name)

    async def drop(self, number):
        for change in self.losers()[:1]:
            with contextlib.suppress(StorageException):  # a deletion has no content
                self.replaced.add(await self.exported(change.name))
            await self.volume.backend.quarantine.drop(change.name)

    async def exported(self, name):
        self.exports += 1
        path = self.folder / f"export-{self.exports}"
        await self.volume.backend.quarantine.export(name, path)
        return path.read_bytes()

    async def refresh(self, number):
        self.volume.backend.refresh()

    async def count(self, number):
        await self.volume.backend.count_usage(lambda usage: None)

    async def drain(self, number):
        await self.volume.backend.drain()

    async def pause(self, number, checkpoints):
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()

    async def usage_of_what_is_shown(self):
        """Return what all names count, and what is in quarantine without a name."""
        bytes_, inodes = 0, 0
        waiting = [self.volume.root]
        while waiting:
            directory = waiting.pop()
            for name in await self.volume.backend.list_names(directory):
                attributes = await self.volume.backend.get_attributes(directory, name)
                inodes += 1
                if stat.S_ISDIR(attributes.mode):
                    waiting.append(await self.volume.backend.open_directory(directory, name, 0))
                else:
                    bytes_ += attributes.size
        for change in self.losers():
            if "@" in change.name:
                bytes_, inodes = bytes_ + change.size, inodes + 1
        return Usage(bytes_, inodes)

    async def check(self):
        """Check that nothing is lost, and that the usage is what is there."""
        kept = set()
        for change in self.losers():
            with contextlib.suppress(StorageException):  # a deletion, or made of what others replaced: that was stored
                kept.add(await self.exported(change.name))
        lost = self.acknowledged - self.replaced - self.store.held - kept
        assert not lost, (lost, self.losers())
        backend = self.volume.backend
        backend.refresh()
        assert await backend.count_usage(lambda usage: None) == backend.load_usage()
        assert backend.load_usage() == await self.usage_of_what_is_shown()


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


async def race(steps, seed, place):
    with trio.fail_after(30):
        await _race(steps, seed, place)


async def _race(steps, seed, place):
    store = _RememberingStore(seed)
    async with volumes.opened(store, place / "cache") as volume:
        runner = _Runner(volume, store, place)
        await volume.backend.count_usage(lambda usage: None)
        for number, step in enumerate(steps):
            await runner.do(number, step)
        while runner.files:
            await runner.files.pop().close()
        while await volume.backend.drain() > volume.backend.backlog().refused:
            await trio.sleep(0.001)
        await runner.check()
        shown = [(change.name, change.size) for change in runner.losers()]
    async with volumes.opened(store, place / "cache") as volume:
        runner.volume = volume
        assert [(change.name, change.size) for change in runner.losers()] == shown
        await runner.check()
        while runner.losers():
            await runner.drop(0)
        assert await volume.backend.drain() == 0
        assert not list((place / "cache/staging").iterdir())
        await runner.check()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=60), seed=st.integers(0, 1 << 16))
def test_nothing_acknowledged_is_lost_beside_another_writer(steps, seed):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(race, steps, seed, Path(place))
