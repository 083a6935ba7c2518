"""A bucket mounted as a user does it: its limit, its count, a crash, two mounts at once."""

import contextlib
import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import s3_server
from mounting import detach, find_mount, volgate, wait_until

QUOTA = 1 << 20
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as found:
        yield found


@attrs.frozen
class Bucket:
    """A bucket that can be mounted. Attributes: source: its URL; objects: its directory on the server."""

    source: str
    objects: Path
    path: Path
    cache: Path
    environment: dict[str, str]

    def mount(self, *options):
        done = self.run("mount", self.source, self.path, "-d", "-o", f"cache_dir={self.cache}", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "volgate", *map(str, words)],
            env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=90,
        )  # fmt: skip

    def umount(self):
        assert self.run("umount", self.path).returncode == 0

    def used(self):
        return json.loads(volgate("quota", "show", self.path, "--json").stdout)

    def kill(self):
        os.kill(json.loads(volgate("status", self.path, "--json").stdout)["pid"], 9)
        detach(self.path)


@pytest.fixture
def bucket(server, place):
    name = f"bucket-{next(NUMBERS)}"
    server.make_bucket(name)
    found = Bucket(f"s3://{name}/data", server.data / name / "data", place / "mnt", place / "cache", server.environment)
    found.path.mkdir()
    yield found
    with contextlib.suppress(OSError, AssertionError):
        found.umount()
    detach(found.path)


def test_one_object_is_one_file_and_all_of_it_is_there_after_umount(bucket):
    bucket.mount()
    (bucket.path / "d").mkdir()
    (bucket.path / "d" / "f").write_text("content")
    (bucket.path / "large").write_bytes(os.urandom(20 << 20))
    large = (bucket.path / "large").read_bytes()
    bucket.umount()
    assert (bucket.objects / "d" / "f").read_text() == "content"
    assert (bucket.objects / "large").read_bytes() == large


def test_the_limit_is_met_to_the_byte_and_kept_at_the_next_mount(bucket):
    bucket.mount("--quota", str(QUOTA))
    with open(bucket.path / "f", "wb", buffering=0) as file:
        written = 0
        with pytest.raises(OSError) as refused:
            while True:
                written += file.write(bytes(100_000))
        assert refused.value.errno == errno.EDQUOT
    assert written == QUOTA == (bucket.path / "f").stat().st_size
    assert os.statvfs(bucket.path).f_bavail == 0
    bucket.umount()
    bucket.mount()
    assert (bucket.used()["used_bytes"], bucket.used()["quota_bytes"]) == (QUOTA, QUOTA)
    with pytest.raises(OSError) as refused:
        (bucket.path / "g").write_bytes(b"x")
    assert refused.value.errno == errno.EDQUOT
    for name in ("f", "g"):
        (bucket.path / name).unlink()
    assert (bucket.used()["used_bytes"], bucket.used()["file_count"]) == (0, 0)


def test_what_is_in_the_bucket_is_counted_while_the_mount_answers(bucket):
    for folder in range(20):
        (bucket.objects / f"d{folder}").mkdir(parents=True)
        for number in range(20):
            (bucket.objects / f"d{folder}" / f"f{number}").write_bytes(bytes(10))
    bucket.mount("--quota", "4000")
    assert len(os.listdir(bucket.path)) == 20
    wait_until(lambda: bucket.used()["used_bytes"] == 4000)
    assert bucket.used()["file_count"] == 420
    with pytest.raises(OSError) as refused:
        (bucket.path / "more").write_bytes(b"x")
    assert refused.value.errno == errno.EDQUOT


def test_what_was_closed_is_there_after_kill_9_and_usage_is_exact_without_a_count(bucket):
    bucket.mount("--quota", "1MiB")
    wait_until(lambda: "counted" in volgate("status", bucket.path, "--json").stdout)
    for number in range(50):
        (bucket.path / f"f{number}").write_bytes(bytes(number))
    (bucket.path / "f49").rename(bucket.path / "renamed")
    bucket.kill()
    assert "1.2 KiB of 1 MiB used" in bucket.mount()
    assert sorted(os.listdir(bucket.path)) == sorted([*(f"f{n}" for n in range(49)), "renamed"])
    assert all((bucket.path / f"f{number}").stat().st_size == number for number in range(49))
    assert bucket.used()["used_bytes"] == sum(range(50))


def test_fsync_means_that_the_bucket_has_it(bucket):
    bucket.mount()
    with open(bucket.path / "f", "wb") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
        assert (bucket.objects / "f").read_bytes() == b"synced"


def test_a_second_mount_is_refused_and_names_the_holder(bucket, place):
    bucket.mount()
    other = attrs.evolve(bucket, path=place / "other", cache=place / "other-cache")
    other.path.mkdir()
    done = other.run("mount", other.source, other.path, "-d", "-o", f"cache_dir={other.cache}")
    assert done.returncode == 32 and str(bucket.path) in done.stderr
    assert find_mount(other.path) is None


def test_options_of_buckets_are_refused_for_a_directory(place):
    done = subprocess.run(
        [sys.executable, "-m", "volgate", "mount", place, place, "--endpoint-url", "http://127.0.0.1:1"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "endpoint_url is for buckets" in done.stderr
