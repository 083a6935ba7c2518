"""How many requests a system call costs: the least possible. Counted, never timed."""

import os
import time

import pytest

from mounting import wait_until


@pytest.fixture
def counted(volume):
    """Return a function that runs a call and returns the requests it cost."""
    (volume.path / "warm").write_bytes(b"x")
    (volume.path / "warm").unlink()  # the kernel has learned by now that FLUSH is not served

    def count(call):
        settle(volume)
        before = volume.requests()
        call()
        settle(volume)
        after = volume.requests()
        return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}

    return volume, count


def settle(volume):
    """Wait for the releases that the kernel sends on its own time."""
    wait_until(lambda: volume.statistic("open_files") == 0)
    time.sleep(0.02)


def create(path, data=b"x" * 4096):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def test_what_the_kernel_knows_never_reaches_the_daemon(counted):
    volume, count = counted
    create(volume.path / "f")
    os.stat(volume.path / "f")
    os.path.exists(volume.path / "missing")
    read(volume.path / "f")

    def costs(call, expected):
        # Once more where the host took a cache away in between (memory reclaim), which it may at any time.
        return any(count(lambda: [call() for _ in range(10)]) == expected for _ in range(3))

    assert costs(lambda: os.stat(volume.path / "f"), {})
    assert costs(lambda: os.path.exists(volume.path / "missing"), {})
    assert costs(lambda: read(volume.path / "f"), {"open": 10, "release": 10})


def test_create_write_close(counted):
    volume, count = counted
    os.stat(volume.path)
    assert count(lambda: create(volume.path / "f")) == {
        "lookup": 1, "create": 1, "getxattr": 1, "write": 1, "release": 1,
    }  # fmt: skip


def test_content_that_was_written_is_not_read_again(counted):
    volume, count = counted
    create(volume.path / "f")
    os.stat(volume.path)  # a change of names makes the kernel ask for its directory's attributes once
    assert count(lambda: read(volume.path / "f")) == {"open": 1, "release": 1}


def test_each_further_write_is_one_request(counted):
    volume, count = counted

    def write_many():
        fd = os.open(volume.path / "f", os.O_CREAT | os.O_WRONLY)
        for _ in range(10):
            os.write(fd, b"x" * 4096)
        os.close(fd)

    assert count(write_many)["write"] == 10
    assert count(write_many).get("getxattr", 0) <= 1


def test_a_megabyte_is_one_write(counted):
    volume, count = counted
    assert count(lambda: create(volume.path / "f", b"x" * (1 << 20)))["write"] == 1


def test_a_listing_carries_the_attributes(counted):
    volume, count = counted
    (volume.path / "d").mkdir()
    for n in range(1000):
        (volume.backing / "d" / f"file-{n}").touch()

    def listing():
        assert len([entry.stat() for entry in os.scandir(volume.path / "d")]) == 1000

    os.stat(volume.path / "d")
    cost = count(listing)
    assert set(cost) == {"opendir", "readdir", "releasedir"}, cost
    assert cost["readdir"] < 20
