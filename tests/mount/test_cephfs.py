"""Real mounts of volumes on a real CephFS: the exact limit before its late one, and what of it is not shown."""

import errno
import json
import os
import subprocess
import threading
import time

import pytest

import ceph_cluster
import mounting

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(module_place):
    with ceph_cluster.running(module_place) as found:
        yield found


@pytest.fixture(scope="module")
def cephfs(cluster, module_place):
    with ceph_cluster.mounted(cluster, module_place / "cephfs") as found:
        yield found.path


def reached(cluster, data, way):
    """Return source and options of a volume in a directory of the file system's root: over ceph-fuse, or directly."""
    if way == "direct":
        return f"ceph:///{data.name}", ["-o", f"conf={cluster.configuration},client=fs"]
    return str(data), []


def fill(path, limit):
    """Append steps of 4 KiB until one is refused, and return what was written; at most ``limit`` bytes."""
    written = 0
    with path.open("wb", buffering=0) as file:
        while written < limit:
            try:
                written += file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.EDQUOT
                break
    return written


ONE_HANDLE = """
import cephfs, os
fs = cephfs.LibCephFS(conffile=os.environ["CEPH_CONF"], auth_id="fs")
fs.mount(filesystem_name=b"cephfs")
for n in range(8):
    fs.mkdir(f"/alone{n}", 0o755)
    fs.setxattr(f"/alone{n}", "ceph.quota.max_bytes", b"%d" % (1 << 20), 0)
    fd, written = fs.open(f"/alone{n}/f", "w", 0o644), 0
    try:
        while written < 8 << 20:
            written += fs.write(fd, bytes(64 << 10), written)
    except cephfs.DiskQuotaExceeded:
        pass
    fs.close(fd)
    print(written)
"""


def test_cephfs_alone_passes_its_limit(cluster):
    """Why its own quota is the fence and not the limit: one client, one handle, steps of 64 KiB, eight times."""
    said = subprocess.run(
        ["/usr/bin/python3", "-c", ONE_HANDLE],
        env={**os.environ, "CEPH_CONF": str(cluster.configuration)},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    written = sorted(map(int, said.stdout.split()))
    print(" ".join(f"{size / MIB:.2f}" for size in written), "x of the limit")
    assert written[-1] > 1.05 * MIB


@pytest.mark.parametrize("way", ["mounted", "direct"])
def test_snapshots_are_those_of_the_storage(cluster, cephfs, place, way):
    data = cephfs / f"snapshots-{way}"
    data.mkdir()
    source, options = reached(cluster, data, way)
    with mounting.mounted(place, *options, source=source) as mount:
        (mount.path / "folder").mkdir()
        (mount.path / "folder/f").write_bytes(b"before" * 1000)
        taken = mounting.volgate("snapshot", "create", mount.path, "s1", "--metadata", "why=because", "--json")
        assert taken.returncode == 0, taken.stderr
        with open(mount.path / "folder/f", "r+b") as file:
            file.write(b"AFTER!")
        (mount.path / "folder/new").write_bytes(b"new")
        view = mount.path / ".snapshots/s1"
        assert (view / "folder/f").read_bytes() == b"before" * 1000
        assert os.listdir(view) == ["folder"] and os.listdir(view / "folder") == ["f"]
        assert not (view / ".volgate").exists() and not (view / ".snap").exists()
        with pytest.raises(OSError) as caught:
            (view / "folder/f").unlink()
        assert caught.value.errno == errno.EROFS
        (info,) = json.loads(mounting.volgate("snapshot", "list", mount.path, "--json").stdout)
        assert (info["snapshot_id"], info["file_count"], info["used_bytes"]) == ("s1", 2, 6000)
        assert info["metadata"] == {"why": "because"} and info["preserved_bytes"] is None
        assert (data / ".snap/s1").is_dir()
        deleted = mounting.volgate("snapshot", "delete", mount.path, "s1")
        assert deleted.returncode == 0, deleted.stderr
        assert not (data / ".snap/s1").exists()
        assert (mount.path / "folder/f").read_bytes()[:6] == b"AFTER!"


@pytest.mark.parametrize("way", ["mounted", "direct"])
def test_through_the_gateway_the_limit_is_exact(cluster, cephfs, place, way):
    data = cephfs / f"exact-{way}"
    data.mkdir()
    source, options = reached(cluster, data, way)
    with mounting.mounted(place, "--quota", str(MIB + 1000), *options, source=source) as mount:
        assert mount.status()["backend_type"] == "ceph"
        writers = [threading.Thread(target=fill, args=(mount.path / f"f{n}", 8 * MIB)) for n in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert sum(file.stat().st_size for file in mount.path.iterdir()) == MIB + 1000
        assert mount.status()["used_bytes"] == MIB + 1000
        assert os.getxattr(data, "ceph.quota.max_bytes") == b"%d" % (MIB + 1000 + 64 * MIB)
        space = os.statvfs(mount.path)
        assert (space.f_blocks * space.f_frsize // MIB, space.f_bavail) == (1, 0)
        (mount.path / "f0").unlink()
        before = mount.status()["used_bytes"]
        mount.kill()
    with mounting.mounted(place, *options, source=source) as mount:  # no handle is believed: the volume is counted
        assert mount.status()["used_bytes"] == before
        mounting.volgate("quota", "set", mount.path, "none")
        assert mount.status()["quota_bytes"] is None


def test_attributes_that_were_set_outlive_the_process(cluster, cephfs, place):
    data = cephfs / "attributes"
    data.mkdir()
    source, options = reached(cluster, data, "direct")
    with mounting.mounted(place, *options, source=source) as mount:
        (mount.path / "d").mkdir()
        for name in "fgh":
            (mount.path / "d" / name).write_bytes(b"content")
        (mount.path / "d/f").chmod(0o600)
        os.chown(mount.path / "d/f", 7, 8)
        os.utime(mount.path / "d/g", (1000, 1000))
        os.truncate(mount.path / "d/h", 3)
        with open(mount.path / "d/g", "rb") as file:
            os.fchmod(file.fileno(), 0o640)
        os.setxattr(mount.path / "d/h", "user.k", b"v")
        (mount.path / "d").chmod(0o750)
        os.truncate(mount.path / "d/f", 5000)
        held = open(mount.path / "d/open", "xb")
        (mount.path / "d/open").chmod(0o604)
        os.fchown(held.fileno(), 9, 9)
        with open(mount.path / "d/grown", "xb") as file:
            file.truncate(7000)
        mount.kill()
    with mounting.mounted(place, *options, source=source) as mount:
        status = {name: (mount.path / "d" / name).stat() for name in "fgh"}
        assert (status["f"].st_mode & 0o777, status["f"].st_uid, status["f"].st_gid) == (0o600, 7, 8)
        assert (status["g"].st_mode & 0o777, status["g"].st_mtime) == (0o640, 1000)
        assert (mount.path / "d/h").read_bytes() == b"con" and os.getxattr(mount.path / "d/h", "user.k") == b"v"
        assert (mount.path / "d").stat().st_mode & 0o777 == 0o750
        assert status["f"].st_size == 5000 and (mount.path / "d/grown").stat().st_size == 7000
        opened = (mount.path / "d/open").stat()
        assert (opened.st_mode & 0o777, opened.st_uid) == (0o604, 9)
    with pytest.raises(OSError, match=r"not connected|Bad file"):
        held.close()


def test_volumes_at_one_path_of_two_clusters_take_each_its_own_killed_owners_place(cluster, cephfs, place):
    (cephfs / "same").mkdir()
    with ceph_cluster.running(place) as other, ceph_cluster.mounted(other, place / "other") as found:
        (found.path / "same").mkdir()
        with mounting.mounted(
            place, "-o", f"conf={cluster.configuration},client=fs", source="ceph:///same", name="one"
        ):
            options = ("-o", f"conf={other.configuration},client=fs")
            with mounting.mounted(place, *options, source="ceph:///same", name="two") as mount:
                (mount.path / "f").write_bytes(b"content")
                mount.kill()
            with mounting.mounted(place, *options, source="ceph:///same", name="two") as mount:
                sessions = json.loads(other.ceph("tell", "mds.a", "session", "ls"))
                assert [s["client_metadata"].get("root") for s in sessions].count("/same") == 1
                assert (mount.path / "f").read_bytes() == b"content"


def test_a_file_that_grows_has_the_time_of_that(cluster, cephfs, place):
    data = cephfs / "grown"
    data.mkdir()
    source, options = reached(cluster, data, "direct")
    with mounting.mounted(place, *options, source=source) as mount:
        file = mount.path / "f"
        file.write_bytes(b"abc")
        for size in (5000, 4000, 5000, 9000):
            before = time.time()
            os.truncate(file, size)
            assert abs(file.stat().st_mtime - before) < 5
        os.utime(file, (1000, 1000))
        os.truncate(file, 10_000)
        assert file.stat().st_mtime >= before - 5


def test_the_directory_of_snapshots_is_not_reached(cephfs, place):
    data = cephfs / "hidden"
    (data / "d").mkdir(parents=True)
    (data / ".snap" / "one").mkdir()
    try:
        with mounting.mounted(place, source=str(data)) as mount:
            for directory in (mount.path, mount.path / "d"):
                with pytest.raises(FileNotFoundError):
                    os.listdir(directory / ".snap")
                with pytest.raises(PermissionError):
                    (directory / ".snap").mkdir()
                with pytest.raises(PermissionError):
                    (directory / ".snap").write_text("mine")
                (directory / "f").write_text("mine")
                with pytest.raises(PermissionError):
                    (directory / "f").rename(directory / ".snap")
                with pytest.raises(FileNotFoundError):
                    (directory / ".snap" / "one").rmdir()
        assert os.listdir(data / ".snap") == ["one"]
    finally:
        (data / ".snap" / "one").rmdir()


def test_a_limit_without_a_fence_is_told_by_status_and_doctor(cluster, cephfs, place):
    data = cephfs / "unfenced"
    data.mkdir()
    keyring = place / "keyring"
    rights = ["mon", "allow r", "mds", "allow rw", "osd", "allow rw tag cephfs data=cephfs"]
    keyring.write_text(cluster.ceph("auth", "get-or-create", "client.poor", *rights))
    with ceph_cluster.mounted(cluster, place / "poor", client="client.poor", keyring=keyring) as poor:
        source = str(poor.path / "unfenced")
        with mounting.mounted(place, "--quota", "1M", source=source, alarms=True) as mount:
            assert fill(mount.path / "f", 8 * MIB) == MIB
            assert [problem["code"] for problem in mount.status()["problems"]] == ["unfenced"]
            assert "lacks 'p'" in mounting.volgate("status", mount.path).stdout
            mounting.volgate("quota", "set", mount.path, "2M")
            assert mount.status()["quota_bytes"] == 2 * MIB
            assert fill(mount.path / "f", 8 * MIB) == 2 * MIB
        said = mounting.volgate("doctor", source).stdout
        assert "lacks 'p'" in said and "lacks 's'" in said


def test_doctor_tells_whether_a_cephfs_can_be_reached_without_a_mount(cluster, cephfs):
    (cephfs / "looked-at").mkdir()
    options = ["-o", f"conf={cluster.configuration},client=fs"]
    said = mounting.volgate("doctor", "ceph:///looked-at", *options)
    assert said.returncode == 0 and "ceph:///looked-at can be mounted" in said.stdout and "free" not in said.stdout
    said = mounting.volgate("doctor", "ceph:///nowhere", *options)
    assert said.returncode == 1 and "there is no /nowhere in this CephFS" in said.stdout
    said = mounting.volgate("doctor", "ceph:///looked-at", "-o", "conf=/nowhere/ceph.conf")
    assert said.returncode == 1 and "/nowhere/ceph.conf cannot be read" in said.stdout


def test_what_cephfs_counts_is_not_what_a_volume_counts(cluster, cephfs, place):
    """Why a volume is counted at its first mount instead: CephFS counts a symlink's target, and says so late."""
    data = cephfs / "statistics"
    (data / "d").mkdir(parents=True)
    with (data / "d" / "f").open("w") as file:
        file.write("12345678")
        file.flush()
        os.fsync(file.fileno())
    (data / "link").symlink_to("target")
    cluster.ceph("tell", "mds.a", "flush", "journal")
    assert int(os.getxattr(data, "ceph.dir.rbytes")) == 8 + len("target")
    with mounting.mounted(place, source=str(data)) as mount:
        assert (mount.status()["used_bytes"], mount.status()["file_count"]) == (8, 3)


def test_a_subvolume_keeps_the_size_that_its_administrator_gave_it(place):
    with ceph_cluster.running(place, "--mgr") as cluster:
        cluster.ceph("fs", "subvolume", "create", "cephfs", "one", "--size", "1000000000")
        path = cluster.ceph("fs", "subvolume", "getpath", "cephfs", "one").strip()
        options = ["-o", f"conf={cluster.configuration},client=fs"]
        said = mounting.volgate("doctor", f"ceph://{path}", *options).stdout
        assert "95" in said and "MiB are free in it" in said  # CephFS shows the size as that of the file system
        assert "ceph fs subvolume snapshot create" in said
        with mounting.mounted(place, *options, "--quota", "1M", source=f"ceph://{path}", alarms=True) as mount:
            assert fill(mount.path / "f", 8 * MIB) == MIB
            assert "953.7 MiB, which volgate did not set" in mounting.volgate("status", mount.path).stdout
        assert '"bytes_quota": 1000000000' in cluster.ceph("fs", "subvolume", "info", "cephfs", "one")
