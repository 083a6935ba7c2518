"""What a volume in a bucket does otherwise than one in a directory, claim by claim of vfs/README.md."""

import errno
import itertools
import os
import stat
import time

import pytest
import trio

import mounting
import s3_server
from mounting import volgate, wait_until
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as found:
        yield found


@pytest.fixture
def bucket(server):
    name = f"bucket-{next(NUMBERS)}"
    server.make_bucket(name)
    return name


@pytest.fixture
def others(server, bucket, monkeypatch):
    """Return what others do in the bucket: one call of the store."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

    def do(call, *arguments, **options):
        async def main():
            store = S3ObjectStore(S3Settings.from_source(f"s3://{bucket}", {}))
            await store.open(writable=False)
            try:
                return await getattr(store, call)(*arguments, **options)
            finally:
                await store.close()

        return trio.run(main)

    return do


@pytest.fixture
def mount(server, bucket, place):
    with s3_server.mounted(server, bucket, place, "--attr-timeout", "0s") as found:
        yield found


def fails_with(code, call, *arguments, **options):
    with pytest.raises(OSError) as caught:
        call(*arguments, **options)
    assert caught.value.errno == code, caught.value


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_file_has_one_name(mount):
    (mount.path / "f").touch()
    fails_with(errno.EPERM, os.link, mount.path / "f", mount.path / "g")
    (mount.path / "d/e").mkdir(parents=True)
    assert os.stat(mount.path / "f").st_nlink == os.stat(mount.path / "d").st_nlink == 1


def test_what_is_no_key_is_no_name(mount):
    path = os.fsencode(mount.path)
    (mount.path / "f").touch()
    for name in (b"\xff", b"x.rclonelink"):
        fails_with(errno.EILSEQ, os.mknod, path + b"/" + name)
        fails_with(errno.EILSEQ, os.rename, path + b"/f", path + b"/" + name)
    fails_with(errno.ENAMETOOLONG, os.mknod, path + b"/" + b"n" * 256)
    below = path
    for _ in range(4):
        below += b"/" + b"n" * 250
        os.mkdir(below)
    fails_with(errno.ENAMETOOLONG, os.mknod, below + b"/" + b"n" * 21)
    os.mknod(below + b"/" + b"n" * 20)
    assert os.listdir(path).count(b"f") == 1


def test_metadata_beyond_2_kib_are_refused(server, bucket, place):
    with s3_server.mounted(server, bucket, place, alarms=True) as mount:
        (mount.path / "f").touch()
        os.setxattr(mount.path / "f", "user.a", b"x" * 1000)
        fails_with(errno.ENOSPC, os.setxattr, mount.path / "f", "user.b", b"x" * 1000)
        assert os.listxattr(mount.path / "f") == ["user.a"]


def test_what_no_file_can_have_is_refused(mount):
    path = mount.path / "f"
    path.write_bytes(b"x")
    fails_with(errno.EFBIG, os.truncate, path, (5 << 40) + 1)
    with path.open("r+b") as file:
        fails_with(errno.EOPNOTSUPP, os.setxattr, path, "system.posix_acl_access", b"x" * 4)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1


# -- the bucket and others -----------------------------------------------------------------------------------------


def test_what_fsync_returned_for_is_in_the_bucket_and_what_was_closed_soon_is(mount, others):
    with (mount.path / "f").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        assert others("get_range", "f", 0, 100) == b"content"
    (mount.path / "g").write_bytes(b"closed")

    def is_there():
        return "g" in [found.key for found in others("list_page").objects]

    mounting.wait_until(is_there)


def test_what_others_do_is_seen(mount, others):
    others("put", "d/replaced", b"old")
    others("put", "d/deleted", b"old")
    path = mount.path / "d"
    assert sorted(os.listdir(path)) == ["deleted", "replaced"]
    ino = os.stat(path / "replaced").st_ino
    with (path / "replaced").open("rb") as kept, (path / "deleted").open("rb") as lost:
        assert kept.read() == b"old"
        others("put", "d/replaced", b"newer")
        others("delete", "d/deleted")
        others("put", "d/made", b"x")
        assert (path / "replaced").read_bytes() == b"newer"
        assert os.stat(path / "replaced").st_ino != ino
        assert sorted(os.listdir(path)) == ["made", "replaced"]
        kept.seek(0)
        assert kept.read() == b"old"
        fails_with(errno.ENOENT, os.stat, path / "deleted")
        fails_with(errno.ESTALE, lost.read)
    others("delete", "d/made")
    others("put", "d/made/below", b"x")
    assert stat.S_ISDIR(os.stat(path / "made").st_mode)


def test_what_others_add_is_not_counted_and_removing_it_never_counts_below_zero(mount, others):
    others("put", "theirs", b"x" * 1000)
    assert (mount.path / "theirs").stat().st_size == 1000
    assert mounting.used_of(mount) == (0, 0)
    (mount.path / "theirs").unlink()
    assert mounting.used_of(mount) == (0, 0)


def test_what_others_add_and_take_away_is_counted_now_and_then(server, bucket, place, others):
    with s3_server.mounted(server, bucket, place, "-o", "count_every=500ms") as mount:
        others("put", "theirs", b"x" * 1000)
        others("put", "d/theirs", b"x" * 500)
        wait_until(lambda: mounting.used_of(mount) == (1500, 3))
        for number in range(40):  # while it is counted again and again
            (mount.path / f"ours{number}").write_bytes(b"x" * 100)
            time.sleep(0.05)
        others("delete", "theirs")
        (mount.path / "ours0").unlink()
        wait_until(lambda: mounting.used_of(mount) == (500 + 39 * 100, 2 + 39))
        assert volgate("quota", "check", mount.path).returncode == 0


def test_a_mounted_volume_is_counted_anew_when_it_is_asked_for(mount, others):
    others("put", "theirs", b"x" * 1000)
    assert volgate("quota", "check", mount.path).returncode == 1
    repaired = volgate("quota", "check", mount.path, "--repair")
    assert (repaired.returncode, repaired.stdout.splitlines()[-1]) == (0, "repaired")
    assert mounting.used_of(mount) == (1000, 1)
    assert volgate("quota", "check", mount.path).returncode == 0
    (mount.path / "theirs").unlink()
    assert mounting.used_of(mount) == (0, 0)


def test_times_of_directories_are_not_kept_for_changes_of_names(server, bucket, place):
    with s3_server.mounted(server, bucket, place, name="one") as mount:
        (mount.path / "d").mkdir()
        os.utime(mount.path / "d", (1, 1))
        descriptor = os.open(mount.path / "d", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        (mount.path / "d/f").touch()
        assert os.stat(mount.path / "d").st_mtime > time.time() - 60
    with s3_server.mounted(server, bucket, place, name="two") as mount:
        assert os.stat(mount.path / "d").st_mtime == 1


def test_a_directory_stays_when_the_last_thing_in_it_goes(mount, others):
    others("put", "d/f", b"x")
    (mount.path / "d/f").unlink()
    assert os.listdir(mount.path) == ["d"]
    (mount.path / "d").rmdir()
    assert os.listdir(mount.path) == []
