"""Storage that hangs (its client or its server is stopped): a bounded errno, no harm to others, and it heals."""

import contextlib
import errno
import os
import subprocess
import time

import pytest

import ceph_cluster
import mounting
import shares

DEADLINE_S = 3


@contextlib.contextmanager
def served(directory, path):
    """Serve a directory to this host by bindfs, which stands for NFS: its calls hang while it is stopped."""
    process = subprocess.Popen(["bindfs", "-f", "-o", "attr_timeout=0,entry_timeout=0", directory, path])
    try:
        wait_for(lambda: mounting.find_mount(path))
        yield ceph_cluster.Process(process.pid)
    finally:
        subprocess.run(["umount", "-l", path], check=True)
        process.wait(20)


@pytest.fixture(params=["mounted", "direct", "share"])
def storage(request, place):
    """Return a source, its options, and what can hang: what is mounted, or the cluster's server of metadata."""
    if request.param == "share":
        with shares.running(place) as share:
            share.anvil.add_share("projects")
            with served(share.data, share.mounted) as server:
                yield share.source, ["-o", share.options], server
        return
    with ceph_cluster.running(place) as cluster, ceph_cluster.mounted(cluster, place / "cephfs") as found:
        (found.path / "volume").mkdir()
        if request.param == "mounted":
            yield str(found.path / "volume"), [], found
        else:
            yield "ceph:///volume", ["-o", f"conf={cluster.configuration},client=fs"], cluster.daemon("mds")


def failure(call, *arguments):
    """Return the errno with which a call fails, and within how many seconds."""
    began = time.monotonic()
    try:
        call(*arguments)
    except OSError as error:
        return error.errno, time.monotonic() - began
    return 0, time.monotonic() - began


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def problems(mount):
    return [problem["code"] for problem in mount.status()["problems"]]


def test_hung_storage_harms_no_other_volume_and_heals_without_a_remount(storage, place, monkeypatch):
    monkeypatch.setenv("VOLGATE_MOUNT__REQUEST_DEADLINE", f"{DEADLINE_S}s")
    source, options, culprit = storage
    options += ["--quota", "1M", "--attr-timeout", "0"]
    with (
        mounting.mounted(place, name="other") as other,
        mounting.mounted(place, *options, source=source, alarms=True) as mount,
    ):
        (mount.path / "f").write_text("before")
        reader = os.open(mount.path / "f", os.O_RDWR)
        os.fsync(reader)
        culprit.hang()
        try:
            calls = [(os.mkdir, mount.path / "d"), (os.symlink, "target", mount.path / "l")]
            if not source.startswith("ceph://"):  # libcephfs answers these by what it may keep
                calls += [(os.stat, mount.path / "f"), (os.pwrite, reader, b"during", 0)]
            children = [mounting.spawn(failure, *call) for call in calls]
            for child in children:
                number, took_s = child.result()
                assert number == errno.ETIMEDOUT and took_s < 10 * DEADLINE_S
            wait_for(lambda: problems(mount)[:1] == ["storage_hangs"])
            assert mount.status()["state"] == "degraded"
            assert mount.metric("volgate_ready") == 0
            (other.path / "f").write_text("meanwhile")
            assert (other.path / "f").read_text() == "meanwhile"
            assert other.status()["state"] == "ready" and other.metric("volgate_ready") == 1
        finally:
            culprit.go_on()
        wait_for(lambda: mount.status()["state"] == "ready" and mount.metric("volgate_ready") == 1)
        os.close(reader)
        (mount.path / "g").write_text("after")
        assert (mount.path / "g").read_text() == "after"
        used = sum(file.stat().st_size for file in mount.path.iterdir() if file.is_file())
        assert used <= mount.status()["used_bytes"] <= 1 << 20
    with mounting.mounted(place, *options, source=source, alarms=True) as mount:  # what was given up is counted
        used = sum(file.stat().st_size for file in mount.path.iterdir() if file.is_file())
        assert mount.status()["used_bytes"] == used


def test_a_killed_daemon_is_gone_though_the_kernel_holds_one_of_its_threads(place):
    """It has the kernel forget a name in a directory where somebody waits for it: neither can be killed."""
    shared, data = place / "served", place / "backing"
    for directory in (shared, data):
        directory.mkdir()
    mounting.connections()  # else nobody could end one
    with served(data, shared) as server, mounting.mounted(place, source=str(shared), alarms=True) as mount:
        assert not (mount.path / "absent").exists()  # and the kernel remembers it
        server.hang()
        try:
            child = mounting.spawn(failure, os.mkdir, mount.path / "d")
            waiting = mounting.fuse_control(mounting.find_mount(mount.path).minor, "waiting")
            mounting.wait_until(lambda: int(waiting.read_text()) > 0)
            forgetting = mounting.spawn(failure, mounting.request, mount.volume_id(), "POST", "/v1/refresh")
            tasks = f"/proc/{mount.process.pid}/task"
            mounting.wait_until(lambda: "fuse_reverse_inval_entry" in "".join(map(stack_of, paths(tasks))))
            mount.process.kill()
            assert child.result()[0] in (errno.ENOTCONN, errno.ECONNABORTED)
            mount.process.wait(10)
            forgetting.kill()
        finally:
            server.go_on()
        mount.kill()
        mount.checked = False
    assert mounting.volgate("list").returncode == 0


def paths(directory):
    return [os.path.join(directory, name) for name in os.listdir(directory)]


def stack_of(task):
    with contextlib.suppress(OSError), open(f"{task}/stack") as file:
        return file.read()
    return ""
