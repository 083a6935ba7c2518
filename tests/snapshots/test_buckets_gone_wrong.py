"""What servers, local disks, other hosts and other tools may do to the snapshots of a bucket."""

import contextlib
import json
import shutil

import pytest
import trio
from test_crashes_of_buckets import FaultyStore
from worked import Worked

import volumes
from volgate.cache.snapshots import bucket
from volgate.core.retention import parse_policy
from volgate.daemon.schedule import MARK, Schedule
from volgate.drivers.object_store import StoreCapabilities
from volgate.errors import InputOutput, NotFound, Stale, StorageException, Unavailable
from volgate.vfs.restoring import Restore
from volgate.volume.snapshots import native
from volumes import HookedStore, SlowStore

BEFORE = b"precious"


@pytest.fixture(autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


@pytest.fixture
def played(tmp_path):
    """Return what runs a story that is given a function, which opens a volume on a store."""

    def play(story):
        async def main():
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:

                    async def open_volume(store):
                        return await Worked.on_bucket(tmp_path, store, nursery)

                    await story(open_volume)
                    nursery.cancel_scope.cancel()

        trio.run(main)

    return play


async def flushed(worked):
    while await worked.backend.drain():
        await trio.sleep(0.01)


def contents(store):
    return {body for _, body in store._objects.values()}


def of_snapshots(store, part=""):
    return [key for key in store._objects if key.startswith(".volgate/snapshots/") and part in key]


@pytest.mark.parametrize("error", [Stale("409 OperationAborted"), NotFound("404 of a proxy")])
def test_a_copy_that_is_refused_for_a_moment_loses_no_content(played, error):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        refusals = [error]

        async def before(name, key):
            if name == "copy" and refusals:
                raise refusals.pop()

        store.before = before
        await worked.write("f", b"changed!")
        await flushed(worked)
        assert not refusals and BEFORE in contents(store)

    played(story)


@pytest.mark.parametrize("error", [Stale("f was deleted"), Unavailable("away for a moment")])
def test_a_snapshot_waits_for_the_next_try_of_an_upload(played, error):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        failures = [error] * 2

        async def before(name, key):
            if name == "put" and key == "f" and failures:
                raise failures.pop()

        store.before = before
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        assert not failures and (await worked.tree_of("s1"))["f"][2] == BEFORE

    played(story)


def test_a_snapshot_is_given_up_where_an_upload_goes_on_failing(played, monkeypatch):
    monkeypatch.setattr(native, "_PATIENCE_S", 0.1)

    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)

        async def before(name, key):
            if name == "put" and key == "f":
                raise Unavailable("away")

        store.before = before
        await worked.write("f", BEFORE)
        with pytest.raises(Unavailable, match="1 changes are not: away"):
            await worked.snapshot("s1")

    played(story)


def test_a_snapshot_that_nobody_sees_takes_no_room(played):
    async def story(open_volume):
        store = FaultyStore()
        worked = await open_volume(store)
        for name in ("f", "g"):
            await worked.write(name, name.encode() * 40)
        await flushed(worked)
        away = True

        async def before(name, key):
            if away and "snapshot.json" in key:
                raise Unavailable("away")

        store.before = before
        with pytest.raises(Unavailable):
            await worked.snapshot("s1")
        away = False
        worked.volume.snapshots.allowance.limit_bytes = 50
        for name in ("f", "g"):
            await worked.write(name, b"changed")
        await flushed(worked)
        assert worked.volume.snapshots.allowance.kept_bytes == 0 and of_snapshots(store) == []

    played(story)


def test_what_is_kept_while_a_damaged_snapshot_is_deleted_stays(played, tmp_path):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        for number in range(1500):
            await worked.write(f"f{number}", b"precious %d" % number)
        for name in ("s1", "bad", "s3"):
            await worked.snapshot(name)
        await worked.close()
        shutil.rmtree(tmp_path / "cache")
        (manifest,) = of_snapshots(store, "-bad/manifest.db")
        await store.put(manifest, b"nonsense")
        worked = await open_volume(store)
        assert [bool(info.damaged) for info in await worked.volume.snapshots.list_all()] == [False, True, False]

        async def write():
            for number in range(0, 1500, 10):
                await worked.write(f"f{number}", b"changed")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while worked.volume.snapshots.allowance.kept_bytes < 100:
                await trio.lowlevel.checkpoint()
            await worked.volume.snapshots.delete("bad")
        await flushed(worked)
        assert {b"precious %d" % number for number in range(1500)} <= contents(store)

    played(story)


@pytest.mark.parametrize("what", ["create", "delete"])
def test_who_lost_the_volume_to_another_host_changes_no_snapshots(played, what):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        lease = worked.backend._lease
        record = json.loads(store._objects[".volgate/lease"][1])
        record |= {"epoch": record["epoch"] + 1, "grant": "other", "holder": {"host": "other"}}
        await store.put(".volgate/lease", json.dumps(record).encode())
        await lease._write(lease._holding)
        assert lease.state == "lost"
        before = set(store._objects)
        with pytest.raises(StorageException, match="another host"):
            await (worked.snapshot("s2") if what == "create" else worked.volume.snapshots.delete("s1"))
        assert set(store._objects) == before

    played(story)


def test_gc_leaves_copies_alone_that_are_under_way(played):
    async def story(open_volume):
        store = HookedStore()
        store.max_put_bytes = 100
        worked = await open_volume(store)
        await worked.write("f", BEFORE * 100)
        await worked.snapshot("s1")
        started, go_on = trio.Event(), trio.Event()

        async def before(name, key):
            if name == "copy_part" and "/kept/" in key:
                started.set()
                await go_on.wait()

        store.before = before
        await worked.write("f", b"changed!", truncate=True)
        await started.wait()
        assert (await worked.backend.collect_garbage(0)).uploads == 0
        go_on.set()
        await flushed(worked)
        assert BEFORE * 100 in contents(store)

    played(story)


def test_a_full_local_disk_keeps_uploads_waiting_and_ends_no_daemon(played, tmp_path, monkeypatch):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        await worked.close()
        shutil.rmtree(tmp_path / "cache/snapshots")
        real = trio.open_file

        async def full(path, *args, **kwargs):
            if str(path).endswith(".new"):
                raise OSError(28, "No space left on device")
            return await real(path, *args, **kwargs)

        monkeypatch.setattr(trio, "open_file", full)
        worked = await open_volume(store)
        await worked.write("f", b"changed", truncate=True)
        assert await worked.backend.drain() == 1
        monkeypatch.setattr(trio, "open_file", real)
        await flushed(worked)
        assert {BEFORE, b"changed"} <= contents(store)

    played(story)


class Unconditional(HookedStore):
    """A server that heeds no condition of a deletion, nor of a put."""

    @property
    def capabilities(self):
        return StoreCapabilities(conditional_copy=True, checksums=True)

    async def put(self, key, body, **kwargs):
        return await super().put(key, body, **{**kwargs, "if_absent": False, "if_match": None})


@pytest.mark.parametrize("what", ["remove", "write"])
def test_what_others_put_there_is_seen_before_it_goes_though_the_server_heeds_no_condition(played, what):
    theirs = b"by others, before the snapshot"

    async def story(open_volume):
        store = Unconditional()
        worked = await open_volume(store)
        await worked.write("f", b"mine")
        await flushed(worked)
        await worked.tree()
        await store.put("f", theirs)
        await worked.snapshot("s1")
        await (worked.remove("f") if what == "remove" else worked.write("f", b"mine again"))
        with contextlib.suppress(StorageException):
            await worked.backend.drain()
        assert theirs in contents(store)

    played(story)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff", b'{"format": 1}',
        b'{"format": 1, "created_at": null, "listed_at": 0, "manifest_bytes": 3, "manifest_sha256": "x"}',
        b'{"format": 1, "created_at": 1, "listed_at": 0, "manifest_bytes": -3, "manifest_sha256": "x"}',
        b'{"format": 1, "created_at": 1, "listed_at": 0, "manifest_bytes": 1, "manifest_sha256": 7}',
        b'{"format": 1, "created_at": -1, "listed_at": 0, "manifest_bytes": 1, "manifest_sha256": "x"}',
        b'{"format": 1, "created_at": 1e400, "listed_at": 0, "manifest_bytes": 1, "manifest_sha256": "x"}',
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_damage_and_can_be_deleted(played, body):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        for name in ("s1", "s2"):
            await worked.snapshot(name)
        await worked.close()
        await store.put(of_snapshots(store, "-s1/snapshot.json")[0], body)
        worked = await open_volume(store)
        await worked.write("f", b"changed")
        await flushed(worked)
        assert [bool(info.damaged) for info in await worked.volume.snapshots.list_all()] == [True, False]
        await worked.volume.snapshots.delete("s1")
        assert (await worked.tree_of("s2"))["f"][2] == BEFORE
        await worked.volume.snapshots.delete("s2")
        assert of_snapshots(store) == []

    played(story)


def test_an_answer_that_breaks_off_while_snapshots_are_looked_for_costs_none_its_content(played, tmp_path):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        await worked.close()
        shutil.rmtree(tmp_path / "cache")
        breaks = [InputOutput("the answer ended too early")] * 2

        async def before(name, key):
            if name == "get_range" and key.endswith("manifest.db") and breaks:
                raise breaks.pop()

        store.before = before
        worked = await open_volume(store)
        await worked.write("f", b"changed")
        await flushed(worked)
        assert not breaks and BEFORE in contents(store)
        assert [info.damaged for info in await worked.volume.snapshots.list_all()] == [""]

    played(story)


def test_what_is_kept_is_known_soon_after_a_mount(played):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await worked.snapshot("s1")
        await worked.write("f", b"changed")
        await flushed(worked)
        await worked.close()
        worked = await open_volume(store)
        while worked.volume.snapshots.allowance.kept_bytes != len(BEFORE):
            await trio.sleep(0.001)

    played(story)


def test_no_snapshot_goes_for_what_can_never_fit(played):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        snapshots = worked.volume.snapshots
        await worked.write("big", b"x" * 60)
        await worked.snapshot("mine")
        for number in range(3):
            await worked.snapshot(f"auto{number}", MARK)
        schedule = Schedule(worked.volume, None, snapshots.delete)
        schedule.policy = parse_policy("hourly=5")
        snapshots.allowance.limit_bytes, snapshots.allowance.make_room = 50, schedule.let_one_go
        await worked.write("big", b"changed", truncate=True)
        assert await worked.backend.drain() == 1
        assert len(await snapshots.list_all()) == 4

    played(story)


def test_a_creation_that_failed_is_undone_once_however_many_want_its_room(played):
    async def story(open_volume):
        store = SlowStore(4)
        worked = await open_volume(store)
        for number in range(12):
            await worked.write(f"f{number}", b"%02d" % number * 20)
        await flushed(worked)
        away, slow = True, store.before

        async def before(name, key):
            await slow(name, key)
            if away and "snapshot.json" in key:
                raise Unavailable("away")

        store.before = before
        with pytest.raises(Unavailable):
            await worked.snapshot("s1")
        away = False
        worked.volume.snapshots.allowance.limit_bytes = 100
        for number in range(12):
            await worked.write(f"f{number}", b"n", truncate=True)
        await flushed(worked)
        while of_snapshots(store):
            await trio.sleep(0.01)

    played(story)


def test_a_failed_creation_keeps_the_volume_standing_still_no_longer_than_it_takes_to_fail(played):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("f", BEFORE)
        await flushed(worked)
        never = trio.Event()

        async def before(name, key):
            if name == "delete":
                await never.wait()
            if key.endswith("snapshot.json"):
                raise Unavailable("away")

        store.before = before
        with pytest.raises(Unavailable):
            await worked.snapshot("s1")
        await worked.write("f", b"changed")  # nobody waits for what is deleted in the background
        never.set()

    played(story)


def test_a_name_that_cannot_be_asked_for_is_an_error_of_its_listing_and_not_left_out(played):
    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        for name in ("a", "b"):
            await worked.write(name, name.encode())
        await worked.snapshot("s1")
        await worked.close()
        worked = await open_volume(store)

        async def before(name, key):
            if name == "head" and key == "b":
                raise Unavailable("expired")

        store.before = before
        for place in ("", "s1"):
            with pytest.raises(Unavailable, match="expired"):
                await worked.tree(place, worked.fs.shown if place else None)
        store.before = HookedStore.before.__get__(store)
        assert (await worked.tree_of("s1")).keys() == {"a", "b"}

    played(story)


def test_attributes_that_are_lost_are_restored_to_nobody(played):
    """Others deleted objects whose content is nothing: what they were like is not known any more."""

    async def story(open_volume):
        store = HookedStore()
        worked = await open_volume(store)
        await worked.write("empty", b"")
        await worked.set_attributes("empty", mode=0o600)
        await worked.mkdir("d")
        await worked.set_attributes("d", mode=0o700)
        await worked.write("kept", BEFORE)
        await worked.snapshot("s1")
        await worked.close()
        for key in ("empty", "d/"):
            await store.delete(key)
        worked = await open_volume(store)
        await worked.remove("kept")
        restore = Restore(worked.fs, "s1", b"", "work")
        with pytest.raises(Stale, match="lost"):
            await restore.run(await restore.plan())
        tree = await worked.tree()
        assert tree["kept"][2] == BEFORE and "empty" not in tree

    played(story)


def test_a_scheduled_snapshot_that_somebody_deletes_at_once_is_no_error(played):
    async def story(open_volume):
        worked = await open_volume(HookedStore())
        snapshots = worked.volume.snapshots
        await worked.write("f", b"x" * 40)
        for number in range(2):
            await worked.snapshot(f"auto{number}", MARK)

        async def delete(name):
            await snapshots.delete(name)
            await snapshots.delete(name)  # by another hand, so it is not there

        schedule = Schedule(worked.volume, None, delete)
        snapshots.allowance.limit_bytes, snapshots.allowance.make_room = 50, schedule.let_one_go
        await worked.write("f", b"changed", truncate=True)
        await worked.write("f", b"again", truncate=True)
        assert await worked.backend.drain() == 0

    played(story)


def test_a_cache_may_lie_in_a_directory_of_any_name(tmp_path):
    async def main():
        async with trio.open_nursery() as nursery:
            place = tmp_path / "100% of #1?"
            place.mkdir()
            worked = await Worked.on_bucket(place, HookedStore(), nursery)
            await worked.write("f", BEFORE)
            await worked.snapshot("s1")
            assert (await worked.tree_of("s1"))["f"][2] == BEFORE
            await worked.close()

    trio.run(main)


def test_a_snapshot_may_be_deleted_while_it_is_measured(played, monkeypatch):
    monkeypatch.setattr(bucket, "_ROWS_AT_ONCE", 1)

    async def story(open_volume):
        worked = await open_volume(HookedStore())
        for number in range(1500):
            await worked.write(f"f{number}", b"x")
        await worked.snapshot("s1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worked.volume.snapshots.measure_kept, {"s1"})
            nursery.start_soon(worked.volume.snapshots.delete, "s1")

    played(story)
