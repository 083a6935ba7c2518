"""Snapshots of single files, as users see them: of a Hammerspace share."""

import os
import shutil

import pytest
from test_restoring import diff
from test_snapshots_of_mounts import listed, snapshot

import mounting
import shares
from mounting import used_of, volgate
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
        (mount.path / "a/b").mkdir(parents=True)
        (mount.path / "a/b/file").write_bytes(b"old")
        os.setxattr(mount.path / "a/b/file", "user.k", b"v")
        (mount.path / "a/b/file").chmod(0o640)
        (mount.path / "a/beside").write_bytes(b"beside")
        yield mount


def test_a_snapshot_of_a_file_holds_only_that_and_brings_it_back(volume):
    snapshot(volume, "create", "s1", "--file", "a/b/file")
    (info,) = listed(volume)
    assert (info["path"], info["file_count"], info["used_bytes"]) == ("a/b/file", 1, 3)
    assert "only a/b/file" in snapshot(volume, "list").stdout
    view = volume.path / ".snapshots/s1"
    assert sorted(path.relative_to(view).as_posix() for path in view.rglob("*")) == ["a", "a/b", "a/b/file"]
    assert str(view / "a/b/file") in snapshot(volume, "show", "s1").stdout
    assert diff(volume, "s1") == {}

    (volume.path / "a/b/file").write_bytes(b"changed")
    (volume.path / "a/beside").write_bytes(b"changed, too")
    assert (view / "a/b/file").read_bytes() == b"old"
    assert os.getxattr(view / "a/b/file", "user.k") == b"v" and (view / "a/b/file").stat().st_mode & 0o777 == 0o640
    assert set(diff(volume, "s1")) == {"a/b/file"}
    with pytest.raises(OSError, match="Read-only"):
        (view / "a/b/file").write_bytes(b"changed")

    other = volgate("snapshot", "restore", volume.path, "s1", "a/beside", "--yes")
    assert other.returncode != 0 and "s1 holds only 'a/b/file'" in other.stderr
    snapshot(volume, "restore", "s1", "--yes")
    assert (volume.path / "a/b/file").read_bytes() == b"old"
    assert (volume.path / "a/beside").read_bytes() == b"changed, too"
    assert diff(volume, "s1") == {} and volgate("quota", "check", volume.path).returncode == 0

    snapshot(volume, "delete", "s1")
    assert listed(volume) == [] and not (volume.path / ".snapshots/s1").exists()


def test_what_is_restored_counts_against_the_limit(volume):
    (volume.path / "large").write_bytes(bytes(2 << 20))
    snapshot(volume, "create", "s1", "--file", volume.path / "large")
    (volume.path / "large").unlink()
    assert volgate("quota", "set", volume.path, "1MiB").returncode == 0
    refused = volgate("snapshot", "restore", volume.path, "s1", "--yes")
    assert refused.returncode == 73 and "a restore needs 2 MiB (2097152 bytes) more" in refused.stderr
    assert not (volume.path / "large").exists()
    assert volgate("quota", "set", volume.path, "4MiB").returncode == 0
    before = used_of(volume)
    snapshot(volume, "restore", "s1", "--yes")
    assert used_of(volume)[0] == before[0] + (2 << 20)


def test_it_is_compared_with_one_of_all_and_not_the_other_way_round(volume):
    snapshot(volume, "create", "file", "--file", "a/b/file")
    (volume.path / "a/b/file").write_bytes(b"changed")
    snapshot(volume, "create", "all")
    (volume.path / "a/b/file").unlink()
    assert set(diff(volume, "file", "all")) == {"a/b/file"}
    assert diff(volume, "file")["a/b/file"] == ("removed",)
    refused = volgate("snapshot", "diff", volume.path, "all", "file")
    assert refused.returncode != 0 and "file holds only 'a/b/file', and all more" in refused.stderr


def test_those_who_may_not_pass_a_directory_now_do_not_reach_the_file(volume):
    snapshot(volume, "create", "s1", "--file", "a/b/file")
    (volume.path / "a").chmod(0o700)
    assert (volume.path / ".snapshots/s1/a").stat().st_mode & 0o777 == 0o700


def test_it_outlives_the_mount_and_its_loss_is_told(share, volume, place):
    snapshot(volume, "create", "s1", "--file", "a/b/file")
    shutil.rmtree(share.data / "a")  # as with a directory that takes its snapshots along
    (info,) = listed(volume)
    assert "went with its directory" in info["damaged"]
    assert not (volume.path / ".snapshots/s1/a").exists()
    for left in (lambda: None, lambda: (share.data / "a").write_text("no directory any more")):
        left()
        for verb in (("restore", volume.path, "s1", "--yes"), ("diff", volume.path, "s1")):
            refused = volgate("snapshot", *verb)
            assert refused.returncode != 0 and "went with its directory" in refused.stderr, refused
    snapshot(volume, "delete", "s1")
    assert listed(volume) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a/b", "is no regular file"),
        ("a/b/none", "No such file"),
        ("a/../a/b/file", "is no path within a volume"),
        (".", "is no file"),
        ("a/f*", "for a pattern"),
        (".volgate/x", "is not the users'"),
    ],
)
def test_what_cannot_be_taken_is_told(volume, path, said):
    (volume.path / "a/f*").write_bytes(b"")
    refused = volgate("snapshot", "create", volume.path, "--file", path)
    assert refused.returncode != 0 and said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert listed(volume) == []


def test_a_name_with_a_newline_is_a_name(volume):
    (volume.path / "new\nline").write_bytes(b"old")
    snapshot(volume, "create", "s1", "--file", "new\nline")
    (volume.path / "new\nline").unlink()
    snapshot(volume, "restore", "s1")
    assert (volume.path / "new\nline").read_bytes() == b"old"


def test_other_storages_say_that_they_take_none(place):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_bytes(b"")
        refused = volgate("snapshot", "create", mount.path, "--file", "f")
        assert refused.returncode == 64 and "takes no snapshots of single files" in refused.stderr
