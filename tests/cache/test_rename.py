"""A directory renamed before anybody looked at what is in it keeps what the bucket says of its files."""

import stat

import pytest
import trio

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.object_store import COMMIT_KEY
from volgate.testing.backend_contract import CONTEXT

METADATA = {"mode": str(stat.S_IFREG | 0o600), "uid": "5", "gid": "6", "mtime": "7.000000008"}


def is_kept(attributes):
    return (stat.S_IMODE(attributes.mode), attributes.uid, attributes.gid, attributes.mtime_ns) == (
        0o600, 5, 6, 7_000_000_008,
    )  # fmt: skip


@pytest.mark.parametrize("when", ["before its upload", "after a crash", "in the bucket"])
def test_attributes_that_nobody_asked_for_survive_the_rename_of_their_directory(tmp_path, when):
    store = MemoryObjectStore()

    def opened():
        return CachedBackend(store, CacheSettings(tmp_path, min_free_bytes=0))

    async def main():
        await store.put("old/f", b"content", metadata=METADATA)
        backend = opened()
        root = await backend.open_volume(CONTEXT)
        await backend.rename(root, b"old", root, b"new")
        if when == "in the bucket":
            await backend.close()
            stored = dict((await store.head("new/f")).metadata)
            assert stored.pop(COMMIT_KEY) and stored == METADATA
            return
        if when == "after a crash":
            backend._held.close()  # its locks and files, and nothing else
            backend = opened()
            root = await backend.open_volume(CONTEXT)
        directory = await backend.open_directory(root, b"new", 0)
        assert is_kept(await backend.get_attributes(directory, b"f"))
        await backend.close()

    trio.run(main)
