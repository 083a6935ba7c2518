"""What runs out: descriptors, the disk below, the disk of the ledger. One clear answer each, and usage stays exact."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from mounting import mounted, used_of, volgate, wait_until, walk_usage


def in_namespace(script, place):
    """Run a bash script in a mount namespace of its own; ``volgate`` is the command line."""
    preamble = f'set -eu; cd "{place}"; volgate() {{ timeout 60 "{sys.executable}" -m volgate "$@"; }}; '
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", preamble + script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


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


def test_a_catalog_that_cannot_be_written_says_so(place):
    (place / "data").mkdir()
    script = "mount -t tmpfs -o ro state /var/lib/volgate; volgate volume create some ./data"
    done = in_namespace(script, place)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("volgate: ") and "bug" not in done.stderr
    assert volgate("volume", "show", "some").returncode == 69
