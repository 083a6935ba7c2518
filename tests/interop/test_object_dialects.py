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
