"""Requests of a volume of objects that fail, are lost, or meet what others did: nothing is lost, all comes right."""

import contextlib
import tempfile
from pathlib import Path

import pytest
import trio
from test_crash_points import WORK, begin, unlink_what_is_new

import volumes
from volgate.cache import uploads
from volgate.errors import InputOutput, PermissionDenied, Stale, Unavailable
from volumes import HookedStore


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


class FailingStore(HookedStore):
    """Fails at its n-th request that changes something, before or after it did that, or while it is down."""

    def __init__(self, error=None, *, late=False):
        super().__init__()
        self.error, self.late = error or Unavailable("the server answers 503"), late
        self.at = 0
        self.calls = 0
        self.is_down = False

    def strikes(self, name):
        return self.is_down or (name in volumes.CHANGES and self.calls == self.at)

    async def before(self, name, key):
        self.calls += name in volumes.CHANGES
        if not self.late and self.strikes(name):
            raise self.error

    async def after(self, name, key):
        if self.late and self.strikes(name):
            raise self.error


async def drained(volume):
    while await volume.backend.drain():
        await trio.sleep(0.001)


async def work_with_a_fault(store, folder, work):
    """Return whether the fault came; and prove that in the end all is as it is to be."""
    async with volumes.opened(store, folder / "cache") as volume:
        await volume.backend.count_usage(lambda usage: None)
        await begin(volume)
        store.at += store.calls
        try:
            await work(volume)
        except Unavailable:
            assert work.__name__ == "write_into"  # the only one that waits for the bucket
        tree = await volume.tree()
        await drained(volume)
        came = store.calls >= store.at
        assert await volume.tree() == tree
        assert await volumes.count(store) == volume.backend.load_usage()
        assert not list((folder / "cache/staging").iterdir())
        assert not (await store.list_page(".volgate/aside/")).objects
    async with volumes.opened(store, folder / "empty") as volume:
        assert await volume.tree() == tree
    return came


@pytest.mark.parametrize("late", [False, True], ids=["refused", "reply-lost"])
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_whichever_request_fails_the_bucket_has_in_the_end_what_was_written(work, late, folder):
    for at in range(1, 100):
        store = FailingStore(late=late)
        store.at = at
        if not trio.run(work_with_a_fault, store, folder / str(at), work):
            assert at > 1 or work is unlink_what_is_new  # it may be gone before anything was sent
            return
    raise AssertionError("it never came to an end")


def test_writing_goes_on_while_the_server_is_down_and_fsync_says_so(folder):
    async def main():
        store = FailingStore()
        async with volumes.opened(store, folder / "cache") as volume:
            await volume.write("before", b"1")
            store.is_down = True
            await volume.write("small", b"content")
            await volume.write("large", b"large" * 50)
            file = await volume.open("small")
            await file.write(0, b"CONTENT")
            with pytest.raises(Unavailable):
                await file.sync(data_only=False)
            await file.close()
            assert await volume.read("small") == b"CONTENT"
            store.is_down = False
            await drained(volume)
            assert await store.get_range("small", 0, 100) == b"CONTENT"
            assert await store.get_range("large", 0, 1000) == b"large" * 50

    trio.run(main)


def test_a_refused_credential_is_no_refused_file(folder):
    async def main():
        store = FailingStore(PermissionDenied("the key has expired"))
        async with volumes.opened(store, folder / "cache") as volume:
            await volume.write("before", b"1")
            store.is_down = True
            await volume.write("before", b"content")
            assert await volume.backend.drain() == 1
            assert volume.backend.backlog().refused == 0
            store.is_down = False
            await drained(volume)
            assert await store.get_range("before", 0, 100) == b"content"

    trio.run(main)


def test_what_another_writer_put_under_a_name_stays_and_ours_is_kept_here(folder):
    async def main():
        store = HookedStore()
        async with volumes.opened(store, folder / "cache", background=False) as volume:
            await volume.write("name", b"ours")
            await store.put("name", b"theirs")
            assert await volume.backend.drain() == 1
            assert volume.backend.backlog().refused == 1
            assert await volume.read("name") == b"theirs"
            assert await store.get_range("name", 0, 100) == b"theirs"

    trio.run(main)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_rename_whose_source_others_changed_is_refused_and_overwrites_nothing(change, folder):
    async def main():
        store = HookedStore()
        await store.put("source", b"theirs")
        async with volumes.opened(store, folder / "cache", background=False) as volume:
            await volume.rename("source", "target")
            if change == "deleted":
                await store.delete("source")
            else:
                await store.put("source", b"changed")
            assert await volume.backend.drain() >= 1
            assert volume.backend.backlog().refused == 1
            assert [found.key async for found in store.list_objects()] == ["source"][change == "deleted" :]

    trio.run(main)


class ContradictingStore(HookedStore):
    """Says that a condition failed which holds, as often as it is told to."""

    def __init__(self):
        super().__init__()
        self.times = 0

    async def before(self, name, key):
        if name == "put" and key == "name" and self.times:
            self.times -= 1
            raise Stale("name was deleted")


@pytest.mark.parametrize(("times", "said"), [(3, None), (1000, Unavailable)])
def test_fsync_waits_where_the_server_contradicts_itself_and_never_says_that_others_changed_the_file(
    folder, monkeypatch, times, said
):
    monkeypatch.setattr(uploads, "_CONTRADICTED_S", 0.001)

    async def main():
        store = ContradictingStore()
        async with volumes.opened(store, folder / "cache", background=False) as volume:
            await volume.write("name", b"first")
            await drained(volume)
            file = await volume.open("name")
            await file.write(0, b"FIRST")
            store.times = times
            with pytest.raises(said) if said else contextlib.nullcontext():
                await file.sync(data_only=False)
            store.times = 0
            await file.close()
            await drained(volume)
            assert volume.backend.backlog().refused == 0
            assert await store.get_range("name", 0, 100) == b"FIRST"

    trio.run(main)


class InterruptingStore(HookedStore):
    """Does something of the test's own before it gives a range."""

    def __init__(self):
        super().__init__()
        self.meanwhile = None

    async def before(self, name, key):
        if name == "get_range" and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()


@pytest.mark.parametrize("change", ["write", "cut"])
def test_a_file_that_changes_while_its_upload_reads_it_is_not_refused(folder, change):
    async def main():
        store = InterruptingStore()
        async with volumes.opened(store, folder / "one") as volume:
            await volume.write("f", bytes(60))
            await drained(volume)
        (folder / "two").mkdir()
        async with volumes.opened(store, folder / "two", background=False) as volume:
            file = await volume.open("f")
            await file.write(0, b"staged")
            await file.write(50, b"staged")
            store.meanwhile = lambda: file.write(20, b"more") if change == "write" else file.truncate(20)
            await file.sync(data_only=False)
            assert store.meanwhile is None
            await file.close()
            await drained(volume)
            assert volume.backend.backlog().refused == 0
            content = b"staged".ljust(20, b"\0") + (b"more".ljust(30, b"\0") + b"staged\0\0\0\0") * (change == "write")
            assert await store.get_range("f", 0, 100) == content

    trio.run(main)


class RefusingStore(HookedStore):
    """Does something of the test's own before it takes the first part of an upload; may refuse that part then."""

    def __init__(self, refuses):
        super().__init__()
        self.meanwhile = None
        self.refuses = refuses

    async def before(self, name, key):
        if name == "put_part" and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
            if self.refuses:
                raise InputOutput("a part that is not wanted any more")


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("size", [0, 20])
def test_a_file_that_is_written_anew_while_what_it_had_is_uploaded_is_not_refused(folder, size, refuses):
    async def main():
        store = RefusingStore(refuses)
        async with volumes.opened(store, folder / "one") as volume:
            await volume.write("f", bytes(60))
            await drained(volume)
            file = await volume.open("f")

            async def write_anew():
                await file.truncate(0)
                await file.write(0, b"n" * size)

            await file.write(0, b"x" * 320)  # more parts than are uploaded at once
            store.meanwhile = write_anew
            await file.sync(data_only=False)
            assert store.meanwhile is None
            await file.close()
            await drained(volume)
            assert volume.backend.backlog().refused == 0
            assert await store.get_range("f", 0, 400) == b"n" * size

    trio.run(main)
