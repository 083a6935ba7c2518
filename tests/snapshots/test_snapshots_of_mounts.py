"""Snapshots of real mounts: what users see of them, and what writing beside them may and may not do."""

import contextlib
import errno
import http.client
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

import mounting
from mounting import in_child, used_of, volgate, walk_usage


def snapshot(mount, *arguments):
    done = volgate("snapshot", *arguments[:1], mount.path, *arguments[1:])
    assert done.returncode == 0, done.stderr
    return done


def listed(mount):
    return json.loads(snapshot(mount, "list", "--json").stdout)


def describe(path):
    """Return all that a tree shows, numbers of inodes left out."""
    found = {}
    for above, folders, files in os.walk(path):
        for name in folders + files:
            here = os.path.join(above, name)
            status = os.lstat(here)
            content = None
            if stat.S_ISREG(status.st_mode):
                with open(here, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(here)
            xattrs = {
                key: os.getxattr(here, key, follow_symlinks=False) for key in os.listxattr(here, follow_symlinks=False)
            }
            found[os.path.relpath(here, path)] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, xattrs, content,
                status.st_nlink if stat.S_ISREG(status.st_mode) else None,
            )  # fmt: skip
    return found


def fill(path):
    (path / "folder/below").mkdir(parents=True)
    (path / "empty").mkdir(mode=0o700)
    (path / "folder/one").write_bytes(b"one" * 1000)
    (path / "folder/below/two").write_bytes(b"")
    os.link(path / "folder/one", path / "again")
    os.symlink("folder/one", path / "link")
    os.mkfifo(path / "fifo", 0o640)
    os.setxattr(path / "folder", "user.kind", b"a folder")
    os.setxattr(path / "folder/one", "user.kind", b"a file")
    os.chmod(path / "folder/one", 0o4755)
    os.chown(path / "folder/below/two", 1234, 5678)
    os.utime(path / "folder/below/two", ns=(10**18, 10**18 + 7))
    with open(path / "sparse", "wb") as file:
        os.truncate(file.fileno(), 1 << 30)
        file.seek(1 << 29)
        file.write(b"in the middle")


def small(path):
    return {name: found for name, found in describe(path).items() if name != "sparse"}


def test_a_snapshot_shows_all_there_was_and_nothing_of_what_came_later(volume):
    fill(volume.path)
    before = small(volume.path)
    snapshot(volume, "create", "s1")
    view = volume.path / ".snapshots/s1"
    assert small(view) == before
    for name in ("folder/one", "folder/below/two", "sparse"):
        (volume.path / name).write_bytes(b"changed")
    shutil.move(volume.path / "folder", volume.path / "moved")
    for name in ("link", "again"):
        (volume.path / name).unlink()
    (volume.path / "new").write_bytes(b"new")
    assert small(view) == before
    with open(view / "sparse", "rb") as file:
        assert os.fstat(file.fileno()).st_size == 1 << 30
        file.seek(1 << 29)
        assert file.read(14) == b"in the middle\0"
    assert used_of(volume) == walk_usage(volume.backing)
    assert listed(volume)[0]["preserved_bytes"] == 3000 + (1 << 30)
    kept = next((volume.backing / ".volgate/snapshots").glob("*-s1"))
    assert sum(blob.stat().st_blocks * 512 for blob in kept.iterdir()) < 1 << 20  # its holes are holes


def test_snapshots_are_reached_and_never_listed(volume):
    fill(volume.path)
    assert os.listdir(volume.path / ".snapshots") == []
    snapshot(volume, "create", "s1")
    snapshot(volume, "create", "s2", "--metadata", "why=because")
    assert ".snapshots" not in os.listdir(volume.path)
    assert sorted(os.listdir(volume.path / ".snapshots")) == ["s1", "s2"]
    assert not (volume.path / ".snapshots/s1/.snapshots").exists()
    assert not (volume.path / ".snapshots/s1/.volgate").exists()
    assert not (volume.path / ".snapshots/s3").exists()
    assert not (volume.path / "folder/.snapshots").exists()
    assert json.loads(snapshot(volume, "show", "s2", "--json").stdout)["metadata"] == {"why": "because"}
    inodes = {path: os.lstat(path).st_ino for path in (volume.path, *volume.path.glob(".snapshots/*/folder/*"))}
    assert len(set(inodes.values())) == len(inodes)
    found = subprocess.run(["find", volume.path / ".snapshots", "-type", "f"], capture_output=True, check=True)
    assert len(found.stdout.splitlines()) == 2 * 4


def refused(call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def test_nothing_in_a_snapshot_can_be_changed(volume):
    fill(volume.path)
    snapshot(volume, "create", "s1")
    view = volume.path / ".snapshots/s1"
    before = small(view)
    for call, *arguments in (
        (os.open, view / "folder/one", os.O_RDWR), (os.open, view / "new", os.O_CREAT | os.O_WRONLY),
        (os.open, view / "folder/one", os.O_RDONLY | os.O_TRUNC),
        (os.truncate, view / "folder/one", 0), (os.unlink, view / "again"), (os.mkdir, view / "new"),
        (os.mkdir, view.parent / "new"), (os.rmdir, view / "empty"), (os.rmdir, view),
        (os.chmod, view / "again", 0o600),
        (os.chown, view / "again", 1, 1), (os.utime, view / "again"), (os.symlink, "a", view / "new"),
        (os.rename, view / "again", view / "new"), (os.rename, view / "again", volume.path / "new"),
        (os.rename, volume.path / "again", view / "new"), (os.link, view / "again", volume.path / "new"),
        (os.link, volume.path / "again", view / "new"), (os.mkfifo, view / "new"),
        (os.setxattr, view / "again", "user.x", b""), (os.removexattr, view / "again", "user.kind"),
        (os.rename, view, view.parent / "s2"), (os.rename, volume.path / ".snapshots", volume.path / "new"),
    ):  # fmt: skip
        assert refused(call, *arguments) in (errno.EROFS, errno.EPERM, errno.EBUSY), (call, arguments)
    assert small(view) == before == small(volume.path)


def test_permissions_hold_in_a_snapshot_as_they_did(volume):
    secret = volume.path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    snapshot(volume, "create", "s1")
    secret.chmod(0o644)
    assert in_child(secret.read_bytes, uid=1234) == b"secret"
    assert in_child(refused, os.open, volume.path / ".snapshots/s1/secret", os.O_RDONLY, uid=1234) == errno.EACCES


def test_who_reads_in_a_snapshot_goes_on_with_what_it_had_and_gets_stale_when_it_goes(volume):
    (volume.path / "f").write_bytes(b"before" * 100_000)
    (volume.path / "g").write_bytes(b"before")
    snapshot(volume, "create", "s1")
    fd = os.open(volume.path / ".snapshots/s1/f", os.O_RDONLY)
    try:
        assert os.pread(fd, 6, 0) == b"before"
        with open(volume.path / "f", "r+b") as file:
            file.write(b"AFTER!" * 100_000)
        assert os.pread(fd, 6, 300_000) == b"before"
        live = os.open(volume.path / ".snapshots/s1/g", os.O_RDONLY)
        snapshot(volume, "delete", "s1")
        assert os.pread(fd, 6, 420_000) == b"before"
        assert refused(os.pread, live, 6, 0) == errno.ESTALE
        os.close(live)
    finally:
        os.close(fd)
    mounting.wait_until(lambda: not (volume.path / ".snapshots/s1").exists())
    assert refused(os.stat, volume.path / ".snapshots/s1/f") == errno.ENOENT
    assert not list((volume.backing / ".volgate/snapshots").iterdir())


def test_what_others_change_behind_the_mount_is_stale_and_never_shown_as_what_it_was(place):
    with mounting.mounted(place, alarms=True) as mount:
        (mount.path / "f").write_bytes(b"before")
        snapshot(mount, "create", "s1")
        (mount.backing / "f").write_bytes(b"behind the mount")
        assert refused((mount.path / ".snapshots/s1/f").read_bytes) == errno.ESTALE


class Writer(threading.Thread):
    """Counts up in one file and then in another, each count durable, for as long as it may."""

    def __init__(self, path, number):
        super().__init__()
        self.first, self.second = path / f"{number}.first", path / f"{number}.second"
        self.begun = self.done = 0
        self.ends = threading.Event()

    def run(self):
        while not self.ends.is_set():
            self.begun += 1
            for path in (self.first, self.second):
                fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
                os.pwrite(fd, b"%08d" % self.begun, 0)
                os.fsync(fd)
                os.close(fd)
            self.done = self.begun


def count_in(path):
    try:
        return int(path.read_bytes() or 0)
    except FileNotFoundError:
        return 0


def check_points_in_time(volume, rounds):
    """Take snapshots while four programs write in an order that each snapshot has to show."""
    writers = [Writer(volume.path, number) for number in range(4)]
    for writer in writers:
        writer.start()
    taken = {}
    try:
        for number in range(rounds):
            before = [writer.done for writer in writers]
            snapshot(volume, "create", f"s{number}")
            taken[f"s{number}"] = before, [writer.begun for writer in writers]
    finally:
        for writer in writers:
            writer.ends.set()
        for writer in writers:
            writer.join()
    for name, (before, after) in taken.items():
        for number, writer in enumerate(writers):
            first = volume.path / ".snapshots" / name / writer.first.name
            counts = count_in(first), count_in(first.with_suffix(".second"))
            assert before[number] <= counts[1], (name, "what was acknowledged is in it")
            assert counts[0] <= after[number], (name, "nothing of what began later is in it")
            assert counts[0] - counts[1] in (0, 1) or 0 in counts, (name, "the order holds", counts)


def test_a_snapshot_is_one_point_in_time_while_others_write(volume):
    check_points_in_time(volume, 8)
    assert used_of(volume) == walk_usage(volume.backing)


def test_a_daemon_that_is_killed_leaves_snapshots_whole_or_absent(place):
    path, backing = place / "mnt", place / "data"
    path.mkdir()
    backing.mkdir()
    for number in range(3000):
        folder = backing / str(number % 30)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(b"%d" % number)
    whole = {f"{number % 30}/{number}": b"%d" % number for number in range(3000)}
    chance, survived = random.Random(7), 0
    for attempt in range(6):
        mount = mounting.start(backing, path)
        command = [*mounting.MOUNT[:-1], "snapshot", "create", str(path), f"s{attempt}"]
        taking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.25, 0.7))
        mount.kill()
        answered = taking.wait(60) == 0
        mount = mounting.start(backing, path)
        there = {info["snapshot_id"] for info in listed(mount)}
        assert not answered or f"s{attempt}" in there
        survived += f"s{attempt}" in there
        for name in there:
            view = path / ".snapshots" / name
            assert sum(len(files) for _, _, files in os.walk(view)) == 3000
        some = chance.sample(sorted(whole), 20)
        for name in some:
            assert all((path / ".snapshots" / found / name).read_bytes() == whole[name] for found in there)
            (path / name).write_bytes(b"changed")
            assert all((path / ".snapshots" / found / name).read_bytes() == whole[name] for found in there)
            (path / name).write_bytes(whole[name])
        assert mount.stop() == 0, mount.log()
    print("survived", survived)


def test_where_the_storage_shares_blocks_a_change_costs_what_is_changed(place):
    with mounting.loop_image(place, "btrfs", 1 << 30) as root:
        (root / "data").mkdir()
        with mounting.mounted(place, source=str(root / "data")) as mount:
            content = os.urandom(1 << 20) * 200
            (mount.path / "f").write_bytes(content)
            snapshot(mount, "create", "s1")
            os.sync()
            free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
            with open(mount.path / "f", "r+b") as file:
                file.write(b"changed")
                os.fsync(file.fileno())
            assert free - os.statvfs(root).f_bavail * os.statvfs(root).f_frsize < 20 << 20
            with open(mount.path / ".snapshots/s1/f", "rb") as file:
                assert file.read(7) == content[:7]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("create", "s1"), os.EX_CANTCREAT, "there is a snapshot s1"),
        (("create", ".hidden"), os.EX_USAGE, "no snapshot id"),
        (("create", "a/b"), os.EX_USAGE, "no snapshot id"),
        (("show", "s2"), os.EX_UNAVAILABLE, "has no snapshot s2"),
        (("delete", "s2"), os.EX_UNAVAILABLE, "there is no snapshot s2"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(shared_volume, arguments, status, said):
    if not listed(shared_volume):
        snapshot(shared_volume, "create", "s1")
    done = volgate("snapshot", arguments[0], shared_volume.path, *arguments[1:])
    assert done.returncode == status and said in done.stderr and len(done.stderr.splitlines()) == 1, done


def test_a_damaged_snapshot_is_told_and_costs_the_others_nothing(place):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_bytes(b"one")
        snapshot(mount, "create", "s1")
        (mount.path / "f").write_bytes(b"two")
        snapshot(mount, "create", "s2")
        (mount.path / "f").write_bytes(b"three")
        snapshot(mount, "create", "s3")
        (mount.path / "f").write_bytes(b"four")
        (record,) = mount.backing.glob(".volgate/snapshots/*-s2/snapshot.json")
        record.write_text("{")
    with mounting.mounted(place, alarms=True) as mount:
        states = {info["snapshot_id"]: info["damaged"] for info in listed(mount)}
        assert not states["s1"] and not states["s3"] and "record is damaged" in states["s2"]
        assert "damaged" in snapshot(mount, "list").stdout
        view = mount.path / ".snapshots"
        assert (view / "s1/f").read_bytes() == b"one" and (view / "s3/f").read_bytes() == b"three"
        assert refused(os.stat, view / "s2") == errno.EIO
        snapshot(mount, "delete", "s2")
        assert (view / "s1/f").read_bytes() == b"one" and (mount.path / "f").read_bytes() == b"four"


def test_a_schedule_takes_snapshots_lets_its_own_go_and_outlives_the_mount(place):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_bytes(b"one")
        snapshot(mount, "create", "mine")
        assert "no schedule" in snapshot(mount, "schedule").stdout
        snapshot(mount, "schedule", "hourly=1")
        mounting.wait_until(lambda: len(listed(mount)) == 2)
        (taken,) = [info for info in listed(mount) if info["snapshot_id"] != "mine"]
        assert taken["metadata"] == {"taken-by": "schedule"}
    record = next(mount.backing.glob(f".volgate/snapshots/*-{taken['snapshot_id']}/snapshot.json"))
    aged = json.loads(record.read_text())
    record.write_text(json.dumps({**aged, "created_at": aged["created_at"] - 7200}))
    with mounting.mounted(place) as mount:
        assert "hourly=1" in snapshot(mount, "schedule").stdout
        mounting.wait_until(lambda: taken["snapshot_id"] not in {info["snapshot_id"] for info in listed(mount)})
        assert len(listed(mount)) == 2 and listed(mount)[0]["snapshot_id"] == "mine"
        snapshot(mount, "schedule", "--off")
        wrong = volgate("snapshot", "schedule", mount.path, "yearly=1")
        assert wrong.returncode and "none of hourly, daily" in wrong.stderr


def test_times_that_64_bits_do_not_hold_are_kept(volume):
    (volume.path / "f").write_bytes(b"")
    os.utime(volume.path / "f", ns=(0, 13_569_465_600 * 10**9))  # the year 2400
    snapshot(volume, "create", "s1")
    os.utime(volume.path / "f")
    assert (volume.path / ".snapshots/s1/f").stat().st_mtime == 13_569_465_600


def test_a_damaged_copy_of_a_manifest_is_fetched_anew(place):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_bytes(b"one")
        snapshot(mount, "create", "s1")
        (copy,) = Path("/var/lib/volgate/volumes", mount.volume_id(), "snapshots").iterdir()
    with open(copy, "r+b") as file:
        file.seek(copy.stat().st_size // 2)
        file.write(bytes(copy.stat().st_size // 2))
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_bytes(b"two")
        assert (mount.path / ".snapshots/s1/f").read_bytes() == b"one"


def test_more_directories_than_descriptors_are_compared(place):
    with mounting.mounted(place, command=("prlimit", "--nofile=400:400", *mounting.MOUNT)) as mount:
        for number in range(1500):
            (mount.path / str(number)).mkdir()
        snapshot(mount, "create", "s1")
        (mount.path / "7/new").write_bytes(b"")
        assert "+ 7/new" in snapshot(mount, "diff", "s1").stdout


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/v1/snapshots", "[" * 30_000),
        ("/v1/snapshots", {"snapshot_id": 5}),
        ("/v1/snapshots", {"metadata": {"a": {"b": [1]}}}),
        ("/v1/snapshots", {"metadata": {"a": "\ud800"}}),
        ("/v1/snapshots/restore", {"snapshot_id": "s1", "path": "\ud800"}),
        ("/v1/snapshots/restore", {"snapshot_id": "s1", "path": "n" * 300}),
        ("/v1/snapshots/restore", {"snapshot_id": "s1", "dry_run": "no"}),
        ("/v1/snapshots/restore", {"snapshot_id": "s1", "path": "a/../../b"}),
        ("/v1/snapshots/diff", {"snapshot_id": None}),
    ],
)
def test_bodies_that_mean_nothing_are_refused(shared_volume, target, body):
    if not listed(shared_volume):
        snapshot(shared_volume, "create", "s1")
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"/run/volgate/{shared_volume.volume_id()}.sock")
    with contextlib.closing(connection):
        connection.request("POST", target, body if isinstance(body, str) else json.dumps(body))
        assert connection.getresponse().status in (400, 404)
    assert [info["snapshot_id"] for info in listed(shared_volume)] == ["s1"]
