"""Snapshots that the storage takes, as users see them: of CephFS, both ways, and of a Hammerspace share."""

import json
import os
import shutil

import pytest
from test_restoring import diff, without_links
from test_snapshots_of_mounts import describe, fill, listed, snapshot

import ceph_cluster
import mounting
import shares
from mounting import used_of, volgate, wait_until
from volgate.drivers.hammerspace.anvil import MARK


@pytest.fixture(params=["share", "cephfs", "ceph://"])
def storage(request, place):
    """Return a source and its options."""
    if request.param == "share":
        with shares.running(place) as share:
            share.anvil.add_share("projects", extendedInfo={MARK: "any"})
            with shares.bound(share):
                yield share.source, ["-o", share.options]
        return
    with ceph_cluster.running(place) as cluster, ceph_cluster.mounted(cluster, place / "cephfs") as found:
        (found.path / "volume").mkdir()
        yield source_of(request.param, cluster, found)


def source_of(way, cluster, found):
    if way == "cephfs":
        return str(found.path / "volume"), []
    return "ceph:///volume", ["-o", f"conf={cluster.configuration},client=fs"]


@pytest.fixture
def volume(storage, place):
    source, options = storage
    with mounting.mounted(place, *options, source=source) as mount:
        yield mount


def contents(tree):
    """Return what the storages keep of a tree; the fake Anvil copies, so a file has another number."""
    return without_links(describe(tree))


def test_a_snapshot_shows_all_there_was_and_nothing_of_what_came_later(volume):
    fill(volume.path)
    before = contents(volume.path)
    snapshot(volume, "create", "s1", "--metadata", "why=because")
    view = volume.path / ".snapshots/s1"
    assert contents(view) == before
    for name in ("folder/one", "folder/below/two"):
        (volume.path / name).write_bytes(b"changed")
    shutil.rmtree(volume.path / "folder")
    assert contents(view) == before
    (info,) = listed(volume)
    assert (info["snapshot_id"], info["metadata"]) == ("s1", {"why": "because"})
    with pytest.raises(OSError, match="Read-only"):
        (view / "folder/one").write_bytes(b"changed")
    for name in (".snap", ".snapshot", ".snapshots", ".volgate"):
        assert not (view / name).exists() and name not in os.listdir(volume.path)
    limit = volgate("snapshot", "limit", volume.path, "1GiB")
    assert limit.returncode != 0 and "the storage itself keeps" in limit.stderr
    snapshot(volume, "delete", "s1")
    assert listed(volume) == [] and os.listdir(volume.path / ".snapshots") == []


def test_a_volume_becomes_what_it_was(volume):
    fill(volume.path)
    (volume.path / "again").unlink()  # the other name of a file, which would come back as one of its own
    before, used = contents(volume.path), used_of(volume)
    snapshot(volume, "create", "s1")
    assert diff(volume, "s1") == {}
    shutil.rmtree(volume.path / "folder")
    (volume.path / "fifo").unlink()
    (volume.path / "fifo").mkdir()
    (volume.path / "new").write_bytes(b"new")
    assert diff(volume, "s1")["new"] == ("added",)
    snapshot(volume, "restore", "s1", "--yes")
    assert contents(volume.path) == before
    assert diff(volume, "s1") == {}
    assert used_of(volume) == used
    assert volgate("quota", "check", volume.path).returncode == 0
    (volume.path / "folder/one").write_bytes(b"changed")
    (volume.path / "link").unlink()
    snapshot(volume, "restore", "s1", "folder/one", "--yes")
    assert set(diff(volume, "s1")) == {"link"}


def test_a_schedule_takes_snapshots_and_they_outlive_the_mount(storage, place):
    source, options = storage
    with mounting.mounted(place, *options, source=source) as mount:
        (mount.path / "f").write_bytes(b"content")
        snapshot(mount, "schedule", "hourly=1")
        wait_until(lambda: len(listed(mount)) == 1)
    with mounting.mounted(place, *options, source=source) as mount:
        (info,) = listed(mount)
        assert (mount.path / ".snapshots" / info["snapshot_id"] / "f").read_bytes() == b"content"
        assert json.loads(snapshot(mount, "show", info["snapshot_id"], "--json").stdout) == info


@pytest.mark.parametrize("way", ["cephfs", "ceph://"])
def test_a_snapshot_of_cephfs_that_others_replaced_is_the_new_one_and_restores_what_that_has(place, way):
    with ceph_cluster.running(place) as cluster, ceph_cluster.mounted(cluster, place / "cephfs") as found:
        (found.path / "volume").mkdir()
        source, options = source_of(way, cluster, found)
        with mounting.mounted(place, *options, source=source) as mount:
            fill(mount.path)
            snapshot(mount, "create", "s1", "--metadata", "why=because")
            before = listed(mount)[0]["created_at"]
            assert contents(mount.path / ".snapshots/s1") == contents(mount.path)
            (mount.path / "folder/new").write_bytes(b"new")
            snapshot(mount, "create", "s2")
            (found.path / "volume/.snap/s1").rmdir()
            (found.path / "volume/.snap/s1").mkdir()
            assert diff(mount, "s1") == {}
            first = next(info for info in listed(mount) if info["snapshot_id"] == "s1")
            assert first["created_at"] > before and first["metadata"] == {}
            tree = contents(mount.path)
            shutil.rmtree(mount.path / "folder")
            snapshot(mount, "restore", "s1", "--yes")
            assert contents(mount.path) == tree
            wait_until(lambda: contents(mount.path / ".snapshots/s1") == tree)
