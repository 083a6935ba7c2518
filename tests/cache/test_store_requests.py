"""How many requests the bucket is asked: counted, so that no change makes them more unnoticed."""

from collections import Counter

import attrs
import trio

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import AttributeChanges
from volgate.testing.backend_contract import CONTEXT, get, make_directory, put


class CountingStore(MemoryObjectStore):
    """Counts calls, but for those of opening and closing a volume."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    async def head(self, key):
        self.calls["head"] += 1
        return await super().head(key)

    async def list_page(self, *args, **options):
        self.calls["list"] += 1
        return await super().list_page(*args, **options)

    async def get_range(self, *args, **options):
        self.calls["get"] += 1
        return await super().get_range(*args, **options)

    async def put(self, *args, **options):
        self.calls["put"] += 1
        return await super().put(*args, **options)

    async def copy(self, *args, **options):
        self.calls["copy"] += 1
        return await super().copy(*args, **options)

    async def delete(self, *args, **options):
        self.calls["delete"] += 1
        return await super().delete(*args, **options)


def asked(tmp_path, do, ttl_s=60.0, prepare=None):
    """Return what was asked while ``do(backend, root)`` ran and until the bucket had it all."""
    store = CountingStore()

    async def main():
        if prepare is not None:
            await prepare(store)
        backend = CachedBackend(store, CacheSettings(tmp_path, min_free_bytes=0, ttl_s=ttl_s))
        root = await backend.open_volume(CONTEXT)
        await backend.list_snapshots()  # looked for once, with the first thing that is uploaded
        store.calls.clear()
        await do(backend, root)
        await backend.drain()
        found = dict(store.calls)
        await backend.close()
        return found

    return trio.run(main)


def test_a_new_file_with_its_attributes_and_its_name_is_one_put(tmp_path):
    async def do(backend, root):
        directory = await make_directory(backend, root, b"d")
        ino = await put(backend, directory, b"f.new", b"content")
        await backend.set_attributes(directory, b"f.new", ino, AttributeChanges(mode=0o600, mtime_ns=1))
        await backend.rename(directory, b"f.new", directory, b"f")
        assert await get(backend, directory, b"f") == b"content"

    assert asked(tmp_path, do) == {"list": 1, "put": 2}  # the root was asked for "d"; the directory and the file


def test_what_comes_and_goes_before_its_upload_costs_nothing(tmp_path):
    async def do(backend, root):
        directory = await make_directory(backend, root, b"d")
        await put(backend, directory, b"f", b"content")
        await backend.remove(directory, b"f", is_directory=False)
        await backend.remove(root, b"d", is_directory=True)

    assert asked(tmp_path, do) == {"list": 1}


def test_a_directory_is_asked_for_once_whatever_names_are_looked_up_in_it(tmp_path):
    async def prepare(store):
        for number in range(10):
            await store.put(f"f{number}", b"x")

    async def do(backend, root):
        for number in range(20):
            await backend.find_attributes(root, b"f%d" % number)
        await backend.list_names(root)

    assert asked(tmp_path, do, prepare=prepare) == {"list": 1, "head": 10}


def test_a_rename_of_a_file_in_the_bucket_is_a_copy_and_a_delete(tmp_path):
    async def prepare(store):
        await store.put("f", b"x" * 10)

    async def do(backend, root):
        await backend.rename(root, b"f", root, b"g")

    # The look at "g" before the copy: a copy has no condition for its target.
    assert asked(tmp_path, do, prepare=prepare) == {"list": 1, "head": 2, "copy": 1, "delete": 1}


def test_what_was_uploaded_here_is_not_asked_for_again_by_a_listing(tmp_path):
    async def do(backend, root):
        for number in range(5):
            await put(backend, root, b"f%d" % number, b"x")
        await backend.drain()
        backend.names.refresh()
        await backend.list_names(root)
        await backend.get_attributes_of(root, [b"f%d" % number for number in range(5)])

    assert asked(tmp_path, do) == {"list": 2, "put": 5}


def test_what_is_read_once_is_not_kept_on_disk_where_it_is_small_and_not_asked_for_twice(tmp_path):
    store, contents = CountingStore(), {b"small": bytes(range(256)) * 256, b"large": bytes(range(251)) * 20_000}

    async def main():
        for name, content in contents.items():
            await store.put(name.decode(), content)
        backend = CachedBackend(store, CacheSettings(tmp_path, min_free_bytes=0))
        backend.reads_once = True
        root = await backend.open_volume(attrs.evolve(CONTEXT, read_only=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            for name, content in contents.items():
                before = Counter(store.calls)
                assert await get(backend, root, name) == await get(backend, root, name) == content
                assert (backend.report().cached_bytes > 0) == (name == b"large")
                assert (store.calls - before)["get"] == 1, store.calls
            nursery.cancel_scope.cancel()
        await backend.close()

    trio.run(main)
