"""What real s3fs and rclone write into a bucket, read by the driver and the codec."""

import contextlib
import os
import stat
import subprocess

import pytest
import trio

import mounting
import s3_server
from volgate.core.object_metadata import StoredAttributes, decode, encode
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore

MTIME_NS = 1_700_000_000_123_456_789


@pytest.fixture
def bucket(place):
    with s3_server.running(place / "s3") as server:
        server.make_bucket("bucket")
        yield server


def stored(bucket, *keys):
    """Return (attributes, body) of each object."""

    async def main():
        store = S3ObjectStore(S3Settings.from_source("s3://bucket", {"endpoint_url": bucket.url}))
        found = {}
        for key in keys:
            info = await store.head(key)
            kind = stat.S_IFDIR if key.endswith("/") else stat.S_IFREG
            found[key] = decode(info.metadata, kind), await store.get_range(key, 0, 1000)
        await store.close()
        return found

    return trio.run(main)


@pytest.fixture
def keys(bucket, monkeypatch):
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)


@contextlib.contextmanager
def s3fs(bucket, place):
    """Mount the bucket by s3fs."""
    path, password = place / "s3fs", place / "password"
    path.mkdir()
    password.write_text(f"{s3_server.ACCESS_KEY}:{s3_server.SECRET_KEY}")
    password.chmod(0o600)
    process = subprocess.Popen(
        [
            "s3fs", "bucket", path, "-f",
            "-o", f"url={bucket.url},use_path_request_style,passwd_file={password},use_xattr",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        mounting.wait_until(lambda: mounting.find_mount(path) is not None)
        yield path
        subprocess.run(["umount", path], check=True, timeout=30)
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        mounting.detach(path)


def test_what_s3fs_writes_is_read(bucket, keys, place):
    with s3fs(bucket, place) as path:
        (path / "f").write_text("content")
        os.chown(path / "f", 1234, 5678)
        os.chmod(path / "f", 0o4640)
        os.setxattr(path / "f", "user.colour", b"blue\xff")
        os.utime(path / "f", ns=(MTIME_NS, MTIME_NS))
        (path / "d").mkdir(0o750)
        os.symlink("some/target", path / "link")
    found = stored(bucket, "f", "d/", "link")
    attributes, body = found["f"]
    assert (attributes.mode, attributes.uid, attributes.gid, body) == (0o104640, 1234, 5678, b"content")
    assert attributes.mtime_ns == MTIME_NS
    assert attributes.xattrs == {b"user.colour": b"blue\xff"}
    assert found["d/"][0].mode == 0o40750
    attributes, body = found["link"]
    assert stat.S_ISLNK(attributes.mode) and body == b"some/target"


def test_what_is_written_here_is_read_by_s3fs(bucket, keys, place):
    async def write():
        store = S3ObjectStore(S3Settings.from_source("s3://bucket", {"endpoint_url": bucket.url}))
        common = {"uid": 1234, "gid": 5678, "mtime_ns": MTIME_NS, "ctime_ns": MTIME_NS}
        file = StoredAttributes(mode=0o104640, xattrs={b"user.colour": b"blue\xff"}, **common)
        await store.put("f", b"content", metadata=encode(file))
        await store.put("link", b"some/target", metadata=encode(StoredAttributes(mode=0o120777, **common)))
        directory = encode(StoredAttributes(mode=0o40750, **common))
        await store.put("d/", b"", metadata=directory, content_type="application/x-directory")
        await store.close()

    trio.run(write)
    with s3fs(bucket, place) as path:
        found = os.stat(path / "f")
        assert (oct(found.st_mode), found.st_uid, found.st_gid) == (oct(0o104640), 1234, 5678)
        assert found.st_mtime_ns == MTIME_NS
        assert os.getxattr(path / "f", "user.colour") == b"blue\xff"
        assert os.readlink(path / "link") == "some/target"
        assert oct(os.stat(path / "d").st_mode) == oct(0o40750)
        assert (path / "f").read_text() == "content"


def rclone(bucket, *words):
    options = ["--config", "/dev/null", "--s3-provider", "Other", "--s3-endpoint", bucket.url, "--s3-env-auth"]
    environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}  # it cannot take one
    subprocess.run(["rclone", *options, *words], check=True, timeout=60, capture_output=True, env=environment)


def test_what_rclone_writes_is_read(bucket, keys, place):
    source = place / "source"
    source.mkdir()
    (source / "f").write_text("content")
    os.chmod(source / "f", 0o640)
    os.chown(source / "f", 1234, 5678)
    os.utime(source / "f", ns=(MTIME_NS, MTIME_NS))
    rclone(bucket, "copy", "-M", source, ":s3:bucket/with")
    rclone(bucket, "copy", source, ":s3:bucket/without")
    found = stored(bucket, "with/f", "without/f")
    attributes, body = found["with/f"]
    assert (attributes.mode, attributes.uid, attributes.gid, body) == (0o100640, 1234, 5678, b"content")
    assert attributes.mtime_ns == MTIME_NS
    assert found["without/f"][0] == StoredAttributes(mtime_ns=MTIME_NS)


# -- through a mount -----------------------------------------------------------------------------------------------


def look(path):
    """Return (type and mode, owner, group, mtime) of a file."""
    found = os.lstat(path)
    return oct(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns


def make_tree(path):
    """Make what every dialect can hold, owned by somebody."""
    (path / "d").mkdir()
    (path / "d/f").write_text("content")
    os.chmod(path / "d/f", 0o640)
    os.chown(path / "d/f", 1234, 5678)
    os.utime(path / "d/f", ns=(MTIME_NS, MTIME_NS))
    os.symlink("d/f", path / "link")
    os.chmod(path / "d", 0o750)
    os.chown(path / "d", 1234, 5678)


def check_tree(path, *, directories=True):
    """Check that a tool shows what ``make_tree`` made."""
    assert look(path / "d/f") == (oct(0o100640), 1234, 5678, MTIME_NS)
    assert (path / "d/f").read_text() == "content"
    assert os.readlink(path / "link") == "d/f"
    assert stat.S_ISLNK(os.lstat(path / "link").st_mode)
    assert (path / "link").read_text() == "content"
    if directories:
        assert look(path / "d")[:3] == (oct(0o40750), 1234, 5678)


def test_a_mount_shows_what_s3fs_made_and_s3fs_what_a_mount_made(bucket, keys, place):
    with s3fs(bucket, place) as path:
        make_tree(path)
        os.setxattr(path / "d/f", "user.colour", b"blue\xff")
        os.utime(path / "d/f", ns=(MTIME_NS, MTIME_NS))
    with s3_server.mounted(bucket, "bucket", place) as mount:
        check_tree(mount.path)
        assert os.getxattr(mount.path / "d/f", "user.colour") == b"blue\xff"
        assert sorted(os.listdir(mount.path)) == ["d", "link"]
        os.rename(mount.path / "d", mount.path / "other")
        (mount.path / "link").unlink()
        make_tree(mount.path)
        os.setxattr(mount.path / "d/f", "user.colour", b"blue\xff")
    (place / "s3fs").rmdir()
    with s3fs(bucket, place) as path:
        check_tree(path)
        assert os.getxattr(path / "d/f", "user.colour") == b"blue\xff"
        assert look(path / "other/f") == look(path / "d/f")


def test_a_mount_shows_what_rclone_copied_and_rclone_copies_what_a_mount_made(bucket, keys, place):
    source, back = place / "source", place / "back"
    source.mkdir()
    make_tree(source)
    rclone(bucket, "copy", "-M", "--links", source, ":s3:bucket/theirs")
    with s3_server.mounted(bucket, "bucket", place) as mount:
        check_tree(mount.path / "theirs", directories=False)
        assert sorted(os.listdir(mount.path / "theirs")) == ["d", "link"]
        os.rename(mount.path / "theirs/link", mount.path / "theirs/moved")
        assert os.readlink(mount.path / "theirs/moved") == "d/f"
        (mount.path / "ours").mkdir()
        make_tree(mount.path / "ours")
    rclone(bucket, "copy", "-M", ":s3:bucket/ours", back)
    assert look(back / "d/f")[1:] == (1234, 5678, MTIME_NS), "its modes are octal, s3fs's decimal: that one is lost"
    assert (back / "d/f").read_text() == "content"
    assert (back / "link").read_text() == "d/f", "rclone knows no links but its own: the target is the content"
    with s3_server.mounted(bucket, "bucket", place, name="again") as mount:
        assert sorted(os.listdir(mount.path / "theirs")) == ["d", "moved"]
        assert os.readlink(mount.path / "theirs/moved") == "d/f"


def test_a_mount_shows_links_and_directories_as_geesefs_and_gcsfuse_write_them(bucket, keys, place):
    async def write():
        store = S3ObjectStore(S3Settings.from_source("s3://bucket", {"endpoint_url": bucket.url}))
        await store.put("geesefs", b"", metadata={"--symlink-target": "d/f", "uid": "1234", "gid": "5678"})
        await store.put("gcsfuse", b"", metadata={"gcsfuse_symlink_target": "d/f"})
        await store.put("d/f", b"content", metadata={"mode": "33184", "mtime": "1700000000", "uid": "1234"})
        await store.put("d/", b"", metadata={"mode": "16872", "uid": "1234", "gid": "5678"})
        await store.put("plain/f", b"content", content_type="text/plain")
        await store.close()

    trio.run(write)
    with s3_server.mounted(bucket, "bucket", place) as mount:
        for name in ("geesefs", "gcsfuse"):
            assert os.readlink(mount.path / name) == "d/f"
            assert os.lstat(mount.path / name).st_size == 3
        assert look(mount.path / "geesefs")[1:3] == (1234, 5678)
        assert look(mount.path / "d")[:3] == (oct(0o40750), 1234, 5678)
        assert look(mount.path / "d/f") == (oct(0o100640), 1234, 0, 1_700_000_000 * 10**9)
        assert look(mount.path / "plain")[:3] == (oct(0o40755), 0, 0)
        assert look(mount.path / "plain/f")[:3] == (oct(0o100644), 0, 0)
        os.chmod(mount.path / "plain/f", 0o600)
    found = stored(bucket, "plain/f")
    assert found["plain/f"][0].mode == 0o100600
