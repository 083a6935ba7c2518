"""A volume in a btrfs subvolume, on a loop image: its quota group is a second fence behind the exact limit."""

import contextlib
import errno
import os
import subprocess

import pytest

import mounting

MIB = 1 << 20


def run(*command):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def btrfs(place):
    """Return the root of an empty btrfs with quotas."""
    with mounting.loop_image(place, "btrfs", 1 << 30) as root:
        run("btrfs", "quota", "enable", root)
        yield root


def limit(subvolume):
    """Return the limit of a subvolume's quota group."""
    rows = run("btrfs", "qgroup", "show", "--raw", "-rf", subvolume).splitlines()
    return rows[-1].split()[3]


def fill(path, size):
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            for _ in range(size // MIB):
                file.write(bytes(MIB))
        try:
            os.fsync(file.fileno())
        except OSError as error:
            assert error.errno == errno.EDQUOT


def test_the_quota_group_holds_who_writes_beside_the_gateway(btrfs, place):
    data = btrfs / "volume"
    run("btrfs", "subvolume", "create", data)
    with mounting.mounted(place, "--quota", str(10 * MIB), source=str(data)) as mount:
        assert limit(data) == str(74 * MIB)
        fill(mount.path / "f", 20 * MIB)
        assert (mount.path / "f").stat().st_size == 10 * MIB
        assert not mount.status()["problems"]
        assert mounting.volgate("quota", "set", mount.path, "20M").returncode == 0
        assert limit(data) == str(84 * MIB)
        fill(data / "beside", 200 * MIB)
        assert 64 * MIB < (data / "beside").stat().st_size < 74 * MIB
        (data / "beside").unlink()
        run("btrfs", "filesystem", "sync", btrfs)
        mounting.volgate("quota", "set", mount.path, "none")
        assert limit(data) == "none"


def test_a_directory_below_a_subvolume_has_no_quota_group(btrfs, place):
    data = btrfs / "plain"
    data.mkdir()
    with mounting.mounted(place, "--quota", str(10 * MIB), source=str(data)) as mount:
        fill(mount.path / "f", 20 * MIB)
        assert (mount.path / "f").stat().st_size == 10 * MIB
        assert not mount.status()["problems"]


def test_a_limit_that_an_administrator_set_stays_as_it_is(btrfs, place):
    data = btrfs / "volume"
    run("btrfs", "subvolume", "create", data)
    run("btrfs", "qgroup", "limit", "500M", data)
    for options in ([], ["--quota", "1M"], ["--quota", "none"]):
        with mounting.mounted(place, *options, source=str(data), alarms=True) as mount:
            assert limit(data) == str(500 * MIB)
            told = "500 MiB, which volgate did not set" in mounting.volgate("status", mount.path).stdout
            assert told == (mount.status()["quota_bytes"] is not None)
