"""Snapshots of mounted buckets: what users see, what is kept in the bucket, and what others may do to it."""

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import time

import boto3
import pytest
from test_restoring import diff
from test_snapshots_of_mounts import check_points_in_time, describe, listed, snapshot

import mounting
import s3_server
from mounting import used_of, volgate, wait_until

NUMBERS = itertools.count()
PLACE = ".volgate/snapshots"


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


@pytest.fixture
def bucket(server):
    """Return the directory of a fresh bucket."""
    name = f"snapshots-{next(NUMBERS)}"
    server.make_bucket(name)
    return server.data / name


@pytest.fixture
def volume(server, bucket, place):
    with s3_server.mounted(server, bucket.name, place) as mount:
        yield mount


def fill(path):
    (path / "folder/below").mkdir(parents=True)
    (path / "empty").mkdir(mode=0o700)
    (path / "folder/one").write_bytes(b"one" * 1000)
    (path / "folder/below/two").write_bytes(b"")
    (path / "large").write_bytes(random.Random(1).randbytes(20 << 20))
    os.symlink("folder/one", path / "link")
    os.mkfifo(path / "fifo", 0o640)
    os.setxattr(path / "folder", "user.kind", b"a folder")
    os.setxattr(path / "folder/one", "user.kind", b"a file")
    os.chmod(path / "folder/one", 0o4755)
    os.chown(path / "folder/below/two", 1234, 5678)
    os.utime(path / "folder/below/two", ns=(10**18, 10**18 + 7))


def seen(path):
    """Return all that a tree shows; a bucket keeps no times of directories as their names change."""
    return {
        name: (*found[:4], None if stat.S_ISDIR(found[0]) else found[4], *found[5:])
        for name, found in describe(path).items()
    }


def client_of(server):
    return boto3.client(
        "s3", endpoint_url=server.url, region_name="us-east-1",
        aws_access_key_id=s3_server.ACCESS_KEY, aws_secret_access_key=s3_server.SECRET_KEY,
    )  # fmt: skip


def kept_in(bucket):
    """Return the sizes of all copies that snapshots keep."""
    place = bucket / PLACE / "kept"
    return sorted(file.stat().st_size for file in place.iterdir()) if place.exists() else []


def test_a_snapshot_shows_all_there_was_and_nothing_of_what_came_later(volume, bucket):
    fill(volume.path)
    before, used = seen(volume.path), used_of(volume)
    snapshot(volume, "create", "s1")
    view = volume.path / ".snapshots/s1"
    assert seen(view) == before
    for name in ("folder/one", "folder/below/two", "large"):
        (volume.path / name).write_bytes(b"changed")
    os.chmod(volume.path / "fifo", 0o600)
    shutil.move(volume.path / "folder", volume.path / "moved")
    (volume.path / "link").unlink()
    (volume.path / "new").write_bytes(b"new")
    assert seen(view) == before
    assert volgate("flush", volume.path).returncode == 0
    assert seen(view) == before
    assert listed(volume)[0]["preserved_bytes"] == sum(kept_in(bucket)) == (20 << 20) + 3000 + len("folder/one")
    assert used_of(volume) == (used[0] - (20 << 20) - 3000 + 7 + 7 + 7 - 10 + 3, used[1])
    snapshot(volume, "delete", "s1")
    assert not (bucket / PLACE).exists() or not kept_in(bucket)
    assert os.listdir(volume.path / ".snapshots") == []


def test_snapshots_outlive_the_mount_and_the_loss_of_its_cache(server, bucket, place):
    with s3_server.mounted(server, bucket.name, place) as mount:
        fill(mount.path)
        before = seen(mount.path)
        snapshot(mount, "create", "s1", "--metadata", "why=because")
        (mount.path / "folder/one").write_bytes(b"changed")
        snapshot(mount, "create", "s2")
    shutil.rmtree(place / "volume.cache")
    with s3_server.mounted(server, bucket.name, place) as mount:
        assert [info["snapshot_id"] for info in listed(mount)] == ["s1", "s2"]
        assert json.loads(snapshot(mount, "show", "s1", "--json").stdout)["metadata"] == {"why": "because"}
        assert seen(mount.path / ".snapshots/s1") == before
        (mount.path / "folder/one").unlink()
        shutil.rmtree(mount.path / "folder")
        snapshot(mount, "delete", "s2")
        assert seen(mount.path / ".snapshots/s1") == before


def test_a_diff_asks_for_nothing_that_a_listing_shows_to_be_the_same(volume):
    for number in range(200):
        (volume.path / f"f{number}").write_bytes(b"%d" % number)
    time.sleep(3.2)  # an object that was just made may change without another time
    snapshot(volume, "create", "s1")
    (volume.path / "f7").write_bytes(b"changed")
    (volume.path / "f8").unlink()
    (volume.path / "f9").chmod(0o600)
    (volume.path / "new").mkdir()
    assert volgate("flush", volume.path).returncode == 0

    def heads():
        shown = json.loads(volgate("status", volume.path, "--json").stdout)["storage"]["requests"]
        return shown.get("HeadObject", 0)

    volgate("refresh", volume.path)
    asked = heads()
    assert diff(volume, "s1") == {
        "f7": ("changed", "content", "mtime"), "f8": ("removed",), "f9": ("changed", "mode"), "new": ("added",)
    }  # fmt: skip
    assert heads() - asked < 20
    snapshot(volume, "create", "s2")
    asked = heads()
    assert set(diff(volume, "s1", "s2")) == {"f7", "f8", "f9", "new"}
    assert heads() - asked < 20
    assert diff(volume, "s2") == {}


def test_a_change_of_attributes_within_the_clocks_tick_is_found(volume):
    for number in range(10):
        (volume.path / f"f{number}").write_bytes(b"%d" % number)
    snapshot(volume, "create", "s1")
    for number in range(10):
        (volume.path / f"f{number}").chmod(0o600)
    assert volgate("flush", volume.path).returncode == 0
    volgate("refresh", volume.path)
    for _ in range(2):
        assert diff(volume, "s1") == {f"f{number}": ("changed", "mode") for number in range(10)}


def test_a_volume_becomes_what_it_was(server, bucket, place):
    # Alarms: a server on a file system has no file beside a directory of its name, so one of them is stored later.
    with s3_server.mounted(server, bucket.name, place, alarms=True) as volume:
        restore_all(volume)


def restore_all(volume):
    fill(volume.path)
    before, used = seen(volume.path), used_of(volume)
    snapshot(volume, "create", "s1")
    shutil.rmtree(volume.path / "folder")
    (volume.path / "large").write_bytes(b"small")
    (volume.path / "fifo").unlink()
    (volume.path / "fifo").mkdir()
    (volume.path / "fifo/new").write_bytes(b"new")
    os.rename(volume.path / "empty", volume.path / "renamed")
    snapshot(volume, "restore", "s1", "--yes")
    assert seen(volume.path) == before
    assert used_of(volume) == used
    assert diff(volume, "s1") == {}
    (volume.path / "folder/one").write_bytes(b"changed")
    (volume.path / "large").unlink()
    snapshot(volume, "restore", "s1", "folder/one", "--yes")
    assert diff(volume, "s1") == {"large": ("removed",)}


def test_nothing_in_a_snapshot_can_be_changed(volume):
    fill(volume.path)
    snapshot(volume, "create", "s1")
    view = volume.path / ".snapshots/s1"
    for call in (
        lambda: (view / "new").write_bytes(b""), lambda: (view / "folder/one").write_bytes(b""),
        lambda: (view / "link").unlink(), lambda: (view / "empty").rmdir(), lambda: (view / "fifo").chmod(0o600),
        lambda: os.rename(view / "link", view / "other"), lambda: os.setxattr(view / "large", "user.a", b""),
        lambda: os.rename(view / "link", volume.path / "other"), lambda: (view / "new").mkdir(),
    ):  # fmt: skip
        with pytest.raises(OSError) as refused:
            call()
        assert refused.value.errno in (errno.EROFS, errno.EXDEV)
    assert not (view / ".snapshots").exists() and not (view / ".volgate").exists()
    assert ".snapshots" not in os.listdir(volume.path)


def test_what_others_change_in_the_bucket_is_stale_and_never_shown_as_what_it_was(server, bucket, place):
    with s3_server.mounted(server, bucket.name, place) as mount:
        for name in ("changed", "removed", "same"):
            (mount.path / name).write_bytes(name.encode() * 1000)
        snapshot(mount, "create", "s1")
    shutil.rmtree(place / "volume.cache")  # or its contents would be read from there
    with s3_server.mounted(server, bucket.name, place) as mount:
        client = client_of(server)
        client.put_object(Bucket=bucket.name, Key="changed", Body=b"by others")
        client.delete_object(Bucket=bucket.name, Key="removed")
        view = mount.path / ".snapshots/s1"
        for _ in range(2):
            assert sorted(os.listdir(view)) == ["changed", "removed", "same"]
            for name in ("changed", "removed"):
                assert (view / name).stat().st_size == len(name) * 1000
                with pytest.raises(OSError) as lost:
                    (view / name).read_bytes()
                assert lost.value.errno == errno.ESTALE
            assert (view / "same").read_bytes() == b"same" * 1000
            volgate("refresh", mount.path)
            (mount.path / "changed").write_bytes(b"by this mount, over what others wrote")
            assert volgate("flush", mount.path).returncode == 0
        done = volgate("snapshot", "restore", mount.path, "s1", "--yes")
        assert done.returncode != 0 and "cannot be restored" in done.stderr and "lost" in done.stderr
        assert (mount.path / "changed").read_bytes() == b"by this mount, over what others wrote"


def test_a_snapshot_is_one_point_in_time_while_others_write(volume):
    check_points_in_time(volume, 6)


def started(server, bucket, place):
    return mounting.start(
        f"s3://{bucket.name}", place / "mnt", "--endpoint-url", server.url,
        "-o", f"cache_dir={place}/cache,cache_free=1M", environment=server.environment,
    )  # fmt: skip


def test_a_daemon_that_is_killed_leaves_snapshots_whole_or_absent(server, bucket, place):
    chance, survived = random.Random(7), 0
    whole = {f"{number % 10}/{number}": b"%d" % number for number in range(500)}
    for name, content in whole.items():
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_bytes(content)

    (place / "mnt").mkdir()
    for attempt in range(5):
        mount = started(server, bucket, place)
        command = [*mounting.MOUNT[:-1], "snapshot", "create", str(mount.path), f"s{attempt}"]
        taking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 0.6))
        mount.kill()
        answered = taking.wait(60) == 0
        mount = started(server, bucket, place)
        there = {info["snapshot_id"] for info in listed(mount)}
        assert not answered or f"s{attempt}" in there
        survived += f"s{attempt}" in there
        for name in there:
            view = mount.path / ".snapshots" / name
            assert sum(len(files) for _, _, files in os.walk(view)) == len(whole)
        for name in chance.sample(sorted(whole), 5):
            (mount.path / name).write_bytes(b"changed")
            assert all((mount.path / ".snapshots" / found / name).read_bytes() == whole[name] for found in there)
            (mount.path / name).write_bytes(whole[name])
        assert mount.stop() == 0, mount.log()
    print("survived", survived)


def test_a_restore_that_a_kill_cut_off_goes_on_at_the_next_mount(server, bucket, place):
    chance = random.Random(3)
    (place / "mnt").mkdir()
    mount = started(server, bucket, place)
    for number in range(400):
        (mount.path / str(number % 5)).mkdir(exist_ok=True)
        (mount.path / str(number % 5) / str(number)).write_bytes(b"%d" % number * 50)
    snapshot(mount, "create", "s1")
    before, noted = seen(mount.path), bucket / ".volgate/restore.json"
    for _ in range(3):
        for number in chance.sample(range(400), 200):
            file = mount.path / str(number % 5) / str(number)
            chance.choice([lambda file=file: file.write_bytes(b"changed"), lambda file=file: file.unlink()])()
        command = [*mounting.MOUNT[:-1], "snapshot", "restore", str(mount.path), "s1", "--yes"]
        restoring = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 1.2))
        mount.kill()
        restoring.wait(60)
        mount = started(server, bucket, place)
        wait_until(lambda: not noted.exists() or json.loads(noted.read_bytes() or b"null") is None)
        if restoring.returncode:  # killed before anything was noted, or the rest was done by the mount
            snapshot(mount, "restore", "s1", "--yes")
        assert seen(mount.path) == before
        assert diff(mount, "s1") == {}
        assert volgate("quota", "check", mount.path).returncode == 0
    assert mount.stop() == 0, mount.log()


def test_a_damaged_snapshot_is_told_and_costs_the_others_nothing(server, bucket, place):
    with s3_server.mounted(server, bucket.name, place) as mount:
        for name in ("a", "b"):
            (mount.path / name).write_bytes(b"content")
        for name in ("s1", "s2", "s3"):
            snapshot(mount, "create", name)
            (mount.path / "a").write_bytes(name.encode())
    shutil.rmtree(place / "volume.cache")
    next(bucket.glob(f"{PLACE}/*-s2/manifest.db")).write_bytes(b"nonsense")
    with s3_server.mounted(server, bucket.name, place, alarms=True) as mount:
        assert [bool(info["damaged"]) for info in listed(mount)] == [False, True, False]
        assert (mount.path / ".snapshots/s1/a").read_bytes() == b"content"
        assert (mount.path / ".snapshots/s3/a").read_bytes() == b"s2"
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(mount.path / ".snapshots/s2")
        snapshot(mount, "delete", "s2")
        snapshot(mount, "delete", "s3")
        assert (mount.path / ".snapshots/s1/a").read_bytes() == b"content"
        snapshot(mount, "delete", "s1")
    assert not kept_in(bucket)


def test_an_object_of_another_tools_is_kept_with_its_metadata(server, bucket, place):
    client = client_of(server)
    client.put_object(Bucket=bucket.name, Key="d/f", Body=b"by others", ContentType="text/x-odd", Metadata={"of": "x"})
    with s3_server.mounted(server, bucket.name, place) as mount:
        snapshot(mount, "create", "s1")
        (mount.path / "d/f").write_bytes(b"changed")
        assert volgate("flush", mount.path).returncode == 0
        assert (mount.path / ".snapshots/s1/d/f").read_bytes() == b"by others"
    (kept,) = (bucket / PLACE / "kept").iterdir()
    found = client.head_object(Bucket=bucket.name, Key=f"{PLACE}/kept/{kept.name}")
    assert (found["ContentType"], found["Metadata"]["of"]) == ("text/x-odd", "x")


def test_a_schedule_takes_snapshots_of_a_bucket(volume):
    (volume.path / "f").write_bytes(b"content")
    assert volgate("snapshot", "schedule", volume.path, "hourly=2").returncode == 0
    wait_until(lambda: len(listed(volume)) == 1)
    with contextlib.suppress(FileNotFoundError):
        assert (volume.path / ".snapshots" / listed(volume)[0]["snapshot_id"] / "f").read_bytes() == b"content"
