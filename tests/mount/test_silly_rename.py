"""Storage that keeps a removed file under a name of its own until it is closed, as NFS and libfuse do."""

import contextlib
import os
import subprocess

import pytest

import mounting

SIZE = 1000


@contextlib.contextmanager
def on_bindfs(place, *options):
    """Mount what bindfs serves: no cache of its own, and it renames what is removed while open."""
    served, data = place / "served", place / "backing"
    for directory in (served, data):
        directory.mkdir(exist_ok=True)
    process = subprocess.Popen(["bindfs", "-f", "-o", "attr_timeout=0,entry_timeout=0", data, served])
    try:
        mounting.wait_until(lambda: mounting.find_mount(served) is not None)
        with mounting.mounted(place, "--quota", "1M", *options, source=str(served)) as mount:
            yield mount
    finally:
        subprocess.run(["umount", "-l", served], check=True)
        process.wait(20)


def counted(mount):
    status = mount.status()
    return status["used_bytes"], status["file_count"]


@pytest.mark.parametrize("how", ["unlink", "rename"])
@pytest.mark.parametrize("order", ["opened first", "opened last"])
def test_a_file_of_two_names_is_free_once_both_are_gone_and_it_is_closed(place, how, order):
    with on_bindfs(place) as mount:
        before = counted(mount)
        (mount.path / "a").write_bytes(b"x" * SIZE)
        os.link(mount.path / "a", mount.path / "b")
        opened = os.open(mount.path / "a", os.O_RDONLY)
        for name in ("a", "b") if order == "opened first" else ("b", "a"):
            if how == "unlink":
                (mount.path / name).unlink()
            else:
                (mount.path / "new").touch()
                (mount.path / "new").rename(mount.path / name)
        assert counted(mount)[0] == before[0] + SIZE
        assert os.pread(opened, 2 * SIZE, 0) == b"x" * SIZE
        os.close(opened)
        left = (before[0], before[1] + (2 if how == "rename" else 0))
        mounting.wait_until(lambda: counted(mount) == left)


def test_the_other_name_of_a_file_stays_charged_whatever_is_closed(place):
    with on_bindfs(place) as mount:
        before = counted(mount)
        (mount.path / "a").write_bytes(b"x" * SIZE)
        os.link(mount.path / "a", mount.path / "b")
        os.link(mount.path / "a", mount.path / "c")
        opened = os.open(mount.path / "a", os.O_RDONLY)
        (mount.path / "a").unlink()
        os.close(opened)
        mounting.wait_until(lambda: sorted(os.listdir(place / "backing")) == [".volgate", "b", "c"])
        (mount.path / "b").unlink()
        assert counted(mount) == (before[0] + SIZE, before[1] + 1)
        (mount.path / "c").unlink()
        assert counted(mount) == before


def test_to_remove_what_storage_keeps_frees_nothing_before_the_last_close(place):
    with on_bindfs(place) as mount:
        before = counted(mount)
        (mount.path / "f").write_bytes(b"x" * SIZE)
        (mount.path / "other").write_bytes(b"y" * SIZE)
        opened = os.open(mount.path / "f", os.O_RDWR)
        (mount.path / "f").unlink()
        for _ in range(3):  # it gets another such name each time
            kept = [name for name in os.listdir(mount.path) if name != "other"]
            assert len(kept) == 1
            (mount.path / kept[0]).unlink()
            assert counted(mount) == (before[0] + 2 * SIZE, before[1] + 2)
        os.pwrite(opened, b"z" * SIZE, SIZE)
        assert counted(mount) == (before[0] + 3 * SIZE, before[1] + 2)
        os.close(opened)
        mounting.wait_until(lambda: counted(mount) == (before[0] + SIZE, before[1] + 1))
        mounting.wait_until(lambda: sorted(os.listdir(place / "backing")) == [".volgate", "other"])
