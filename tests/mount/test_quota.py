"""The limit on real mounts: exact while many write, at the edge, and after kill -9."""

import errno
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from mounting import mounted, spawn, used_of, volgate, wait_until, walk_usage

MIB = 1 << 20
KILL_ROUNDS = int(os.environ.get("VOLGATE_KILL_ROUNDS", "10"))


def edquot(call, *args):
    with pytest.raises(OSError) as caught:
        call(*args)
    assert caught.value.errno == errno.EDQUOT


def fill(path, size, limit_s=60):
    """Write until refused; return how many bytes were accepted."""
    accepted = 0
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        while True:
            accepted += os.write(fd, os.urandom(size))
    except OSError as error:
        assert error.errno == errno.EDQUOT
    finally:
        os.close(fd)
    return accepted


def test_sixteen_parallel_writers_fill_a_volume_to_the_last_byte_and_never_beyond(place):
    limit = 5 * MIB + 123
    with mounted(place, "--quota", str(limit)) as mount:
        children = [spawn(fill, mount.path / f"f{n}", 1000 + 37 * n) for n in range(16)]
        for _ in range(50):
            assert walk_usage(mount.backing)[0] <= limit
            space = os.statvfs(mount.path)
            assert space.f_bfree >= 0
            time.sleep(0.01)
        assert sum(child.result() for child in children) == limit
        assert walk_usage(mount.backing) == (limit, 16)
        wait_until(lambda: mount.statistic("open_files") == 0)
        assert used_of(mount) == (limit, 16)
        for n in range(16):
            os.unlink(mount.path / f"f{n}")
        assert used_of(mount) == (0, 0)


CHAOS = """
    import os, random, sys, mmap
    random.seed(int(sys.argv[2]))
    try:
        os.chdir(sys.argv[1])
        os.makedirs(sys.argv[3], exist_ok=True)
        os.chdir(sys.argv[3])
    except OSError:
        sys.exit(3)  # the daemon was killed before this process had begun
    name = lambda: "f%d" % random.randrange(20)
    def write():
        with open(name(), random.choice(["wb", "ab"])) as f:
            f.seek(random.randrange(20000)); f.write(b"x" * random.randrange(30000)); f.flush(); f.write(b"y")
    def overwrite():
        with open(name(), "r+b") as f:
            f.seek(random.randrange(9000)); f.write(b"o" * random.randrange(30000))
    def unlinked():
        n = name()
        with open(n, "r+b") as f:
            os.unlink(n); f.seek(0, 2); f.write(b"z" * 5000)
    def mapped():
        with open(name(), "r+b") as f:
            m = mmap.mmap(f.fileno(), 0); m[:3] = b"map"; m.flush(); m.close()
    steps = [write, write, write, overwrite, unlinked, mapped,
             lambda: os.truncate(name(), random.randrange(40000)), lambda: os.unlink(name()),
             lambda: os.rename(name(), name()), lambda: os.link(name(), "l" + name()), lambda: os.unlink("l" + name()),
             lambda: os.rename("l" + name(), name()), lambda: os.mkdir("d%d" % random.randrange(5)),
             lambda: os.rmdir("d%d" % random.randrange(5)), lambda: os.symlink("x" * 50, "s%d" % random.randrange(5)),
             lambda: os.mkfifo("p%d" % random.randrange(5)), lambda: os.unlink("p%d" % random.randrange(5))]
    for _ in range(int(sys.argv[4])):
        try:
            random.choice(steps)()
        except ValueError:
            pass  # mmap of an empty file
        except OSError as error:
            if error.errno in (5, 107, 103, 19):
                sys.exit(3)
"""


def chaos(mount_point, seed, directory, steps):
    program = textwrap.dedent(CHAOS)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(mount_point), str(seed), directory, str(steps)], stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_processes_do_usage_is_what_a_walk_finds_and_zero_when_all_is_removed(place, seed):
    with mounted(place, "--quota", "400K", "--inodes", "90") as mount:
        workers = [chaos(mount.path, seed * 10 + n, f"w{n}", 1500) for n in range(4)]
        while any(worker.poll() is None for worker in workers):
            # A walk sees no single moment of what changes meanwhile; with the daemon halted nothing does.
            mount.process.send_signal(signal.SIGSTOP)
            total, inodes = walk_usage(mount.backing)
            mount.process.send_signal(signal.SIGCONT)
            assert total <= 400 * 1024
            assert inodes <= 90
            time.sleep(0.02)
        assert [worker.returncode for worker in workers] == [0] * 4
        wait_until(lambda: mount.statistic("open_files") == 0)
        assert used_of(mount) == walk_usage(mount.backing)
        subprocess.run(["rm", "-rf", *(str(p) for p in mount.path.iterdir())], check=True)
        assert used_of(mount) == (0, 0) == walk_usage(mount.backing)


@pytest.mark.timeout(300)
def test_usage_is_exact_after_kill_9_at_random_moments(place):
    data, mnt = place / "data", place / "mnt"
    data.mkdir()
    mnt.mkdir()
    moments = random.Random(4)
    for round_ in range(KILL_ROUNDS):
        done = volgate("mount", data, mnt, "-d", "--quota", "400K", "--inodes", "90")
        assert done.returncode == 0, done
        status = json.loads(volgate("status", mnt, "--json").stdout)
        assert (status["used_bytes"], status["file_count"]) == walk_usage(data)
        assert round_ == 0 or status["usage_found"].startswith("recovered"), status["usage_found"]
        workers = [chaos(mnt, round_ * 10 + n, f"w{n}", 100_000) for n in range(4)]
        time.sleep(moments.uniform(0.1, 0.6))
        os.kill(status["pid"], 9)
        assert {worker.wait(20) for worker in workers} <= {3, -7}  # a mapping of a dead mount: SIGBUS
    subprocess.run(["umount", "-l", str(mnt)], check=True)


def test_a_write_that_fits_partly_is_written_partly_then_refused(place):
    with mounted(place, "--quota", "10000") as mount:
        fd = os.open(mount.path / "f", os.O_CREAT | os.O_RDWR)
        assert os.write(fd, b"x" * 4096) == 4096
        assert os.pwrite(fd, b"y" * 4096, 8000) == 2000
        edquot(os.pwrite, fd, b"z", 10000)
        edquot(os.pwrite, fd, b"z", 20000)
        assert os.fstat(fd).st_size == 10000
        assert os.pwrite(fd, b"o" * 10000, 0) == 10000  # what is charged already may be written again
        edquot(os.ftruncate, fd, 10001)
        os.ftruncate(fd, 10)
        os.ftruncate(fd, 10000)  # a hole counts
        assert used_of(mount) == (10000, 1)
        os.close(fd)


def test_a_mapping_writes_at_the_limit_without_growing(place):
    with mounted(place, "--quota", "8192") as mount, open(mount.path / "f", "w+b") as file:
        file.write(b"x" * 8192)
        file.flush()
        with mmap.mmap(file.fileno(), 8192) as mapping:
            mapping[:] = b"y" * 8192
            mapping.flush()
        assert (mount.backing / "f").read_bytes() == b"y" * 8192
        assert used_of(mount) == (8192, 1)


def test_an_unlinked_open_file_is_charged_until_its_last_close(place):
    with mounted(place, "--quota", "1000") as mount:
        for how in ("unlink", "rename"):
            for mode in ("rb", "r+b"):
                (mount.path / "f").write_bytes(b"x" * 1000)
                with open(mount.path / "f", mode) as file:
                    if how == "unlink":
                        os.unlink(mount.path / "f")
                    else:
                        (mount.path / "empty").touch()
                        os.rename(mount.path / "empty", mount.path / "f")
                    edquot((mount.path / "g").write_bytes, b"y")
                    assert file.read() == b"x" * 1000
                wait_until(lambda: used_of(mount)[0] == 0)
                subprocess.run(["rm", "-f", str(mount.path / "f"), str(mount.path / "g")], check=True)
                assert used_of(mount) == (0, 0)


def test_a_further_hard_link_costs_nothing_and_the_last_name_frees(place):
    with mounted(place, "--quota", "1000", "--inodes", "1") as mount:
        (mount.path / "a").write_bytes(b"x" * 1000)
        os.link(mount.path / "a", mount.path / "b")
        assert used_of(mount) == (1000, 1)
        os.unlink(mount.path / "a")
        assert used_of(mount) == (1000, 1)
        os.unlink(mount.path / "b")
        assert used_of(mount) == (0, 0)


def test_every_way_to_make_an_inode_meets_the_inode_limit(place):
    with mounted(place, "--inodes", "1") as mount:
        (mount.path / "one").touch()
        edquot((mount.path / "f").touch)
        edquot(os.mkdir, mount.path / "d")
        edquot(os.symlink, "x", mount.path / "s")
        edquot(os.mkfifo, mount.path / "p")
        edquot(os.mknod, mount.path / "n")
        os.link(mount.path / "one", mount.path / "two")
        space = os.statvfs(mount.path)
        assert (space.f_files, space.f_ffree) == (1, 0)


def test_df_shows_the_limit_and_what_is_left(place):
    with mounted(place, "--quota", "1MiB", "--inodes", "100") as mount:
        (mount.path / "f").write_bytes(b"x" * (256 * 1024))
        space = os.statvfs(mount.path)
        assert (space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize) == (MIB, MIB - 256 * 1024)
        assert (space.f_files, space.f_favail) == (100, 99)


def test_above_a_lowered_limit_only_growth_is_refused(place):
    with mounted(place, "--quota", "2000") as mount:
        (mount.path / "f").write_bytes(b"x" * 2000)
        assert volgate("quota", "set", mount.path, "1000").returncode == 0
        edquot((mount.path / "g").write_bytes, b"y")
        (mount.path / "g").unlink()
        os.truncate(mount.path / "f", 1500)
        edquot(os.truncate, mount.path / "f", 1501)
        assert os.statvfs(mount.path).f_bavail == 0
        (mount.path / "f").unlink()
        (mount.path / "g").write_bytes(b"y" * 1000)


def test_open_with_truncate_frees_at_once(place):
    with mounted(place, "--quota", "1000") as mount:
        (mount.path / "f").write_bytes(b"x" * 1000)
        with open(mount.path / "f", "wb") as file:
            assert used_of(mount) == (0, 1)
            file.write(b"y" * 1000)
        assert (mount.path / "f").read_bytes() == b"y" * 1000
