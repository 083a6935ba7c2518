"""The split daemon: root's parent mounts, a worker without root's rights serves."""

import json
import os
import signal
from pathlib import Path

import pytest

from mounting import find_mount, in_child, mounted, volgate, wait_until, walk_usage

SPLIT = ("-o", "worker=nobody")
KEPT = {0, 1, 2, 3, 4, 27}


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def worker_of(mount):
    return mount.status()["pid"]


def test_the_worker_has_no_rights_but_to_act_on_files(place):
    with mounted(place, *SPLIT) as mount:
        worker = worker_of(mount)
        assert worker != mount.process.pid
        status = status_of(worker)
        assert status["Uid"].split() == ["65534"] * 4
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapEff", "CapPrm", "CapBnd"):
            assert {n for n in range(64) if int(status[kind], 16) >> n & 1} <= KEPT, kind
        assert status_of(mount.process.pid)["Uid"].split()[0] == "0"


def test_files_belong_to_their_makers_and_the_limit_holds(place):
    with mounted(place, *SPLIT, "--quota", "100K") as mount:
        mount.path.chmod(0o777)
        in_child(Path.write_text, mount.path / "users", "x", uid=1234)
        (mount.path / "roots").write_text("x")
        assert os.stat(mount.backing / "users").st_uid == 1234
        os.chown(mount.path / "roots", 77, 88)
        (mount.path / "roots").chmod(0o4755)
        assert os.stat(mount.backing / "roots").st_mode & 0o7777 == 0o4755
        os.mknod(mount.path / "null", 0o020666, os.makedev(1, 3))
        with pytest.raises(OSError, match="quota"), (mount.path / "big").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(8192))
        wait_until(lambda: mount.statistic("open_files") == 0)
        assert mount.status()["used_bytes"] == walk_usage(mount.backing)[0] == 100 << 10


def test_a_stop_ends_both(place):
    with mounted(place, *SPLIT) as mount:
        worker = worker_of(mount)
        (mount.path / "f").write_text("x")
        assert mount.stop() == 0
        assert not Path(f"/proc/{worker}").exists()
        assert find_mount(mount.path) is None
        mount.checked = False


def test_a_killed_worker_leaves_no_dead_mount_and_usage_is_exact(place):
    with mounted(place, *SPLIT, "--quota", "1MiB") as mount:
        (mount.path / "f").write_bytes(bytes(1000))
        os.kill(worker_of(mount), signal.SIGKILL)
        assert mount.process.wait(20) == 2
        assert find_mount(mount.path) is None
        mount.checked = False
    with mounted(place, *SPLIT) as mount:
        status = mount.status()
        assert (status["used_bytes"], status["quota_bytes"]) == (1000, 1 << 20)
        assert status["usage_found"].startswith("recovered")


def test_a_killed_parent_leaves_the_worker_serving_until_it_is_unmounted(place):
    with mounted(place, *SPLIT) as mount:
        mount.checked = False
        mount.process.kill()
        mount.process.wait()
        (mount.path / "f").write_text("still served")
        assert volgate("umount", mount.path).returncode == 0
        assert (mount.backing / "f").read_text() == "still served"


def test_detached_and_refused_as_without_a_worker(place):
    (place / "data").mkdir()
    (place / "mnt").mkdir()
    done = volgate("mount", place / "data", place / "mnt", "-d", *SPLIT)
    assert (done.returncode, done.stdout.startswith("mounted data-")) == (0, True), done
    pid = json.loads(volgate("status", place / "mnt", "--json").stdout)["pid"]
    assert os.getsid(pid) == pid
    again = volgate("mount", place / "data", place / "mnt", "-d", *SPLIT)
    assert (again.returncode, "is a mount point already" in again.stderr) == (32, True)
    (place / "second").mkdir()
    held = volgate("mount", place / "data", place / "second", "-d", *SPLIT)
    assert (held.returncode, "in use at" in held.stderr, len(held.stderr.splitlines())) == (32, True, 1), held
    assert volgate("umount", place / "mnt").returncode == 0
    unknown = volgate("mount", place / "data", place / "mnt", "-o", "worker=no-such-user")
    assert (unknown.returncode, "no user 'no-such-user'" in unknown.stderr) == (32, True)
