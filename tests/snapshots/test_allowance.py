"""What snapshots keep has a limit of its own: scheduled ones go first, then who needs more is refused."""

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from test_snapshots_of_mounts import listed, snapshot
from test_work_beside import STEP, BucketWork, Work

import mounting
import s3_server
import volumes
from mounting import volgate, wait_until
from volgate.core.retention import parse_policy
from volgate.daemon.schedule import MARK, Schedule
from volgate.dto import VolumeSnapshotContext
from volgate.errors import NoSpace, Unavailable


def problems(mount):
    found = json.loads(volgate("status", mount.path, "--json").stdout)
    return [problem["code"] for problem in found["problems"]], found["snapshots"]


@pytest.fixture
def volume(place):
    with mounting.mounted(place, alarms=True) as mount:
        yield mount


def test_where_nothing_may_go_who_needs_more_is_refused_and_told_why(volume):
    for name in ("a", "b", "c"):
        (volume.path / name).write_bytes(bytes(100_000))
    snapshot(volume, "create", "s1")
    assert "of unlimited" in snapshot(volume, "limit").stdout
    snapshot(volume, "limit", "150000")
    (volume.path / "a").write_bytes(b"changed")
    with pytest.raises(OSError) as refused:
        (volume.path / "b").write_bytes(b"changed")
    assert refused.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as refused:
        (volume.path / "b").unlink()
    assert refused.value.errno == errno.ENOSPC
    assert (volume.path / "b").read_bytes() == bytes(100_000)
    (volume.path / "new").write_bytes(bytes(1 << 20))  # what no snapshot holds is nobody's business
    (volume.path / "new").unlink()
    (volume.path / "a").write_bytes(b"changed again")
    codes, kept = problems(volume)
    assert codes == ["snapshots_full"]
    assert kept == {"kept_bytes": 100_000, "limit_bytes": 150_000, "is_full": True}
    assert "snapshots keep 97.7 KiB of 146.5 KiB" in volgate("status", volume.path).stdout
    assert volgate("status", volume.path, "--ready").returncode != 0
    snapshot(volume, "limit", "1MiB")
    (volume.path / "b").write_bytes(b"changed")
    assert problems(volume)[0] == []
    assert (volume.path / ".snapshots/s1/b").read_bytes() == bytes(100_000)
    assert "more is kept than the limit" in snapshot(volume, "limit", "0").stderr
    with pytest.raises(OSError) as refused:
        (volume.path / "c").unlink()
    snapshot(volume, "delete", "s1")
    (volume.path / "c").unlink()
    assert problems(volume) == ([], {"kept_bytes": 0, "limit_bytes": 0, "is_full": False})


def test_what_was_refused_is_no_problem_any_more_once_a_snapshot_was_deleted(volume):
    (volume.path / "kept").write_bytes(bytes(100_000))
    snapshot(volume, "create", "s1")
    (volume.path / "kept").unlink()
    (volume.path / "f").write_bytes(bytes(100_000))
    snapshot(volume, "create", "s2")
    snapshot(volume, "limit", "150000")
    with pytest.raises(OSError) as refused:
        (volume.path / "f").unlink()
    assert refused.value.errno == errno.ENOSPC and problems(volume)[0] == ["snapshots_full"]
    snapshot(volume, "delete", "s2")
    assert problems(volume)[0] == []
    (volume.path / "f").unlink()


def _change_what_only_the_schedules_snapshot_has(mount):
    """Change what alone is more than snapshots may keep, so that it need not be kept once the schedule's has gone."""
    (mount.path / "large").write_bytes(bytes(100_000))
    (mount.path / "other").write_bytes(bytes(100_000))
    volgate("flush", mount.path)
    snapshot(mount, "limit", "50000")
    snapshot(mount, "schedule", "daily=5")
    wait_until(lambda: len(listed(mount)) == 1, 30)
    with (mount.path / "large").open("wb", buffering=0) as file:
        file.write(b"changed")
        os.fsync(file.fileno())
    assert listed(mount) == []
    snapshot(mount, "create", "of-people")
    with pytest.raises(OSError) as refused, (mount.path / "other").open("r+b", buffering=0) as file:
        file.write(b"changed")
        os.fsync(file.fileno())
    assert refused.value.errno == errno.ENOSPC


def test_a_schedules_snapshot_goes_for_a_change_that_alone_is_more_than_may_be_kept(volume):
    _change_what_only_the_schedules_snapshot_has(volume)


def test_a_schedules_snapshot_of_a_bucket_goes_for_such_a_change_too(place, module_server):
    module_server.make_bucket("alone")
    with s3_server.mounted(module_server, "alone", place, alarms=True) as mount:
        _change_what_only_the_schedules_snapshot_has(mount)
        snapshot(mount, "delete", "of-people")


def test_the_limit_outlives_the_mount(place):
    backing, path = place / "data", place / "mnt"
    backing.mkdir()
    path.mkdir()
    mount = mounting.start(backing, path)
    snapshot(mount, "limit", "1GiB")
    assert mount.stop() == 0
    mount = mounting.start(backing, path)
    assert json.loads(snapshot(mount, "limit", "--json").stdout)["limit_bytes"] == 1 << 30
    assert mount.stop() == 0


def test_snapshots_of_the_schedule_go_before_anybody_is_refused(place):
    with mounting.mounted(place, alarms=True) as mount:
        for name in ("a", "b", "c"):
            (mount.path / name).write_bytes(bytes(100_000))
        snapshot(mount, "schedule", "hourly=2")
        wait_until(lambda: len(listed(mount)) == 1)
        (scheduled,) = listed(mount)
        shown = snapshot(mount, "list")
        assert " schedule  whole" in shown.stdout and "0 B kept of unlimited" in shown.stderr
        (mount.path / "a").write_bytes(b"changed")
        snapshot(mount, "create", "mine")
        snapshot(mount, "limit", "150000")
        (mount.path / "b").write_bytes(b"changed")
        assert [info["snapshot_id"] for info in listed(mount)] == ["mine"]
        assert "a snapshot had to go" in mount.log() and scheduled["snapshot_id"] in mount.log()
        with pytest.raises(OSError) as refused:
            (mount.path / "c").write_bytes(b"changed")
        assert refused.value.errno == errno.ENOSPC
        assert (mount.path / ".snapshots/mine/b").read_bytes() == bytes(100_000)


def test_no_snapshot_goes_where_that_makes_no_room(place):
    with mounting.mounted(place, alarms=True) as mount:
        for name in ("a", "b"):
            (mount.path / name).write_bytes(bytes(100_000))
        snapshot(mount, "create", "mine")
        snapshot(mount, "schedule", "hourly=2")
        wait_until(lambda: len(listed(mount)) == 2)
        (mount.path / "a").unlink()
        snapshot(mount, "limit", "150000")
        for _ in range(2):
            with pytest.raises(OSError) as refused:
                (mount.path / "b").unlink()
            assert refused.value.errno == errno.ENOSPC
        assert len(listed(mount)) == 2
        said = volgate("status", mount.path).stdout
        assert "snapshots keep 97.7 KiB of 146.5 KiB, and 97.7 KiB more are needed" in said


def test_a_bucket_keeps_no_more_and_what_waits_is_told(module_server, place):
    module_server.make_bucket("allowance")
    with s3_server.mounted(module_server, "allowance", place, alarms=True) as mount:
        for name in ("a", "b"):
            (mount.path / name).write_bytes(bytes(100_000))
        snapshot(mount, "create", "s1")
        snapshot(mount, "limit", "150000")
        (mount.path / "a").write_bytes(b"changed")
        (mount.path / "b").write_bytes(b"changed")
        flushed = volgate("flush", mount.path)
        assert flushed.returncode != 0 and "snapshot limit" in flushed.stderr, flushed.stderr
        assert problems(mount)[0] == ["snapshots_full"]
        refused = volgate("snapshot", "create", mount.path, "s2")
        assert refused.returncode != 0 and "snapshot limit" in refused.stderr, refused.stderr
        snapshot(mount, "schedule", "hourly=1")
        wait_until(lambda: problems(mount)[0] == ["snapshots_full", "unscheduled"])
        with open(mount.path / "b", "r+b") as file, pytest.raises(OSError) as no_room:
            os.fsync(file.fileno())
        assert no_room.value.errno == errno.ENOSPC
        snapshot(mount, "delete", "s1")
        assert volgate("flush", mount.path).returncode == 0
        snapshot(mount, "schedule", "hourly=1")  # at once, not when the next is due
        wait_until(lambda: len(listed(mount)) == 1 and problems(mount)[0] == [])


@pytest.fixture(scope="module")
def module_server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


class _Limited:
    """Work with a limit: of two snapshots, one is the schedule's; what is refused changed nothing."""

    limit_bytes = 40

    async def open(self):
        worked = await super().open()
        allowance = worked.volume.snapshots.allowance
        allowance.limit_bytes = self.limit_bytes
        schedule = Schedule(worked.volume, None, self._let_go)
        schedule.policy = parse_policy("hourly=1")
        allowance.make_room = schedule.let_one_go
        return worked

    async def _let_go(self, name):
        await self.worked.volume.snapshots.delete(name)
        del self.taken[name]

    async def check(self):
        await super().check()
        allowance = self.worked.volume.snapshots.allowance
        assert allowance.kept_bytes <= self.limit_bytes
        assert allowance._promised == 0 or isinstance(self, BucketWork)

    async def snapshot(self):
        self.count += 1
        name = f"s{self.count}"
        context = VolumeSnapshotContext(
            self.worked.volume.identity.volume_id, name, Path(".snapshots") / name, 1, MARK if self.count % 2 else {}
        )
        try:
            await self.worked.volume.snapshots.create(context, self.worked.fs.turnstile.closed)
        except Unavailable:  # a bucket's backlog that has no room
            return
        self.taken[name] = await self.worked.tree()


def _forgiving(name):
    async def step(self, *arguments):
        with contextlib.suppress(NoSpace):
            await getattr(super(_Limited, self), name)(*arguments)

    return step


for _name in ("write", "truncate", "remove", "rename", "touch", "write_held", "release", "hold"):
    setattr(_Limited, _name, _forgiving(_name))


class LimitedWork(_Limited, Work):
    pass


class LimitedBucketWork(_Limited, BucketWork):
    pass


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "60")), deadline=None)
@given(st.lists(STEP, max_size=30))
def test_whatever_is_done_no_more_is_kept_than_the_limit(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(LimitedWork(Path(place)).run, steps)


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "60")), deadline=None)
@given(st.lists(STEP, max_size=25), st.integers(0, 1 << 30))
def test_whatever_is_done_a_bucket_keeps_no_more_than_the_limit(steps, seed):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place, pytest.MonkeyPatch.context() as patch:
        with volumes.scaled_down(patch):
            trio.run(LimitedBucketWork(Path(place), seed).run, steps)
