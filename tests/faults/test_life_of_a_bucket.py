"""What a mounted bucket goes through: secrets change, it vanishes and comes back, disks are full, files change."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import threading

import boto3
import pytest

import mounting
import s3_server
from mounting import volgate, wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


@pytest.fixture
def bucket(server, request):
    name = f"b{abs(hash(request.node.name)) % 10**8}"
    server.make_bucket(name)
    return server.data / name


def errno_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return 0


def write_synced(path, content):
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def flushed(mount):
    return volgate("flush", mount.path, timeout_s=120).returncode == 0


def test_a_secret_that_ends_in_mid_life_is_told_and_a_new_one_is_taken_without_a_remount(server, bucket, place):
    secret = place / "secret"

    def write_secret(text):
        new = place / "new-secret"
        new.write_text(f"[default]\naws_access_key_id = {s3_server.ACCESS_KEY}\naws_secret_access_key = {text}\n")
        new.chmod(0o600)
        new.rename(secret)

    write_secret(s3_server.SECRET_KEY)
    with s3_server.mounted(server, bucket.name, place, "-o", f"credentials_file={secret}", alarms=True) as mount:
        write_synced(mount.path / "before", b"1")
        write_secret("no longer it")
        (mount.path / "closed").write_bytes(b"2")
        assert errno_of(write_synced, mount.path / "synced", b"3") == errno.EACCES
        wait_until(lambda: "the secret key does not fit the access key" in volgate("status", mount.path).stdout)
        assert (mount.path / "closed").read_bytes() == b"2"
        write_secret(s3_server.SECRET_KEY)
        wait_until(lambda: flushed(mount), 40)
        assert (bucket / "closed").read_bytes() == b"2" and (bucket / "synced").read_bytes() == b"3"


def test_a_bucket_that_vanishes_is_an_error_and_serves_again_when_it_is_back(server, bucket, place):
    (bucket / "cold").write_bytes(b"cold")
    with s3_server.mounted(server, bucket.name, place, alarms=True) as mount:
        write_synced(mount.path / "before", b"1")
        aside = place / "aside"
        bucket.rename(aside)
        assert errno_of((mount.path / "cold").read_bytes) in (errno.EIO, errno.ESTALE, errno.ENOENT)
        (mount.path / "closed").write_bytes(b"2")
        assert errno_of(write_synced, mount.path / "synced", b"3")
        assert mounting.find_mount(mount.path) is not None
        aside.rename(bucket)
        assert volgate("refresh", mount.path).returncode == 0
        wait_until(lambda: flushed(mount), 60)
        assert {path.name for path in bucket.iterdir() if path.is_file()} == {"cold", "before", "closed", "synced"}
        assert (mount.path / "cold").read_bytes() == b"cold"


def test_who_reads_while_others_replace_the_object_never_sees_a_mixture(server, bucket, place):
    contents = [bytes([letter]) * (24 * MIB) for letter in b"ab"]
    client = boto3.session.Session().client(
        "s3", endpoint_url=server.url, region_name="us-east-1",
        aws_access_key_id=s3_server.ACCESS_KEY, aws_secret_access_key=s3_server.SECRET_KEY,
    )  # fmt: skip
    client.put_object(Bucket=bucket.name, Key="f", Body=contents[0])
    with s3_server.mounted(server, bucket.name, place, "-o", "attr_timeout=0", alarms=True) as mount:
        ended = threading.Event()

        def replace():
            number = 0
            while not ended.is_set():
                number += 1
                client.put_object(Bucket=bucket.name, Key="f", Body=contents[number % 2])

        writer = threading.Thread(target=replace)
        writer.start()
        stale = 0
        try:
            for _ in range(15):
                try:
                    found = (mount.path / "f").read_bytes()
                except OSError as error:
                    assert error.errno == errno.ESTALE
                    stale += 1
                else:
                    assert found in contents
        finally:
            ended.set()
            writer.join()
        assert volgate("refresh", mount.path).returncode == 0
        assert (mount.path / "f").read_bytes() in contents
        assert stale < 15
    client.close()


@contextlib.contextmanager
def small_disk(path, size):
    """A file system of its own, that is soon full."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_cache_disk_refuses_what_it_cannot_keep_and_loses_nothing_of_what_it_took(server, bucket, place):
    content = random.Random(2).randbytes(4 * MIB)
    with small_disk(place / "disk", "24m") as disk:
        options = "cache_dir={},cache_free=1M,cache_size=4M".format(disk / "cache")
        with s3_server.mounted(server, bucket.name, place, "-o", options, alarms=True) as mount:
            write_synced(mount.path / "before", b"1")
            server.process.send_signal(signal.SIGSTOP)
            taken = []
            try:
                for number in range(8):
                    failed = errno_of((mount.path / f"f{number}").write_bytes, content)
                    if failed:
                        break
                    taken.append(f"f{number}")
                assert failed == errno.ENOSPC and 2 <= len(taken) < 6
                assert (mount.path / taken[0]).read_bytes() == content
            finally:
                server.process.send_signal(signal.SIGCONT)
            wait_until(lambda: flushed(mount), 60)
            assert {name: (bucket / name).read_bytes() == content for name in taken} == dict.fromkeys(taken, True)
            (mount.path / "after").write_bytes(content)
            assert flushed(mount)
            assert (bucket / "after").read_bytes() == content
            assert volgate("quota", "check", mount.path).returncode == 0


def test_what_was_only_read_makes_way_for_what_is_written(server, bucket, place):
    content, read = random.Random(3).randbytes(4 * MIB), random.Random(4).randbytes(60 * MIB)
    (bucket / "read").write_bytes(read)
    with small_disk(place / "disk", "48m") as disk:
        options = f"cache_dir={disk / 'cache'},cache_free=8M"
        with s3_server.mounted(server, bucket.name, place, "-o", options) as mount:
            assert (mount.path / "read").read_bytes() == read
            for number in range(10):  # in all as much as the disk has
                (mount.path / f"f{number}").write_bytes(content)
            assert flushed(mount) and not mount.status()["problems"]
            assert all((bucket / f"f{number}").read_bytes() == content for number in range(10))


def test_a_cache_disk_that_is_too_small_is_told(server, bucket, place):
    with small_disk(place / "disk", "24m") as disk:
        options = f"cache_dir={disk / 'cache'},cache_free=64M"
        with s3_server.mounted(server, bucket.name, place, "-o", options, alarms=True) as mount:
            (problem,) = mount.status()["problems"]
            assert problem["code"] == "cache_full" and "cache_free" in problem["message"] and problem["degrades"]
            assert errno_of((mount.path / "f").write_bytes, b"1") == errno.ENOSPC
            assert "of which 64 MiB are kept free" in mount.log()


def test_who_writes_faster_than_the_bucket_takes_waits_and_gets_no_error(server, bucket, place):
    content = random.Random(3).randbytes(4 * MIB)
    with s3_server.mounted(server, bucket.name, place, "-o", "staging_size=8M") as mount:
        server.process.send_signal(signal.SIGSTOP)
        resume = threading.Timer(5, server.process.send_signal, [signal.SIGCONT])
        resume.start()
        try:
            for number in range(6):
                (mount.path / f"f{number}").write_bytes(content)
                assert mount.status()["storage"]["staged_bytes"] <= 8 * MIB + 2 * len(content)
        finally:
            resume.join()
        assert flushed(mount)
        assert all((bucket / f"f{number}").read_bytes() == content for number in range(6))
