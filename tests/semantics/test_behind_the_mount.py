"""Changes behind the mount, and what the kernel forgets."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from mounting import mounted, spawn, wait_until

LOOKED_UP = int(os.environ.get("VOLGATE_LOOKUPS", "20000"))


@pytest.fixture
def volume(place):
    with mounted(place, "--attr-timeout", "0") as mount:
        yield mount


def test_content_attributes_and_names_changed_behind_are_seen(volume):
    front, back = volume.path, volume.backing
    (front / "f").write_text("first")
    assert (front / "f").read_text() == "first"
    (back / "f").write_text("other")  # same size
    os.utime(back / "f", ns=(1, 1))
    assert (front / "f").read_text() == "other"
    (back / "f").write_text("longer than before")
    assert (front / "f").read_text() == "longer than before"
    os.chmod(back / "f", 0o600)
    assert os.stat(front / "f").st_mode & 0o777 == 0o600
    os.rename(back / "f", back / "g")
    assert not (front / "f").exists()
    assert (front / "g").read_text() == "longer than before"
    (back / "new").write_text("new")
    assert sorted(os.listdir(front)) == ["g", "new"]
    os.unlink(back / "g")
    assert not (front / "g").exists()


def test_no_reader_meets_old_pages_after_a_change_of_the_same_size(volume):
    front, back = volume.path / "f", volume.backing / "f"
    front.write_text("000")
    for n in range(1, 300):
        back.write_text(f"{n:03}")
        os.utime(back, ns=(n, n))
        assert front.read_text() == f"{n:03}"
    with open(front):
        for n in range(300, 600):
            back.write_text(f"{n:03}")
            os.utime(back, ns=(n, n))
            assert front.read_text() == f"{n:03}"


def test_own_change_of_times_does_not_hide_a_change_behind(volume):
    front, back = volume.path / "f", volume.backing / "f"
    front.write_text("old")
    assert front.read_text() == "old"
    back.write_text("new")
    os.utime(back, ns=(1, 1))
    os.utime(front, ns=(2, 2))
    assert front.read_text() == "new"


def test_a_file_replaced_behind_is_never_mixed_with_the_old_one(volume):
    front, back = volume.path, volume.backing
    (front / "f").write_text("old")
    with open(front / "f", "r+") as held:
        (back / "new").write_text("new")
        os.rename(back / "new", back / "f")
        assert (front / "f").read_text() == "new"
        assert held.read() == "old"
        held.write("er")
        held.flush()
        assert (front / "f").read_text() == "new"


def test_a_name_that_changes_its_type_behind(volume):
    front, back = volume.path, volume.backing
    (front / "x").write_text("file")
    os.unlink(back / "x")
    (back / "x").mkdir()
    (back / "x" / "in").write_text("in")
    assert (front / "x" / "in").read_text() == "in"
    subprocess.run(["rm", "-r", str(back / "x")], check=True)
    os.symlink("elsewhere", back / "x")
    assert os.readlink(front / "x") == "elsewhere"


def test_a_directory_swapped_behind(volume):
    front, back = volume.path, volume.backing
    (front / "d" / "e").mkdir(parents=True)
    (front / "d" / "e" / "f").write_text("one")
    os.rename(back / "d", back / "moved")
    (back / "d" / "e").mkdir(parents=True)
    (back / "d" / "e" / "f").write_text("two")
    assert (front / "d" / "e" / "f").read_text() == "two"
    assert (front / "moved" / "e" / "f").read_text() == "one"


def test_a_file_open_while_it_changes_behind_shows_the_change(place):
    with mounted(place, "--attr-timeout", "0", name="v") as mount:
        (mount.path / "f").write_bytes(b"a" * 8192)
        with open(mount.path / "f", "rb", buffering=0) as held:
            assert held.read(4) == b"aaaa"
            (mount.backing / "f").write_bytes(b"b" * 8192)
            os.stat(mount.path / "f")

            def seen():
                return os.pread(held.fileno(), 4, 0) == b"bbbb"

            wait_until(seen)


def test_dropping_a_files_pages_while_it_is_being_read_locks_nobody_up(volume):
    """The kernel waits for pages whose reads the daemon has to answer: from inside a handler this would never end."""
    front, back = volume.path / "f", volume.backing / "f"
    front.write_bytes(bytes(1 << 20))

    def read_until_new():
        with open(front, "rb", buffering=0) as file:
            while os.pread(file.fileno(), 1 << 20, 0)[-1:] != b"\xff":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    readers = [spawn(read_until_new) for _ in range(4)]
    for content in range(1, 256):
        back.write_bytes(bytes([content]) * (1 << 20))
        os.stat(front)
    for reader in readers:
        reader.result()


def test_what_the_kernel_forgets_leaves_the_table_and_the_memory(volume):
    (volume.backing / "d").mkdir()
    for n in range(LOOKED_UP):
        os.close(os.open(volume.backing / "d" / f"f{n}", os.O_CREAT))

    def memory():
        return psutil.Process(volume.process.pid).memory_info().rss

    def look():
        assert sum(1 for entry in os.scandir(volume.path / "d") if entry.stat()) == LOOKED_UP
        assert volume.statistic("lookups") - volume.statistic("forgets") >= LOOKED_UP

    def forget():
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return volume.statistic("inodes") <= 3

    before = memory()
    look()
    assert (memory() - before) / LOOKED_UP < 1024, "bytes an inode"
    wait_until(forget, 60)
    assert volume.statistic("lookups") - volume.statistic("forgets") <= 2
    kept = memory()
    look()
    wait_until(forget, 60)
    assert memory() < kept * 1.1, "what was forgotten is not kept a second time"


def test_a_hundred_thousand_names_come_once_each_while_others_come_and_go(volume):
    subprocess.run(
        ["bash", "-c", "mkdir d; cd d; seq -f stable-%g 100000 | xargs touch"], cwd=volume.backing, check=True
    )
    seen = []
    with os.scandir(volume.path / "d") as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n % 1000 == 0:
                (volume.path / "d" / f"extra-{n}").touch()
                if n >= 5000:
                    os.unlink(volume.path / "d" / f"extra-{n - 5000}")
    stable = [name for name in seen if name.startswith("stable")]
    assert len(stable) == len(set(stable)) == 100_000
