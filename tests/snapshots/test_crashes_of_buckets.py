"""Every request to the bucket fails, or the process ends there: snapshots are whole or absent, and show what stood."""

import math

import pytest
import trio
from test_crashes_and_faults import Story, at_every_call
from worked import Worked

import volumes
from volgate.errors import Unavailable, Unsupported
from volgate.testing.faults import Fault
from volumes import HookedStore


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


class FaultyStore(HookedStore):
    """A store whose requests fail as a Fault says."""

    def __init__(self):
        super().__init__()
        self.fault = Fault()
        self.struck = False

    async def before(self, name, key):
        await trio.lowlevel.checkpoint()
        struck = self.fault.strikes(name)
        if struck and not self.fault.after:
            await self.fault.outcome()
        self.struck = struck

    async def after(self, name, key):
        if self.struck:
            await self.fault.outcome()


class BucketStory(Story):
    """The story of a volume of objects; the store outlives the process."""

    def __init__(self, place, fault, store, nursery):
        super().__init__(place, fault)
        self.store, self.nursery = store, nursery

    async def open(self):
        self.store.fault = self.fault
        return await Worked.on_bucket(self.place, self.store, self.nursery)

    async def reopen(self):
        self.store.fault = Fault()
        self.worked = await Worked.on_bucket(self.place, self.store, self.nursery)


async def fail_once(place, fault):
    place.mkdir()
    async with trio.open_nursery() as nursery:
        story = BucketStory(place, fault, FaultyStore(), nursery)
        await story.run()
        await story.check()
        await story.worked.close()
        await story.reopen()
        await story.check()
        await story.worked.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_request_that_fails_costs_no_snapshot_of_a_bucket_its_content(tmp_path, after):
    at_every_call(fail_once, tmp_path, 25, error=Unavailable("not now"), after=after)


async def end_at(place, fault):
    place.mkdir()
    async with trio.open_nursery() as nursery:
        store = FaultyStore()
        story = BucketStory(place, fault, store, nursery)
        await story.run()
        await story.worked.die()
        await story.reopen()
        await story.check()
        await story.worked.write("a", b"changed")
        await story.worked.backend.drain()
        await story.check()
        for info in await story.worked.volume.snapshots.list_all():
            await story.worked.volume.snapshots.delete(info.snapshot_id)
        assert not [key for key in store._objects if key.startswith(".volgate/snapshots/")]
        await story.worked.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_ends_at_any_request_leaves_snapshots_that_are_whole_or_absent(tmp_path, after):
    at_every_call(end_at, tmp_path, 25, error=Unavailable("the process is gone"), after=after, times=math.inf)


def test_what_cannot_be_uploaded_is_in_no_snapshot(tmp_path):
    async def main():
        store = FaultyStore()
        async with trio.open_nursery() as nursery:
            worked = await Worked.on_bucket(tmp_path, store, nursery)
            await worked.write("f", b"content")
            await worked.snapshot("s1")
            tree = await worked.tree()
            store.fault = Fault(error=Unavailable("the bucket is away"), only=("put", "copy"), armed=True)
            await worked.write("f", b"changed")
            with pytest.raises(Unavailable, match="1 changes are not: the bucket is away"):
                await worked.snapshot("s2")
            store.fault.armed = False
            assert [info.snapshot_id for info in await worked.volume.snapshots.list_all()] == ["s1"]
            await worked.snapshot("s2")
            assert await worked.tree_of("s1") == tree
            assert await worked.tree_of("s2") == await worked.tree()
            await worked.close()

    trio.run(main)


def test_a_snapshot_of_a_newer_version_lets_nothing_be_changed(tmp_path):
    """Nobody would know what to keep for it."""

    async def main():
        store = FaultyStore()
        async with trio.open_nursery() as nursery:
            worked = await Worked.on_bucket(tmp_path, store, nursery)
            await worked.write("f", b"content")
            await worked.snapshot("s1")
            await worked.close()
            (record,) = [key for key in store._objects if key.endswith("snapshot.json")]
            (stored, body) = store._objects[record]
            store._objects[record] = stored, body.replace(b'"format": 1', b'"format": 2')
            worked = await Worked.on_bucket(tmp_path, store, nursery)
            await worked.write("f", b"changed")
            assert await worked.backend.drain() == 1
            assert "upgrade volgate" in worked.backend.report().last_error
            with pytest.raises(Unsupported, match="upgrade volgate"):
                await worked.volume.snapshots.list_all()
            assert store._objects["f"][1] == b"content"
            store._objects[record] = stored, body
            assert await worked.backend.drain() == 0
            assert (await worked.tree_of("s1"))["f"][2] == b"content"
            await worked.close()

    trio.run(main)


class LosingStore(HookedStore):
    """Stores a snapshot's record and loses the answer; then it takes nothing more."""

    is_lost = False

    async def before(self, name, key):
        if self.is_lost and name == "delete":
            raise Unavailable("not now")

    async def after(self, name, key):
        if self.is_lost and key.endswith("snapshot.json"):
            raise Unavailable("no answer")


def test_a_creation_that_could_not_be_undone_is_undone_later(tmp_path):
    """Its record is there, so until then all is kept that it would need."""

    async def main():
        store = LosingStore()
        async with trio.open_nursery() as nursery:
            worked = await Worked.on_bucket(tmp_path, store, nursery)
            await worked.write("f", b"content")
            await worked.backend.drain()
            store.is_lost = True
            with pytest.raises(Unavailable):
                await worked.snapshot("s1")
            assert len([key for key in store._objects if key.endswith("snapshot.json")]) == 1
            assert await worked.volume.snapshots.list_all() == []
            await worked.write("f", b"changed")
            await worked.backend.drain()
            assert len([key for key in store._objects if "/kept/" in key]) == 1
            store.is_lost = False
            await worked.snapshot("s1")
            assert (await worked.tree_of("s1"))["f"][2] == b"changed"
            with trio.fail_after(20):
                while len([key for key in store._objects if key.endswith("snapshot.json") or "/kept/" in key]) > 1:
                    await trio.sleep(0.1)
            await worked.close()

    trio.run(main)
