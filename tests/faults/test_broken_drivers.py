"""A driver that raises, hangs or lies behind every handler of a real mount: the daemon lives, the caller gets an
errno, other files go on."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mounting import detach, find_mount, fuse_control, wait_until


def with_open(path, flags, call):
    fd = os.open(path, flags)
    try:
        call(fd)
    finally:
        os.close(fd)


CALLS = {
    # driver's call: what a user does to meet it
    "get_attributes": lambda m: os.stat(m / "file"),
    "open_directory": lambda m: os.listdir(m / "dir"),
    "get_attributes_of": lambda m: os.listdir(m),
    "sync_directory": lambda m: with_open(m / "dir", os.O_RDONLY, os.fsync),
    "list_names": lambda m: os.listdir(m / "dir"),
    "set_attributes": lambda m: os.chmod(m / "file", 0o600),
    "open_file": lambda m: os.close(os.open(m / "file", os.O_RDONLY)),
    "create_file": lambda m: os.close(os.open(m / "new", os.O_CREAT | os.O_WRONLY)),
    "create_node": lambda m: os.mkdir(m / "newdir"),
    "remove": lambda m: os.unlink(m / "victim"),
    "rename": lambda m: os.rename(m / "file", m / "renamed"),
    "get_space": lambda m: os.statvfs(m),
    "link": lambda m: os.link(m / "file", m / "linked"),
    "create_symlink": lambda m: os.symlink("x", m / "newlink"),
    "read_link": lambda m: os.readlink(m / "symlink"),
    "get_xattr": lambda m: os.getxattr(m / "file", "user.x"),
    "set_xattr": lambda m: os.setxattr(m / "file", "user.y", b"1"),
    "list_xattrs": lambda m: os.listxattr(m / "file"),
    "remove_xattr": lambda m: os.removexattr(m / "file", "user.x"),
    "read": lambda m: (m / "file").read_bytes(),
    "write": lambda m: with_open(m / "file", os.O_WRONLY, lambda fd: os.write(fd, b"x")),
    "truncate": lambda m: os.truncate(m / "file", 3),
    "sync": lambda m: with_open(m / "file", os.O_RDONLY, os.fsync),
}


@pytest.fixture
def faulty(place):
    """Return a function that mounts a volume whose driver fails at one call, while ``place/data.armed`` exists."""
    source, mount_point = place / "data", place / "mnt"
    mount_point.mkdir()
    (source / "dir").mkdir(parents=True)
    for name in ("file", "victim", "other"):
        (source / name).write_text("content")
    os.symlink("target", source / "symlink")
    os.setxattr(source / "file", "user.x", b"1")
    daemons = []

    def mount(kind, call, *, inline, deadline_s):
        program = str(Path(__file__).with_name("faulty_mount.py"))
        mode = "inline" if inline else "slow"
        command = [sys.executable, program, str(source), str(mount_point), kind, call, mode, str(deadline_s)]
        with (place / "log").open("wb") as log:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_until(lambda: find_mount(mount_point) is not None)
        os.listdir(mount_point)
        (place / "data.armed").touch()
        return daemons[0], mount_point

    yield mount
    detach(mount_point)
    for daemon in daemons:
        daemon.kill()
        daemon.wait()


@pytest.mark.parametrize("kind", ["raise", "oserror", "fail", "hang", "lie", "none", "group"])
@pytest.mark.parametrize("call", CALLS)
def test_a_broken_driver_costs_one_request_only(place, faulty, call, kind):
    daemon, mount_point = faulty(kind, call, inline=kind != "hang", deadline_s=0.3)
    number = 0
    try:
        CALLS[call](mount_point)
    except OSError as error:
        number = error.errno
    (place / "data.armed").unlink()
    if kind == "hang":
        assert number == errno.ETIMEDOUT
    elif kind in ("raise", "oserror", "fail", "group") or number:
        assert number == errno.EIO
    assert (mount_point / "other").read_text() == "content"
    (mount_point / "fresh").write_text("still serving")
    assert daemon.poll() is None
    subprocess.run(["umount", str(mount_point)], check=False, timeout=20)
    daemon.wait(60)
    assert "fresh" in os.listdir(place / "data")


def test_while_one_request_hangs_all_others_are_served(faulty):
    _, mount_point = faulty("hang", "read", inline=False, deadline_s=600)
    answers = []

    def read():
        try:
            answers.append((mount_point / "file").read_bytes())
        except OSError as error:
            answers.append(error.errno)

    stuck = threading.Thread(target=read)
    waiting = fuse_control(find_mount(mount_point).minor, "waiting")
    stuck.start()
    wait_until(lambda: int(waiting.read_text()) > 0)
    for n in range(100):
        (mount_point / f"new-{n}").write_text("written meanwhile")
        os.stat(mount_point / "other")
        os.rename(mount_point / f"new-{n}", mount_point / "renamed")
    assert len(os.listdir(mount_point)) == 6
    assert not answers
    detach(mount_point)
    stuck.join()
    assert answers == [errno.ECONNABORTED] or answers == [errno.ENOTCONN]
