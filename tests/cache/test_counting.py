"""Counting a bucket by several listings at once gives what one listing gives, whatever its shape."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from volgate import errors
from volgate.cache.counting import count_objects
from volgate.core.object_usage import ObjectUsage
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import Usage

SHAPES = {
    "nothing": [],
    "one directory": [f"d/{n}" for n in range(50)],
    "one directory deep": ["a/" * depth + "f" for depth in range(20)],
    "wide": [f"{n}/f" for n in range(50)],
    "wide below": [f"a/b/{n}/{m}" for n in range(20) for m in range(3)],
    "markers": ["a/", "a/b/", "a/b/c/", "d/"],
    "a file and a directory of one name": ["x", "x/y", "x-", "x/y/z", "d/x", "d/x/y", "l.rclonelink", "l/f"],
    "what no name can show": ["a//b", "/", "//", "a/./b", "n/" + "n" * 256, ".volgate/lease", ".snapshots/x"],
}
keys = st.lists(st.sampled_from(["a", "b", "a-", "", ".", "c.rclonelink", "c"]), min_size=1, max_size=6)
buckets = st.sets(keys.map("/".join).filter(bool), max_size=40)


class SmallPages(MemoryObjectStore):
    def __init__(self, page_size):
        super().__init__()
        self._page_size = page_size

    async def list_page(self, prefix="", *, delimiter="", page=None, limit=1000):
        await trio.lowlevel.checkpoint()
        return await super().list_page(prefix, delimiter=delimiter, page=page, limit=min(limit, self._page_size))


def check(found, page_size):
    async def main():
        store, expected, progress = SmallPages(page_size), ObjectUsage("", {}), []
        for key in sorted(found, key=str.encode):
            await store.put(key, b"" if key.endswith("/") else b"12345")
            expected.add(key, 0 if key.endswith("/") else 5)
        counted = await count_objects(store, {}, progress.append)
        assert counted == Usage(expected.bytes_, expected.inodes)
        assert progress[-1] == counted

    trio.run(main)


@pytest.mark.parametrize("page_size", [1, 7, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_counts_the_same_as_by_one_listing(shape, page_size):
    check(SHAPES[shape], page_size)


@settings(max_examples=100, deadline=None)
@given(buckets, st.integers(1, 9))
def test_any_bucket_counts_the_same_as_by_one_listing(found, page_size):
    check(found, page_size)


@pytest.mark.parametrize("nth", range(1, 10))
def test_what_a_listing_fails_with_is_raised_as_it_is(nth):
    async def main():
        store = SmallPages(10)
        for key in SHAPES["wide below"]:
            await store.put(key, b"")
        calls = 0

        async def list_page(*args, **options):
            nonlocal calls
            calls += 1
            if calls == nth:
                raise errors.Unavailable
            return await SmallPages.list_page(store, *args, **options)

        store.list_page = list_page
        with pytest.raises(errors.Unavailable):
            await count_objects(store, {}, lambda usage: None)

    trio.run(main)
