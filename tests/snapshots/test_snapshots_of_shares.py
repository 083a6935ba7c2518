"""Snapshots of a Hammerspace share by its Anvil, as users of the mount see them."""

import json
import os
import shutil

import pytest
from test_restoring import diff, without_links
from test_snapshots_of_mounts import describe, fill, listed, snapshot

import mounting
import shares
from mounting import used_of, volgate, wait_until
from volgate.drivers.hammerspace.anvil import MARK


@pytest.fixture
def share(place):
    with shares.running(place) as found:
        found.anvil.add_share("projects", extendedInfo={MARK: "any"})
        with shares.bound(found):
            yield found


@pytest.fixture
def volume(share, place):
    with mounting.mounted(place, "-o", share.options, source=share.source) as mount:
        yield mount


def contents(tree):
    """Return what the fake keeps of a tree: it copies, so a file has another number."""
    return without_links(describe(tree))


def test_a_snapshot_shows_all_there_was_and_nothing_of_what_came_later(volume, share):
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
    assert not (view / ".snapshot").exists() and ".snapshot" not in os.listdir(volume.path)
    limit = volgate("snapshot", "limit", volume.path, "1GiB")
    assert limit.returncode != 0 and "the storage itself keeps" in limit.stderr
    snapshot(volume, "delete", "s1")
    assert listed(volume) == [] and share.anvil.snapshots["projects"] == []


def test_a_volume_becomes_what_it_was(volume, share):
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


def test_a_schedule_takes_snapshots_and_they_outlive_the_mount(share, place):
    with mounting.mounted(place, "-o", share.options, source=share.source) as mount:
        (mount.path / "f").write_bytes(b"content")
        snapshot(mount, "schedule", "hourly=1")
        wait_until(lambda: len(listed(mount)) == 1)
    with mounting.mounted(place, "-o", share.options, source=share.source) as mount:
        (info,) = listed(mount)
        assert (mount.path / ".snapshots" / info["snapshot_id"] / "f").read_bytes() == b"content"
        assert json.loads(snapshot(mount, "show", info["snapshot_id"], "--json").stdout) == info
