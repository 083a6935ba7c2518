"""Any sequence of changes of names in a bucket that had something before, against a dictionary.

Uploads happen only where a step says so, so what is pending and what the bucket has meet in all ways.
"""

import stat
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from volgate import errors
from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.testing.backend_contract import CONTEXT, OWNER, put

NAMES = ("a", "b", "a.")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["create", "mkdir", "unlink", "rmdir"]), paths),
        st.tuples(st.just("rename"), paths, paths),
        st.tuples(st.sampled_from(["drain", "refresh", "count", "remount"])),
    ),
    max_size=12,
)
buckets = st.dictionaries(paths, st.booleans(), max_size=4)


def parent_of(path):
    return path.rpartition("/")[0]


class Model:
    """Path to size, None for a directory."""

    def __init__(self, keys):
        self.tree = {"": None}
        for key in keys:
            path = key.rstrip("/")
            self.tree[path] = None if key.endswith("/") else 3
            while path := parent_of(path):
                self.tree[path] = None

    def below(self, path):
        return [found for found in self.tree if found.startswith(path + "/")]

    def make(self, path, size):
        self.check_parent(path)
        if path in self.tree:
            raise errors.AlreadyExists
        self.tree[path] = size

    def check_parent(self, path):
        at = parent_of(path)
        if at not in self.tree:
            while at not in self.tree:
                at = parent_of(at)
            raise errors.NotADirectory if self.tree[at] is not None else errors.NotFound
        if self.tree[at] is not None:
            raise errors.NotADirectory

    def remove(self, path, *, is_directory):
        self.check_parent(path)
        if path not in self.tree:
            raise errors.NotFound
        if is_directory != (self.tree[path] is None):
            raise errors.NotADirectory if is_directory else errors.IsADirectory
        if self.below(path):
            raise errors.DirectoryNotEmpty
        del self.tree[path]

    def rename(self, path, target):
        self.check_parent(path)
        self.check_parent(target)
        if path not in self.tree:
            raise errors.NotFound
        if target == path:
            return
        if target.startswith(path + "/"):
            raise errors.InvalidArgument
        if target in self.tree:
            if self.tree[path] is None and self.tree[target] is not None:
                raise errors.NotADirectory
            if self.tree[path] is not None and self.tree[target] is None:
                raise errors.IsADirectory
            if self.below(target):
                raise errors.DirectoryNotEmpty
        moved = {target + found[len(path) :]: self.tree.pop(found) for found in [path, *self.below(path)]}
        self.tree.update(moved)

    def usage(self):
        return sum(size or 0 for size in self.tree.values()), len(self.tree) - 1


class Volume:
    """The volume under test."""

    def __init__(self, store, place):
        self._store, self._place = store, place

    async def open(self):
        self.backend = CachedBackend(self._store, CacheSettings(self._place, min_free_bytes=0))
        self.root = await self.backend.open_volume(CONTEXT)

    async def at(self, path):
        directory = self.root
        for name in filter(None, path.split("/")):
            attributes = await self.backend.get_attributes(directory, name.encode())
            directory = await self.backend.open_directory(directory, name.encode(), attributes.ino)
        return directory

    async def place_of(self, path):
        return await self.at(parent_of(path)), path.rpartition("/")[2].encode()

    async def tree(self, path=""):
        directory = await self.at(path)
        found = {path: None}
        for name in await self.backend.list_names(directory):
            below = f"{path}/{name.decode()}".lstrip("/")
            attributes = await self.backend.get_attributes(directory, name)
            if stat.S_ISDIR(attributes.mode):
                found |= await self.tree(below)
            else:
                found[below] = attributes.size
        return found

    async def do(self, step, *where):
        backend = self.backend
        if step == "create":
            await put(backend, *await self.place_of(where[0]), b"ours")
        elif step == "mkdir":
            await backend.create_node(*await self.place_of(where[0]), stat.S_IFDIR | 0o755, OWNER)
        elif step == "rename":
            source, target = [await self.place_of(path) for path in where]
            await backend.rename(*source, *target)
        else:
            await backend.remove(*await self.place_of(where[0]), is_directory=step == "rmdir")


def do(model, step, *where):
    if step == "rename":
        model.rename(*where)
    elif step in ("create", "mkdir"):
        model.make(where[0], 4 if step == "create" else None)
    else:
        model.remove(where[0], is_directory=step == "rmdir")


class SmallPages(MemoryObjectStore):
    """Lists two entries at a time, so that every directory is a large one."""

    async def list_page(self, prefix="", *, delimiter="", page=None, limit=1000):
        return await super().list_page(prefix, delimiter=delimiter, page=page, limit=min(limit, 2))


async def check(store, keys, steps, place):
    model = Model(keys)
    for key in keys:
        await store.put(key, b"" if key.endswith("/") else b"123")
    volume = Volume(store, place / "one")
    await volume.open()
    for step, *where in steps:
        if step == "drain":
            assert await volume.backend.drain() == 0
        elif step == "refresh":
            volume.backend.names.refresh()
        elif step == "count":
            counted = await volume.backend.count_usage(lambda usage: None)
            assert (counted.bytes_, counted.inodes) == model.usage()
        elif step == "remount":
            await volume.backend.close()
            await volume.open()
        else:
            expected = actual = None
            try:
                do(model, step, *where)
            except errors.StorageException as error:
                expected = type(error)
            try:
                await volume.do(step, *where)
            except errors.StorageException as error:
                actual = type(error)
            assert actual == expected, (step, where)
        assert await volume.tree() == model.tree, step
        usage = volume.backend.load_usage()
        assert usage is None or (usage.bytes_, usage.inodes) == model.usage()
    await volume.backend.close()
    again = Volume(store, place / "two")
    await again.open()
    assert await again.tree() == model.tree
    counted = await again.backend.count_usage(lambda usage: None)
    assert (counted.bytes_, counted.inodes) == model.usage()
    await again.backend.close()


def keys_of(bucket):
    """Return keys of files and directories, none a file where another is below it."""
    return sorted(
        path + "/" if is_directory else path
        for path, is_directory in bucket.items()
        if is_directory or not any(other.startswith(path + "/") for other in bucket)
    )


@pytest.mark.parametrize("make_store", [MemoryObjectStore, SmallPages])
@settings(max_examples=150, deadline=None)
@given(bucket=buckets, steps=steps)
@example(bucket={"a/b": False}, steps=[("rename", "a", "b"), ("refresh",), ("drain",), ("count",)])
@example(bucket={"a/b": False}, steps=[("rename", "a", "b"), ("refresh",), ("count",)])
@example(bucket={"a/b": False}, steps=[("unlink", "a/b"), ("rmdir", "a"), ("count",)])
@example(bucket={"a/b": False}, steps=[("rename", "a/b", "b"), ("rmdir", "a"), ("count",)])
@example(bucket={"a/a": True, "b/b": False}, steps=[("rename", "a", "b/a")])
@example(bucket={"a/b": False}, steps=[("unlink", "a/b"), ("rmdir", "a"), ("refresh",), ("create", "a"), ("drain",)])
def test_names_are_what_a_dictionary_says_here_and_at_the_next_mount(make_store, bucket, steps):
    with tempfile.TemporaryDirectory() as place:
        trio.run(check, make_store(), keys_of(bucket), steps, Path(place))
