"""A volume in a btrfs subvolume, on a loop image: its quota group is a second fence behind the exact limit."""

import contextlib
import errno
import json
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


def test_a_copy_within_a_file_system_shares_its_blocks_and_is_charged_whole(btrfs, place):
    (btrfs / "data").mkdir()
    with mounting.mounted(place, "--quota", str(150 * MIB), source=str(btrfs / "data")) as mount:
        content = os.urandom(50 * MIB)
        (mount.path / "tree").mkdir()
        (mount.path / "tree/f").write_bytes(content)
        assert mounting.volgate("copy", mount.path / "tree", mount.path / "copy").returncode == 0
        assert (mount.path / "copy/f").read_bytes() == content
        assert mounting.used_of(mount)[0] == 100 * MIB
        run("sync", "-f", btrfs)
        total, exclusive, shared, _ = (
            run("btrfs", "filesystem", "du", "-s", "--raw", btrfs / "data").splitlines()[1].split()
        )
        assert int(shared) == 50 * MIB and int(total) - 2 * int(shared) == int(exclusive), (total, exclusive, shared)
        for name, status in (("third", 0), ("fourth", 73)):  # no block is needed, and yet the limit counts
            done = mounting.volgate("copy", mount.path / "tree", mount.path / name)
            assert done.returncode == status, done
        (mount.path / "copy/f").write_bytes(b"another")
        assert (mount.path / "tree/f").read_bytes() == content
        exact = json.loads(mounting.volgate("quota", "check", mount.path, "--json").stdout)["counted"]
        assert mounting.used_of(mount) == (exact["used_bytes"], exact["file_count"])


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
