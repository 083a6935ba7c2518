"""Directories that are renamed: what nobody has looked at yet is kept, and no object of theirs stays behind."""

import stat

import pytest
import trio
import trio.testing

import volumes
from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.object_store import COMMIT_KEY
from volgate.dto import AttributeChanges
from volgate.testing.backend_contract import CONTEXT
from volumes import SlowStore

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


class _WatchedStore(SlowStore):
    """Notes what lies in a directory whose own object is deleted."""

    def __init__(self):
        super().__init__()
        self.left_behind = []

    async def before(self, name, key):
        await super().before(name, key)
        if name == "delete" and key.endswith("/"):
            self.left_behind += [found.key async for found in self.list_objects(key) if found.key != key]


@pytest.mark.parametrize("work", ["rename", "remove"])
def test_a_directory_is_deleted_after_what_lies_in_it(tmp_path, work, monkeypatch):
    store = _WatchedStore()

    async def main():
        async with volumes.opened(store, tmp_path) as volume:
            paths = ["top"]
            for name in "abc":
                paths += [f"top/{name}", f"top/{name}/below"]
            for path in paths:
                await volume.mkdir(path)
            files = [f"{path}/{n}" for path in paths for n in range(4)]
            for path in files:
                await volume.write(path, b"content")
            await volume.backend.drain()
            if work == "rename":
                await volume.rename("top", "moved")
            else:
                for path in files:
                    await volume.remove(path)
                for path in reversed(paths):
                    await volume.remove(path, is_directory=True)
            await volume.backend.drain()
            assert [found.key async for found in store.list_objects("top")] == []
            assert store.left_behind == []

    with volumes.scaled_down(monkeypatch):
        trio.run(main)


def test_a_file_that_moves_while_its_upload_is_about_to_begin_keeps_its_content(tmp_path):
    """What the file is made of lies under the old name: nothing may go before the copy is made."""

    async def main():
        store = MemoryObjectStore()
        async with volumes.opened(store, tmp_path, background=False) as volume:
            await volume.mkdir("d")
            await volume.write("d/f", b"content")
            await volume.backend.drain()
            await volume.backend.set_attributes(*await volume.place("d/f"), 0, AttributeChanges(mode=0o600))
            overlay, moved = volume.backend.overlay, trio.Event()
            sync_all = overlay.sync_all

            async def wait_for_the_move():
                await moved.wait()
                await sync_all()

            overlay.sync_all = wait_for_the_move
            async with trio.open_nursery() as nursery:
                nursery.start_soon(volume.backend.drain)
                await trio.testing.wait_all_tasks_blocked()
                await volume.backend.rename(volume.root, b"d", volume.root, b"e")
                moved.set()
            overlay.sync_all = sync_all
            assert await volume.backend.drain() == 0
            assert await volume.read("e/f") == b"content"
            assert {key for key in store._objects if not key.startswith(".")} == {"e/", "e/f"}

    trio.run(main)
