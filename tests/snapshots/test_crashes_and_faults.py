"""Every call to the storage fails, or the process ends there: snapshots are whole or absent, and show what stood."""

import json
import math
import os
import shutil
import subprocess

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from worked import Worked

from volgate.daemon.activity import Activity
from volgate.daemon.schedule import Schedule
from volgate.daemon.snapshots import routes
from volgate.drivers.posix.backend import PosixBackend
from volgate.errors import InputOutput, NoSpace, NotFound, StorageException, Unavailable
from volgate.testing.faults import Fault, FaultyBackend


class Story:
    """Takes snapshots and changes what is in them; knows what each is to show."""

    def __init__(self, place, fault):
        self.place, self.fault = place, fault
        self.trees = {}
        self.certain = {}

    async def open(self):
        return await Worked.open(self.place, FaultyBackend(PosixBackend(self.place / "data"), self.fault))

    async def run(self):
        self.worked = worked = await self.open()
        for name in ("a", "b", "c", "d"):
            await worked.write(name, name.encode() * 10)
        await self.take("s1")
        self.fault.armed = True
        held = await self.attempt(worked.open_file, "d")
        await self.attempt(worked.write, "a", b"A" * 5)
        await self.attempt(worked.remove, "b")
        await self.attempt(worked.rename, "c", "a")
        await self.take("s2")
        if held is not None:
            await self.attempt(worked.fs.file_io.write, held, 0, b"held")
        await self.attempt(worked.remove, "d")
        if held is not None:
            await self.attempt(worked.fs.file_io.write, held, 2, b"HELD")
            await self.attempt(worked.fs.tree.release, held)
        await self.attempt(worked.set_attributes, "a", size=3)
        await self.take("s3")
        await self.attempt(worked.write, "a", b"new", truncate=True)
        await self.delete("s2")
        await self.attempt(worked.write, "e", b"e")
        self.fault.armed = False

    async def attempt(self, call, *args, **kwargs):
        try:
            return await call(*args, **kwargs)
        except StorageException:
            return None

    async def take(self, name):
        armed, self.fault.armed = self.fault.armed, False
        tree = await self.worked.tree()
        self.fault.armed = armed
        self.trees[name] = tree
        try:
            await self.worked.snapshot(name)
        except StorageException:
            self.certain[name] = None
        else:
            self.certain[name] = True

    async def delete(self, name):
        try:
            await self.worked.volume.snapshots.delete(name)
        except NotFound:
            return
        except StorageException:
            self.certain[name] = None
        else:
            self.certain[name] = False

    async def check(self):
        there = {info.snapshot_id for info in await self.worked.volume.snapshots.list_all()}
        for name, certain in self.certain.items():
            if certain is not None:
                assert (name in there) == certain, name
        for name in there:
            assert await self.worked.tree_of(name) == self.trees[name], name
        await self.worked.check_usage()


def at_every_call(scenario, place, least=50, **what):
    """Play a scenario with a fault at its first call, its second, and so on until there are no more."""
    for number in range(1, 1000):
        fault = Fault(at=number, **what)
        trio.run(scenario, place / str(number), fault)
        if not fault.happened:
            break
    assert least < number < 999


async def fail_once(place, fault):
    place.mkdir()
    story = Story(place, fault)
    await story.run()
    await story.check()
    await story.worked.close()
    story.worked = await Worked.open(place)
    await story.check()
    await story.worked.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [InputOutput("broken"), NoSpace("full")], ids=["EIO", "ENOSPC"])
def test_a_call_that_fails_costs_no_snapshot_its_content(tmp_path, error, after):
    at_every_call(fail_once, tmp_path, error=error, after=after)


async def end_at(place, fault):
    place.mkdir()
    story = Story(place, fault)
    await story.run()
    await story.worked.die()
    story.worked = await Worked.open(place)
    await story.check()
    await story.worked.write("a", b"changed")
    await story.check()
    for info in await story.worked.volume.snapshots.list_all():
        await story.worked.volume.snapshots.delete(info.snapshot_id)
    assert story.worked.preserved() == {}
    await story.worked.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_ends_at_any_call_leaves_snapshots_that_are_whole_or_absent(tmp_path, after):
    at_every_call(end_at, tmp_path, error=InputOutput("the process is gone"), after=after, times=math.inf)


class SlowClones(PosixBackend):
    """Whose clones begin when they are let."""

    let = None

    async def clone(self, file, directory, name):
        if self.let is not None:
            await self.let.wait()
        await super().clone(file, directory, name)


async def give_up(place):
    backend = SlowClones(place / "data")
    worked = await Worked.open(place, backend)
    await worked.write("a", b"before")
    await worked.snapshot("s1")
    tree = await worked.tree()
    held = await worked.open_file("a")
    backend.let = trio.Event()
    for _ in range(2):
        with trio.move_on_after(60) as limit:
            await worked.fs.file_io.write(held, 0, b"AFTER!")
        assert limit.cancelled_caught
        assert await worked.tree() == tree == await worked.tree_of("s1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worked.fs.file_io.write, held, 0, b"AFTER!")
        await trio.sleep(1)
        backend.let.set()
    assert (await worked.tree())["a"][2] == b"AFTER!"
    assert await worked.tree_of("s1") == tree
    await worked.fs.tree.release(held)
    await worked.close()


def test_a_request_that_is_given_up_while_a_content_is_kept_changes_nothing(tmp_path):
    trio.run(give_up, tmp_path, clock=MockClock(autojump_threshold=0))


async def append_while_it_is_unlinked(place):
    backend = SlowClones(place / "data")
    worked = await Worked.open(place, backend)
    await worked.write("a", b"before")
    await worked.snapshot("s1")
    tree = await worked.tree()
    held = await worked.open_file("a")
    backend.let = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worked.remove, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(worked.fs.file_io.write, held, 6, b" and more")
        await trio.testing.wait_all_tasks_blocked()
        backend.let.set()
    assert (await worked.volume.snapshots.list_all())[0].preserved_bytes == 6
    await worked.fs.tree.release(held)
    await worked.check_usage()
    assert worked.volume.gate.info().used_bytes == 0
    assert await worked.tree_of("s1") == tree
    await worked.close()


def test_a_file_that_grows_while_its_name_goes_is_kept_as_it_was_and_counted_as_it_is(tmp_path):
    trio.run(append_while_it_is_unlinked, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"created_at": "yesterday"}, {"created_at": -1}, {"created_at": 1e400}, {"created_at": math.nan},
        {"created_at": None}, {"metadata": None}, {"metadata": {"a": 5}}, {"file_count": -5}, {"used_bytes": "x"},
        {"used_bytes": 1.5}, {"snapshot_id": "../x"}, {"snapshot_id": "s1"}, {"manifest_bytes": "x"},
        {"manifest_sha256": None}, {"other": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_with_a_wrong_field_is_a_damaged_snapshot_and_no_more(tmp_path, wrong):
    async def scenario():
        worked = await Worked.open(tmp_path)
        await worked.write("a", b"a")
        trees = {}
        for name in ("s1", "s2", "s3"):
            await worked.write(name, b"")
            trees[name] = await worked.tree()
            await worked.snapshot(name)
        await worked.close()
        (record,) = tmp_path.glob("data/.volgate/snapshots/*-s2/snapshot.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), **wrong}))
        worked = await Worked.open(tmp_path)
        listed = [(info.snapshot_id, bool(info.damaged)) for info in await worked.volume.snapshots.list_all()]
        assert listed == [("s1", False), ("s2", True), ("s3", False)]
        await worked.write("a", b"changed")
        for name in ("s1", "s3"):
            assert await worked.tree_of(name) == trees[name]
        await worked.volume.snapshots.delete("s2")
        assert await worked.tree_of("s1") == trees["s1"]
        await worked.close()

    trio.run(scenario)


def test_a_directory_whose_name_has_no_id_of_a_snapshot_is_none(tmp_path):
    async def scenario():
        await (await Worked.open(tmp_path)).close()
        stray = tmp_path / "data/.volgate/snapshots/0000000001-no id"
        stray.mkdir()
        (stray / "snapshot.json").write_text("{}")
        worked = await Worked.open(tmp_path)
        assert await worked.volume.snapshots.list_all() == []
        await worked.close()
        assert stray.exists()

    trio.run(scenario)


@pytest.mark.parametrize("without_record", [False, True])
def test_a_content_that_a_backup_by_hard_links_has_too_stays(tmp_path, without_record):
    async def scenario():
        worked = await Worked.open(tmp_path)
        await worked.write("a", b"a")
        await worked.snapshot("s1")
        tree = await worked.tree()
        if without_record:
            await worked.write("b", b"b")
            await worked.snapshot("s2")
        await worked.remove("a")
        await worked.close()
        subprocess.run(["cp", "-al", tmp_path / "data", tmp_path / "backup"], check=True)
        if without_record:
            next(tmp_path.glob("data/.volgate/snapshots/*-s2/snapshot.json")).unlink()
        worked = await Worked.open(tmp_path)
        assert await worked.tree_of("s1") == tree
        await worked.close()
        shutil.rmtree(tmp_path / "backup")
        worked = await Worked.open(tmp_path)
        assert await worked.tree_of("s1") == tree
        await worked.close()

    trio.run(scenario)


def test_a_content_that_is_another_name_of_a_live_file_is_kept_apart_before_that_changes(tmp_path):
    async def scenario():
        worked = await Worked.open(tmp_path)
        for name in ("changed", "removed", "replaced", "cut"):
            await worked.write(name, name.encode())
        await worked.snapshot("s1")
        tree = await worked.tree()
        await worked.die()
        (kept,) = tmp_path.glob("data/.volgate/snapshots/*-s1")
        for name in tree:  # as a crash between the link and the unlink leaves it
            file = tmp_path / "data" / name
            os.link(file, kept / str(file.stat().st_ino))
        worked = await Worked.open(tmp_path)
        assert worked.volume.snapshots.changed_since("s1", None) == {}
        assert await worked.tree_of("s1") == tree
        await worked.write("changed", b"CHANGED")
        await worked.remove("removed")
        await worked.rename("changed", "replaced")
        await worked.set_attributes("cut", size=1)
        assert await worked.tree_of("s1") == tree
        await worked.check_usage()
        assert (tmp_path / "data/cut").stat().st_nlink == 1
        await worked.volume.snapshots.delete("s1")
        assert sorted(await worked.tree()) == ["cut", "replaced"]
        await worked.check_usage()
        await worked.close()

    trio.run(scenario)


class _Away(PosixBackend):
    """Storage that does not answer when what is kept beside the data is asked for."""

    away: StorageException | None = None
    asked = 0

    async def load_reserved(self, name):
        self.asked += 1
        if self.away is not None:
            raise self.away
        return await super().load_reserved(name)


def test_a_schedule_waits_for_storage_that_does_not_answer_at_first(tmp_path):
    async def main():
        worked = await Worked.open(tmp_path, _Away(tmp_path / "data"))
        await Schedule(worked.volume, None, None).set_policy("hourly=2")
        worked.backend.away, worked.backend.asked = Unavailable("it does not answer"), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(routes(worked.fs, None, Activity())[1])
            while worked.backend.asked < 3:
                await trio.sleep(1)
            worked.backend.away = None
            while not await worked.volume.snapshots.list_all():
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await worked.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_daemon_lives_on_where_what_is_noted_of_a_restore_cannot_be_read(tmp_path):
    async def main():
        worked = await Worked.open(tmp_path, _Away(tmp_path / "data"))
        worked.backend.away = InputOutput("it cannot be read")
        with trio.move_on_after(60) as limit:
            await routes(worked.fs, None, Activity())[1]()
        assert limit.cancelled_caught, "it goes on for the schedule that may be set"
        await worked.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))
