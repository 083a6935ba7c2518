"""Random work on a volume of objects, beside the reference: the same answers, whatever the uploads are at."""

import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import volumes
from volgate.drivers.base import RENAME_EXCHANGE, RENAME_NOREPLACE
from volgate.drivers.memory import MemoryBackend
from volgate.dto import AttributeChanges
from volgate.errors import InputOutput, StorageException, Unavailable
from volumes import CONTEXT, SlowStore, Volume, write_all

PATHS = st.sampled_from(["a", "b", "d", "e", "d/a", "d/b", "e/a", "d/d", "d/d/a", "d/e"])
SIZES = st.sampled_from([0, 1, 10, 17, 40, 64, 65, 100, 130])
OFFSETS = st.sampled_from([0, 5, 20, 33, 64, 90])
WHICH = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, SIZES),
    st.tuples(st.just("write"), PATHS, SIZES),
    st.tuples(st.just("mkdir"), PATHS),
    st.tuples(st.just("symlink"), PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS, st.sampled_from([0, 0, RENAME_EXCHANGE, RENAME_NOREPLACE])),
    st.tuples(st.just("rename"), PATHS, PATHS, st.just(0)),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o600, 0o755])),
    st.tuples(st.just("open"), PATHS),
    st.tuples(st.just("write_at"), WHICH, OFFSETS, SIZES),
    st.tuples(st.just("write_at"), WHICH, OFFSETS, SIZES),
    st.tuples(st.just("truncate"), WHICH, SIZES),
    st.tuples(st.just("read"), WHICH),
    st.tuples(st.just("sync"), WHICH),
    st.tuples(st.just("flush"), WHICH),
    st.tuples(st.just("close"), WHICH),
    st.tuples(st.just("pause"), st.sampled_from([0, 1, 3, 10, 30])),
    st.tuples(st.just("settle")),
    st.tuples(st.just("count")),
    st.tuples(st.just("drain")),
)


class Runner:
    """Does steps on one volume; contents differ by the number of the step."""

    def __init__(self, volume, nursery=None):
        self.volume = volume
        self.nursery = nursery
        self.files = []

    async def do(self, number, step):
        """Do one step; returns what it answered, or the name of what it raised."""
        name, *arguments = step
        try:
            return await getattr(self, name)(number, *arguments)
        except (InputOutput, Unavailable):
            raise  # never the right answer
        except StorageException as error:
            return type(error).__name__

    def content(self, number, size):
        return bytes((number * 7 + place) % 251 for place in range(size))

    async def write(self, number, path, size):
        await self.volume.write(path, self.content(number, size))

    async def mkdir(self, number, path):
        await self.volume.mkdir(path)

    async def symlink(self, number, path):
        await self.volume.symlink(path, b"to-%d" % number)

    async def remove(self, number, path):
        await self.volume.remove(path)

    async def rmdir(self, number, path):
        await self.volume.remove(path, is_directory=True)

    async def rename(self, number, source, target, flags):
        await self.volume.rename(source, target, flags)

    async def chmod(self, number, path, mode):
        await self.volume.set_attributes(path, AttributeChanges(mode=mode))

    async def open(self, number, path):
        if len(self.files) < 3:
            self.files.append(await self.volume.open(path))

    async def write_at(self, number, which, offset, size):
        if which < len(self.files):
            await write_all(self.files[which], self.content(number, size), offset)

    async def truncate(self, number, which, size):
        if which < len(self.files):
            await self.files[which].truncate(size)

    async def read(self, number, which):
        if which < len(self.files):
            return await self.files[which].read(0, 1000)
        return None

    async def sync(self, number, which):
        if which < len(self.files):
            await self.files[which].sync(data_only=False)

    async def flush(self, number, which):
        if which < len(self.files):
            await self.files[which].flush()

    async def close(self, number, which):
        if which < len(self.files):
            await self.files.pop(which).close()

    async def pause(self, number, checkpoints):
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()

    async def settle(self, number):
        await trio.sleep(0.005)

    async def count(self, number):
        """Begin to count; the work goes on meanwhile, and nobody else changes the bucket."""
        if self.nursery is not None:
            self.nursery.start_soon(self.volume.backend.count_usage, lambda usage: None)

    async def drain(self, number):
        if not isinstance(self.volume.backend, MemoryBackend):
            assert await self.volume.backend.drain() == 0

    async def close_all(self):
        while self.files:
            await self.files.pop().close()


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


async def reference():
    backend = MemoryBackend()
    await backend.create_volume(CONTEXT)
    return Runner(Volume(backend, await backend.open_volume(CONTEXT)))


async def compare(steps, seed, place):
    expected = await reference()
    store = SlowStore(seed)
    async with volumes.opened(store, place / "cache") as volume:
        await volume.backend.count_usage(lambda usage: None)
        replaced = []
        volume.backend.watch_usage(lambda before, after: replaced.append((before, after)))
        async with trio.open_nursery() as nursery:
            runner = Runner(volume, nursery)
            for number, step in enumerate(steps):
                assert await runner.do(number, step) == await expected.do(number, step), (number, step)
        assert not replaced, "nobody else changed the bucket"
        tree = await expected.volume.tree()
        assert await volume.tree() == tree
        await runner.close_all()
        assert await volume.backend.drain() == 0
        assert await volume.tree() == tree
        assert volume.backend.backlog().files == 0
        assert volume.backend.staging.used_bytes == 0
        assert not list((place / "cache/staging").iterdir())
        assert await volumes.count(store) == volume.backend.load_usage()
        assert not await store.list_uploads()
        assert not (await store.list_page(".volgate/aside/")).objects
    async with volumes.opened(store, place / "another") as volume:
        assert await volume.tree() == tree


@given(st.lists(STEPS, max_size=25), st.integers(0, 1000))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_a_volume_of_objects_answers_as_the_reference_does(steps, seed):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(compare, steps, seed, Path(place))
