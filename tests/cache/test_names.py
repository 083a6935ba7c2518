"""What a bucket has that others wrote, also what no name can show, and what becomes of it when it is changed."""

import stat

import pytest

from volgate import errors
from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.base import RENAME_EXCHANGE
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import AttributeChanges
from volgate.testing.backend_contract import CONTEXT, OWNER, opened, put

LONG = "n" * 256
UNSHOWN = {
    "d//b": "an empty name",
    "d//": "an empty name",
    "d/./x": "the name . or ..",
    "d/..": "the name . or ..",
    "d/..rclonelink": "the name . or ..",
    "d/a\0b": "a NUL in its name",
    f"d/{LONG}": "a name of more than 255 bytes",
    "d/" + "é" * 128: "a name of more than 255 bytes",
}


class Bucket:
    """A volume over a store in memory. What is not uploaded stays so until ``drain``."""

    def __init__(self, place, ttl_s=60.0):
        self.store = MemoryObjectStore()
        self.settings = CacheSettings(place, min_free_bytes=0, ttl_s=ttl_s)

    async def others_put(self, *keys, body=b"theirs", **options):
        for key in keys:
            await self.store.put(key, b"" if key.endswith("/") else body, **options)

    async def keys(self):
        return [found.key async for found in self.store.list_objects("") if not found.key.startswith(".volgate/")]

    def opened(self):
        return opened(lambda: CachedBackend(self.store, self.settings))


@pytest.fixture
def bucket(tmp_path):
    return Bucket(tmp_path / "cache")


def trio_test(test):
    """Let pytest run an asynchronous test."""
    import functools

    import trio

    @functools.wraps(test)
    def run(**arguments):
        trio.run(functools.partial(test, **arguments))

    return run


async def open_directory(backend, parent, name):
    return await backend.open_directory(parent, name, (await backend.get_attributes(parent, name)).ino)


async def read(backend, directory, name):
    ino = (await backend.get_attributes(directory, name)).ino
    file, _ = await backend.open_file(directory, name, ino, writable=False)
    try:
        return await file.read(0, 1000)
    finally:
        await file.close()


async def count(backend):
    return await backend.count_usage(lambda usage: None)


# -- keys that no name can show ------------------------------------------------------------------------------------


@trio_test
async def test_keys_that_no_name_can_show_are_told_with_the_reason(bucket):
    await bucket.others_put("d/f", *UNSHOWN)
    async with bucket.opened() as (backend, root):
        d = await open_directory(backend, root, b"d")
        assert await backend.list_names(d) == [b"f"]
        told = backend.names.unshown()
        expected = {"d//": "an empty name", "d/./": "the name . or .."}
        expected |= {key: why for key, why in UNSHOWN.items() if key not in ("d//b", "d/./x")}
        assert told == expected


@trio_test
async def test_of_a_file_and_a_directory_of_one_name_the_directory_is_shown_and_the_file_is_told(bucket):
    await bucket.others_put("x", "x/y", "l", "l.rclonelink", "m.rclonelink", "m/n")
    async with bucket.opened() as (backend, root):
        assert sorted(await backend.list_names(root)) == [b"l", b"m", b"x"]
        assert stat.S_ISDIR((await backend.get_attributes(root, b"x")).mode)
        assert stat.S_ISREG((await backend.get_attributes(root, b"l")).mode)
        assert backend.names.unshown() == {
            "x": "a directory has its name",
            "l.rclonelink": "another object has its name",
            "m.rclonelink": "a directory has its name",
        }


@trio_test
async def test_what_others_have_under_the_gateways_own_name_is_told(bucket):
    await bucket.others_put(".snapshots/x", "f")
    async with bucket.opened() as (backend, root):
        assert await backend.list_names(root) == [b"f"]
        assert backend.names.unshown() == {".snapshots/": "a name that the gateway keeps"}
        assert (await count(backend)).inodes == 1


@pytest.mark.parametrize("key", UNSHOWN)
@trio_test
async def test_a_directory_that_holds_what_no_name_can_show_is_not_removed(bucket, key):
    await bucket.others_put("d/", key, "e/f")
    async with bucket.opened() as (backend, root):
        with pytest.raises(errors.DirectoryNotEmpty):
            await backend.remove(root, b"d", is_directory=True)
        with pytest.raises(errors.DirectoryNotEmpty):
            await backend.rename(root, b"e", root, b"d")
        assert await backend.drain() == 0
        assert await bucket.keys() == sorted(["d/", key, "e/f"])


@pytest.mark.parametrize("key", UNSHOWN)
@trio_test
async def test_a_renamed_directory_leaves_behind_what_no_name_can_show_as_it_was(bucket, key):
    await bucket.others_put("d/", "d/f", key)
    async with bucket.opened() as (backend, root):
        await backend.rename(root, b"d", root, b"e")
        e = await open_directory(backend, root, b"e")
        assert await backend.list_names(e) == [b"f"]
        assert await backend.drain() == 0
        assert await bucket.keys() == sorted([key, "e/", "e/f"])
        backend.names.refresh()
        assert sorted(await backend.list_names(root)) == [b"d", b"e"]


@trio_test
async def test_keys_are_never_normalised(bucket):
    keys = sorted([*UNSHOWN, "a/b", "//a", "/", "..", "./a/b", "é/é", "e\u0301/x"])
    await bucket.others_put(*keys)
    async with bucket.opened() as (backend, root):
        for name in await backend.list_names(root):
            directory = await open_directory(backend, root, name)
            for inner in await backend.list_names(directory):
                await backend.set_attributes(directory, inner, 0, AttributeChanges(mode=0o600))
            await put(backend, directory, b"new")
        assert await backend.drain() == 0
        assert await bucket.keys() == sorted([*keys, "a/new", "d/new", "é/new", "e\u0301/new"])


@trio_test
async def test_a_name_that_would_be_rclones_link_is_refused(bucket):
    async with bucket.opened() as (backend, root):
        with pytest.raises(errors.IllegalName):
            await backend.create_file(root, b"x.rclonelink", 0o644, OWNER)
        await put(backend, root, b"f")
        with pytest.raises(errors.IllegalName):
            await backend.rename(root, b"f", root, b"f.rclonelink")
        await backend.create_node(root, b"d.rclonelink", stat.S_IFDIR | 0o755, OWNER)
        assert sorted(await backend.list_names(root)) == [b"d.rclonelink", b"f"]


# -- names that no key can have ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
@trio_test
async def test_a_rename_to_what_is_not_utf_8_is_refused_and_changes_nothing(bucket, kind):
    async with bucket.opened() as (backend, root):
        await backend.create_node(root, b"x", kind | 0o755, OWNER)
        with pytest.raises(errors.IllegalName):
            await backend.rename(root, b"x", root, b"\xff")
        assert await backend.list_names(root) == [b"x"]
        assert await backend.drain() == 0
        assert len(await bucket.keys()) == 1


@trio_test
async def test_a_rename_counts_the_bytes_of_what_lies_below(bucket):
    async with bucket.opened() as (backend, root):
        await backend.create_node(root, b"d", stat.S_IFDIR | 0o755, OWNER)
        at = await open_directory(backend, root, b"d")
        for _ in range(3):
            await backend.create_node(at, b"n" * 250, stat.S_IFDIR | 0o755, OWNER)
            at = await open_directory(backend, at, b"n" * 250)
        await put(backend, at, b"f" * 100)  # a key of 855 bytes
        room = 1024 - 855 + 1
        with pytest.raises(errors.NameTooLong):
            await backend.rename(root, b"d", root, "é".encode() * (room // 2 + 1))
        await backend.create_node(root, b"o" * (room + 1), stat.S_IFDIR | 0o755, OWNER)
        with pytest.raises(errors.NameTooLong):
            await backend.rename(root, b"o" * (room + 1), root, b"d", RENAME_EXCHANGE)
        await backend.rename(root, b"d", root, b"o" * room)
        assert await backend.drain() == 0
        assert max(len(key) for key in await bucket.keys()) == 1024


# -- what is leaving -----------------------------------------------------------------------------------------------


@trio_test
async def test_what_was_removed_or_renamed_here_is_not_there_though_the_bucket_still_has_it(bucket):
    await bucket.others_put("f", "l.rclonelink", "d/x", "d/y", "e/x")
    backend = CachedBackend(bucket.store, bucket.settings)
    root = await backend.open_volume(CONTEXT)  # nothing is uploaded: run() is not
    for name in (b"f", b"l"):
        await backend.remove(root, name, is_directory=False)
    await backend.rename(root, b"d", root, b"new")
    e = await open_directory(backend, root, b"e")
    await backend.remove(e, b"x", is_directory=False)
    await backend.remove(root, b"e", is_directory=True)
    for is_large in (False, True):
        backend.names.refresh()
        backend.names.root.directory.is_large = is_large
        for name in (b"f", b"l", b"d", b"e"):
            assert await backend.find_attributes(root, name) is None, name
    assert await backend.list_names(root) == [b"new"]
    assert await backend.drain() == 0
    assert await bucket.keys() == ["new/x", "new/y"]
    await backend.close()


# -- changes made by others ----------------------------------------------------------------------------------------


@trio_test
async def test_changes_made_by_others_are_seen_at_once_after_a_refresh_and_else_not_before_the_answers_age(bucket):
    await bucket.others_put("kept", "replaced", "deleted", "file")
    async with bucket.opened() as (backend, root):
        before = {name: await backend.get_attributes(root, name) for name in await backend.list_names(root)}
        await bucket.others_put("replaced", body=b"another content")
        await bucket.store.delete("deleted")
        await bucket.store.delete("file")
        await bucket.others_put("file/x", "new")
        assert {name: await backend.get_attributes(root, name) for name in await backend.list_names(root)} == before
        backend.names.refresh()
        after = {name: await backend.get_attributes(root, name) for name in await backend.list_names(root)}
        assert sorted(after) == [b"file", b"kept", b"new", b"replaced"]
        assert after[b"kept"] == before[b"kept"]
        assert stat.S_ISDIR(after[b"file"].mode)
        assert after[b"replaced"].ino != before[b"replaced"].ino
        assert await read(backend, root, b"replaced") == b"another content"


@pytest.mark.parametrize("is_large", [False, True])
@trio_test
async def test_without_a_ttl_each_use_sees_what_the_bucket_has(bucket, is_large):
    bucket.settings = CacheSettings(bucket.settings.directory, min_free_bytes=0, ttl_s=0.0)
    await bucket.others_put("d/f", *(f"d/{n}" for n in range(1500 if is_large else 1)))
    async with bucket.opened() as (backend, root):
        d = await open_directory(backend, root, b"d")
        assert (await backend.get_attributes(d, b"f")).size == 6
        await bucket.others_put("d/f", body=b"longer than before")
        assert (await backend.get_attributes(d, b"f")).size == 18
        await bucket.store.delete("d/f")
        assert await backend.find_attributes(d, b"f") is None
        await bucket.others_put("d/f/g")
        assert stat.S_ISDIR((await backend.get_attributes(d, b"f")).mode)


@trio_test
async def test_attributes_changed_by_others_within_the_second_are_seen_though_etag_and_time_stay(bucket):
    await bucket.others_put("f", metadata={"mode": "33188"})
    async with bucket.opened() as (backend, root):
        assert stat.S_IMODE((await backend.get_attributes(root, b"f")).mode) == 0o644
        await bucket.others_put("f", metadata={"mode": "33152"})
        backend.names.refresh()
        assert stat.S_IMODE((await backend.get_attributes(root, b"f")).mode) == 0o600


@trio_test
async def test_who_holds_a_replaced_object_open_keeps_its_version_or_gets_stale(bucket):
    await bucket.others_put("read", "unread", body=b"old")
    async with bucket.opened() as (backend, root):
        files = {}
        for name in (b"read", b"unread"):
            files[name], _ = await backend.open_file(
                root, name, (await backend.get_attributes(root, name)).ino, writable=False
            )
        assert await files[b"read"].read(0, 10) == b"old"
        await bucket.others_put("read", "unread", body=b"newer")
        backend.names.refresh()
        assert await read(backend, root, b"read") == b"newer"
        assert await files[b"read"].read(0, 10) == b"old"
        with pytest.raises(errors.Stale):
            await files[b"unread"].read(0, 10)
        for file in files.values():
            await file.close()


@trio_test
async def test_a_directory_that_others_emptied_can_be_removed(bucket):
    await bucket.others_put("d/", "d/f")
    async with bucket.opened() as (backend, root):
        d = await open_directory(backend, root, b"d")
        assert await backend.list_names(d) == [b"f"]
        await bucket.store.delete("d/f")
        backend.names.refresh()
        await backend.remove(root, b"d", is_directory=True)
        assert await backend.drain() == 0
        assert await bucket.keys() == []


@trio_test
async def test_a_directory_that_lost_its_marker_to_others_is_still_one_and_can_be_removed(bucket):
    await bucket.others_put("d/", "d/f")
    async with bucket.opened() as (backend, root):
        d = await open_directory(backend, root, b"d")
        await bucket.store.delete("d/")
        backend.names.refresh()
        assert await backend.list_names(d) == [b"f"]
        await backend.get_attributes(root, b"d")
        await backend.remove(d, b"f", is_directory=False)
        await backend.remove(root, b"d", is_directory=True)
        assert await backend.drain() == 0
        assert await bucket.keys() == []


@trio_test
async def test_what_is_changed_here_stands_above_what_others_change(bucket):
    await bucket.others_put("d/f", "g")
    backend = CachedBackend(bucket.store, bucket.settings)
    root = await backend.open_volume(CONTEXT)
    d = await open_directory(backend, root, b"d")
    file, _ = await backend.open_file(d, b"f", (await backend.get_attributes(d, b"f")).ino, writable=True)
    await file.write(0, b"ours")
    await backend.set_attributes(root, b"g", 0, AttributeChanges(mode=0o600))
    await bucket.store.delete("d/f")
    await bucket.others_put("d", "g", body=b"their second")
    backend.names.refresh()
    assert sorted(await backend.list_names(root)) == [b"d", b"g"]
    assert stat.S_ISDIR((await backend.get_attributes(root, b"d")).mode)
    assert stat.S_IMODE((await backend.get_attributes(root, b"g")).mode) == 0o600
    assert await file.read(0, 10) == b"oursrs"
    await file.close()
    assert await backend.drain() == 0, "what others replaced is not overwritten; what they deleted is written again"
    assert stat.S_IMODE((await backend.get_attributes(root, b"g")).mode) == 0o644
    assert await bucket.store.get_range("d/f", 0, 100) == b"oursrs"
    assert await bucket.store.get_range("g", 0, 100) == b"their second"
    await backend.close()


@trio_test
async def test_a_directory_of_too_many_objects_is_not_renamed(bucket, monkeypatch):
    monkeypatch.setattr("volgate.cache.names.MAX_RENAMED", 20)
    await bucket.others_put(*(f"d/{n}" for n in range(21)), *(f"e/{n % 5}/{n}" for n in range(20)))
    async with bucket.opened() as (backend, root):
        for _ in range(2):  # unknown, then known
            with pytest.raises(errors.CrossDevice):
                await backend.rename(root, b"d", root, b"x")
            await backend.list_names(await open_directory(backend, root, b"d"))
        await backend.rename(root, b"e", root, b"x")
        assert await backend.drain() == 0
        assert [key for key in await bucket.keys() if not key.startswith("d/")] == sorted(
            f"x/{n % 5}/{n}" for n in range(20)
        )


@trio_test
async def test_the_root_is_not_counted_though_its_attributes_are_changed_meanwhile(bucket):
    await bucket.others_put("d/f")
    backend = CachedBackend(bucket.store, bucket.settings)
    root = await backend.open_volume(CONTEXT)
    await backend.set_attributes(root, b"", 1, AttributeChanges(mode=0o700))
    counted = await count(backend)
    assert (counted.bytes_, counted.inodes) == (6, 2)
    await backend.close()


@trio_test
async def test_a_rename_whose_copy_was_made_and_whose_reply_was_lost_is_done_and_no_conflict(bucket):
    await bucket.others_put("f")
    backend = CachedBackend(bucket.store, bucket.settings)
    root = await backend.open_volume(CONTEXT)
    await backend.rename(root, b"f", root, b"g")
    copy = bucket.store.copy

    async def copy_unheard(*args, **options):
        bucket.store.copy = copy
        await copy(*args, **options)
        raise errors.Unavailable("nobody heard that it was done")

    bucket.store.copy = copy_unheard
    assert await backend.drain() > 0
    assert await backend.drain() == 0
    assert await bucket.keys() == ["g"]
    await backend.close()
