"""What a listing costs in requests, and what it may say before an object was asked for; on the reference store."""

import tracemalloc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from volgate.cache.backend import CachedBackend
from volgate.cache.counting import count_objects
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.object_store import ListedObject, ListPage
from volgate.dto import VolumeOperationContext

NAMES = [b"f%03d" % number for number in range(200)]
META = {"mode": str(0o100600)}


class Store(MemoryObjectStore):
    """Attributes: heads: the keys below the directory that were asked for, each time."""

    def __init__(self):
        super().__init__()
        self.heads = []

    async def head(self, key):
        if key.startswith("d/f"):
            self.heads.append(key)
            await trio.sleep(0)
        return await super().head(key)


@pytest.fixture
def run(tmp_path):
    """Give ``run(test, size)``: it awaits test(store, backend, directory) on a directory of objects of that size."""

    async def main(test, size, in_background):
        store = Store()
        for name in NAMES:
            await store.put(f"d/{name.decode()}", bytes(size), metadata=META)
        backend = CachedBackend(store, CacheSettings(tmp_path / "cache", min_free_bytes=0))
        root = await backend.open_volume(VolumeOperationContext("v", tmp_path, "memory", "uid:0"))
        async with trio.open_nursery() as nursery:
            if in_background:
                nursery.start_soon(backend.run)
            await test(store, backend, await backend.open_directory(root, b"d", 0))
            nursery.cancel_scope.cancel()
        await backend.close()

    return lambda test, size, in_background=True: trio.run(main, test, size, in_background)


def test_large_objects_are_listed_without_a_request_for_each(run):
    async def test(store, backend, directory):
        names = await backend.list_names(directory)
        found = await backend.get_attributes_of(directory, names)
        await wait_all_tasks_blocked()
        assert names == NAMES
        assert {(attributes.size, attributes.provisional) for attributes in found} == {(5000, True)}
        assert not store.heads

    run(test, 5000)


def test_a_name_that_is_looked_up_has_its_own_attributes(run):
    async def test(store, backend, directory):
        await backend.list_names(directory)
        found = await backend.get_attributes(directory, NAMES[0])
        assert (found.mode, found.provisional) == (0o100600, False)

    run(test, 5000)


def test_who_looks_up_names_in_their_order_has_those_that_follow_asked_for_once_each(run):
    async def test(store, backend, directory):
        await backend.list_names(directory)
        await backend.get_attributes(directory, NAMES[0])
        await wait_all_tasks_blocked()
        assert sorted(store.heads) == [f"d/{name.decode()}" for name in NAMES]

    run(test, 5000)


def test_who_looks_up_one_name_asks_for_that_one_only(run):
    async def test(store, backend, directory):
        await backend.list_names(directory)
        await backend.get_attributes(directory, NAMES[7])
        await wait_all_tasks_blocked()
        assert store.heads == [f"d/{NAMES[7].decode()}"]

    run(test, 5000)


@pytest.mark.parametrize(
    ("looked_up", "asked"), [(NAMES[:2], NAMES[:2]), (NAMES[:3], NAMES), (NAMES[:9:4], NAMES[:9:4])]
)
def test_where_nobody_listed_names_the_third_in_order_has_those_that_follow_asked_for(run, looked_up, asked):
    async def test(store, backend, directory):
        for name in looked_up:
            await backend.get_attributes(directory, name)
        await wait_all_tasks_blocked()
        assert sorted(store.heads) == [f"d/{name.decode()}" for name in asked]

    run(test, 5000)


@pytest.mark.parametrize("in_background", [True, False])
def test_small_objects_which_may_be_links_are_asked_for_once_each(run, in_background):
    async def test(store, backend, directory):
        names = await backend.list_names(directory)
        found = await backend.get_attributes_of(directory, names)
        assert {(attributes.mode, attributes.provisional) for attributes in found} == {(0o100600, False)}
        assert sorted(store.heads) == [f"d/{name.decode()}" for name in NAMES]

    run(test, 5, in_background)


class Endless(MemoryObjectStore):
    """Lists as many objects as wanted, and holds none of them."""

    def __init__(self, objects):
        super().__init__()
        self.objects = objects

    async def list_page(self, prefix="", *, delimiter="", page=None, limit=1000):
        first = int(page or 0)
        last = min(first + limit, self.objects)
        found = tuple(ListedObject(f"f{n:08}", 5000, f"{n:032x}", 1_700_000_000) for n in range(first, last))
        return ListPage(found, (), str(last) if last < self.objects else None)


def traced(main, *arguments):
    """Return the most memory that was in use at once, and what was in use at the end, bytes."""
    tracemalloc.start()
    try:
        kept = trio.run(main, *arguments)
        used, peak = tracemalloc.get_traced_memory()
        del kept
        return peak, used
    finally:
        tracemalloc.stop()


def test_a_directory_takes_less_than_a_kilobyte_a_name(tmp_path):
    async def main(objects):
        backend = CachedBackend(Endless(objects), CacheSettings(tmp_path / str(objects), min_free_bytes=0))
        root = await backend.open_volume(VolumeOperationContext("v", tmp_path, "memory", "uid:0"))
        assert len(await backend.list_names(root)) == objects
        return backend

    _, few = traced(main, 1000)
    _, many = traced(main, 31_000)
    assert (many - few) / 30_000 < 1000


def test_counting_takes_the_same_memory_however_many_objects_there_are():
    async def main(objects):
        found = await count_objects(Endless(objects), {}, lambda usage: None)
        assert (found.inodes, found.bytes_) == (objects, 5000 * objects)

    few, _ = traced(main, 5_000)
    many, _ = traced(main, 60_000)
    assert many < few * 1.2 + 100_000
