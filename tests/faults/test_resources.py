"""What runs out: descriptors, the disk below, the disk of the ledger. One clear answer each, and usage stays exact."""

import contextlib
import errno
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mounting import in_namespace, mounted, start, used_of, volgate, wait_until, walk_usage


def test_who_opens_more_files_than_the_daemon_may_hold_is_told_so_and_nobody_else_suffers(place):
    with mounted(place, alarms=True) as mount:
        resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        held = []
        with pytest.raises(OSError) as caught:
            for n in range(200):
                held.append(os.open(mount.path / f"f{n}", os.O_CREAT | os.O_WRONLY))
        assert caught.value.errno in (errno.EMFILE, errno.ENFILE)
        assert len(held) > 20
        os.write(held[0], b"still written")
        for fd in held:
            os.close(fd)
        (mount.path / "after").write_text("x")
        wait_until(lambda: mount.statistic("open_files") == 0)
        assert used_of(mount) == walk_usage(mount.backing)


def test_a_daemon_takes_as_many_descriptors_as_it_may_have(folders):
    data, mnt = folders
    mount = start(data, mnt, command=("prlimit", "--nofile=256:4096", sys.executable, "-m", "volgate", "mount"))
    try:
        assert resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    finally:
        assert mount.stop() == 0


def test_an_idle_mount_takes_little_memory(place):
    """Counted as a host has it: pages that several mounts share are divided among them."""
    with mounted(place, "--quota", "1GiB") as mount:
        (mount.path / "f").write_text("x")
        volgate("status", mount.path)
        rollup = Path(f"/proc/{mount.process.pid}/smaps_rollup").read_text()
        (pss,) = [line for line in rollup.splitlines() if line.startswith("Pss:")]
        assert int(pss.split()[1]) < 45 * 1024, rollup


def test_a_full_disk_below_is_enospc_and_usage_stays_exact(place):
    (place / "volume.data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", place / "volume.data"], check=True)
    try:
        with mounted(place, "--quota", "1GiB", alarms=True) as mount:
            with pytest.raises(OSError) as caught, (mount.path / "f").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(100_000))
            assert caught.value.errno == errno.ENOSPC
            assert os.statvfs(mount.path).f_bavail == 0
            wait_until(lambda: mount.statistic("open_files") == 0)
            assert used_of(mount) == walk_usage(mount.backing)
            os.truncate(mount.path / "f", 10)
            (mount.path / "g").write_text("fits again")
            assert used_of(mount) == walk_usage(mount.backing)
    finally:
        subprocess.run(["umount", "-l", place / "volume.data"], check=True)


def test_storage_without_inodes_is_mounted_all_the_same(place):
    (place / "volume.data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=60,size=10m", "small", place / "volume.data"], check=True)
    try:
        for number in range(2):
            with mounted(place, alarms=True) as mount:
                if number == 0:
                    with pytest.raises(OSError, match="No space"):
                        for name in range(60):
                            (mount.path / str(name)).touch()
                (mount.path / str(number)).unlink()
                (mount.path / f"again{number}").touch()
                assert volgate("quota", "check", mount.path).returncode == 0
    finally:
        subprocess.run(["umount", "-l", place / "volume.data"], check=True)


def test_a_limit_that_cannot_be_stored_is_refused_and_the_old_one_holds(place):
    (place / "volume.data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", place / "volume.data"], check=True)
    try:
        with mounted(place, "--quota", "1GiB", alarms=True) as mount:
            with pytest.raises(OSError, match="No space"), (mount.path / "f").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            refused = volgate("quota", "set", mount.path, "5GiB")
            assert refused.returncode != 0 and len(refused.stderr.splitlines()) == 1, refused
            assert mount.status()["quota_bytes"] == 1 << 30
        with mounted(place, alarms=True) as mount:
            assert mount.status()["quota_bytes"] == 1 << 30
    finally:
        subprocess.run(["umount", "-l", place / "volume.data"], check=True)


FULL_LEDGER = """
mkdir data mnt
mount -t tmpfs -o size=256k state /var/lib/volgate
volgate mount ./data mnt -d --quota 1MiB
echo hello >mnt/f
head -c 1000000 /dev/zero >/var/lib/volgate/filler 2>/dev/null || true
head -c 5000 /dev/zero >mnt/g
volgate quota set mnt 2MiB
volgate umount mnt
volgate mount ./data mnt -d && exit 1
rm /var/lib/volgate/filler
volgate mount ./data mnt -d
volgate status mnt
volgate quota check mnt
volgate umount mnt
"""


def test_a_full_disk_under_the_ledger_stops_no_mount_refuses_a_new_one_and_loses_nothing(place):
    done = in_namespace(FULL_LEDGER, place)
    assert done.returncode == 0, done
    assert "the disk that holds the ledger" in done.stderr and "Traceback" not in done.stderr
    assert "counted: 5006 bytes, 2 inodes" in done.stdout and "equal" in done.stdout


def test_a_locked_ledger_stops_no_mount_refuses_a_new_one_and_loses_nothing(place):
    with mounted(place, "--quota", "1MiB", alarms=True) as mount:
        (mount.path / "f").write_bytes(bytes(700_000))
        database = Path(f"/var/lib/volgate/volumes/{mount.volume_id()}/ledger.db")
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as somebody:
            somebody.execute("BEGIN EXCLUSIVE")
            (mount.path / "g").write_bytes(bytes(300_000))
            os.unlink(mount.path / "f")
            assert used_of(mount) == walk_usage(mount.backing) == (300_000, 1)
            assert mount.stop() == 0
            assert "measured at its next start" in mount.log()
            mount.checked = False
            refused = volgate("mount", mount.backing, mount.path, "-d")
            assert (refused.returncode, "database is locked" in refused.stderr) == (32, True), refused
            assert len(refused.stderr.splitlines()) == 1
    with mounted(place, alarms=True) as mount:
        status = mount.status()
        assert (status["used_bytes"], status["file_count"], status["quota_bytes"]) == (300_000, 1, 1 << 20)


def test_a_catalog_that_cannot_be_written_says_so(place):
    (place / "data").mkdir()
    script = "mount -t tmpfs -o ro state /var/lib/volgate; volgate volume create some ./data"
    done = in_namespace(script, place)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("volgate: ") and "bug" not in done.stderr
    assert volgate("volume", "show", "some").returncode == 69


@pytest.mark.parametrize("kept", ["ledger.db", "identity.json"])
def test_what_a_newer_version_wrote_is_refused_and_left_as_it_is(place, kept):
    with mounted(place, "--quota", "1MiB") as mount:
        (mount.path / "f").write_text("x")
        database = Path(f"/var/lib/volgate/volumes/{mount.volume_id()}/ledger.db")
    identity = mount.backing / ".volgate" / "identity.json"
    if kept == "ledger.db":
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as newer:
            newer.execute("UPDATE ledger SET format = 99")
    else:
        identity.write_text(identity.read_text().replace('"format_version": 1', '"format_version": 99'))
    before = identity.read_bytes()
    refused = volgate("mount", mount.backing, mount.path, "-d")
    assert (refused.returncode, "has format 99" in refused.stderr) == (32, True), refused
    assert "upgrade volgate" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert identity.read_bytes() == before
    with contextlib.closing(sqlite3.connect(database)) as stored:
        assert stored.execute("SELECT format, used_bytes FROM ledger").fetchone() in ((99, 1), (3, 1))


def test_holes_count_as_if_they_were_written_and_allocation_ahead_is_refused(place):
    with mounted(place, "--quota", "1MiB") as mount, (mount.path / "f").open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="quota"):
            file.truncate((1 << 20) + 1)
        file.truncate(1 << 20)
        assert used_of(mount) == (1 << 20, 1) and os.statvfs(mount.path).f_bavail == 0
        for options in (["-l", "1M"], ["-n", "-o", "1M", "-l", "1M"], ["-p", "-l", "4096"]):
            done = subprocess.run(["fallocate", *options, mount.path / "f"], capture_output=True, text=True)
            assert "support" in done.stderr
        assert used_of(mount) == (1 << 20, 1)
        assert file.seek(0, os.SEEK_HOLE) == 1 << 20
        assert os.pwrite(file.fileno(), b"into the hole", 5000) == 13
        assert used_of(mount) == walk_usage(mount.backing) == (1 << 20, 1)
