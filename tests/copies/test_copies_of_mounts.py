"""Copies and syncs as people do them: by the command line, on real volumes, mounted or not."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from trees import Garden, describe

import mounting
from mounting import used_of, volgate, walk_usage


@pytest.fixture
def garden(place):
    garden = Garden(place / "garden", 3)
    garden.grow(120)
    return garden


def done(*arguments):
    found = volgate(*arguments)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_tree_of_this_host_is_copied_into_a_mount_and_kept_like_it(volume, garden):
    said = done("copy", garden.path, f"{volume.path}/tree")
    assert re.match(r"copied .*/garden to tree: \d+ files, ", said)
    assert describe(volume.path / "tree") == describe(garden.path)
    assert used_of(volume) == walk_usage(volume.backing)
    refused = volgate("copy", garden.path, f"{volume.path}/tree")
    assert refused.returncode == os.EX_CANTCREAT and "'tree' is there already" in refused.stderr
    assert "nothing differed" in done("sync", garden.path, f"{volume.path}/tree")
    garden.change(40)
    (volume.path / "tree/only here").write_text("new")
    planned = done("sync", garden.path, f"{volume.path}/tree", "--dry-run", "--delete")
    assert "- only here" in planned.splitlines()
    before = describe(volume.path / "tree")
    assert before != describe(garden.path)
    done("sync", garden.path, f"{volume.path}/tree", "--delete")
    assert describe(volume.path / "tree") == describe(garden.path)
    assert used_of(volume) == walk_usage(volume.backing)
    done("copy", garden.path, f"{volume.path}/tree/")
    assert describe(volume.path / "tree/garden") == describe(garden.path)


def test_between_mounts_and_out_of_snapshots(place, garden):
    with mounting.mounted(place, name="one") as one, mounting.mounted(place, name="two") as two:
        done("copy", garden.path, f"{one.path}/tree")
        done("snapshot", "create", one.path, "s1")
        (one.path / "tree/later").write_text("later")
        for source, target in (
            (f"{one.path}/tree", f"{two.path}/live"),
            (f"{one.path}/.snapshots/s1/tree", f"{two.path}/of-snapshot"),
            (f"{one.path}/.snapshots/s1/tree", f"{one.path}/back"),
            (f"{one.volume_id()}:tree", f"{two.volume_id()}:by-id"),
        ):
            done("copy", source, target)
        for copied in (two.path / "of-snapshot", one.path / "back"):
            assert describe(copied) == describe(garden.path)
        for copied in (two.path / "live", two.path / "by-id"):
            assert describe(copied) == describe(one.path / "tree")
        for mount in (one, two):
            assert used_of(mount) == walk_usage(mount.backing)


def test_a_volume_that_nobody_serves_is_copied_into_and_out_of(place, garden, monkeypatch):
    for name in ("STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(place / name))
    for name in ("one", "two"):
        (place / name).mkdir()
        with mounting.mounted(place, name=f"{name}-mnt", source=str(place / name)):
            pass
    done("copy", garden.path, place / "one/")
    done("sync", place / "one/garden", place / "two")
    assert describe(place / "one/garden") == describe(garden.path)
    found = describe(place / "two")
    assert {path: found[path] for path in found if not path.startswith(".volgate")} == describe(garden.path)


def test_nobody_sees_a_copy_before_it_is_whole_and_an_interrupted_command_ends_none(volume, garden, place):
    (garden.path / "large").write_bytes(os.urandom(3 << 20))
    command = [sys.executable, "-m", "volgate", "copy", str(garden.path), f"{volume.path}/tree", "--limit", "3MiB"]
    copying = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    mounting.wait_until(lambda: any(t["done_bytes"] for t in json.loads(done("task", "list", volume.path, "--json"))))
    (task,) = json.loads(done("task", "list", volume.path, "--json"))
    assert os.listdir(volume.path) == [] and not (volume.path / "tree").exists()
    hidden = f".volgate-draft-{task['operation_id']}"
    assert (volume.backing / hidden).is_dir() and not (volume.path / hidden).exists()
    with pytest.raises(PermissionError):
        (volume.path / hidden).mkdir()
    copying.send_signal(signal.SIGINT)
    _, said = copying.communicate(timeout=30)
    assert copying.returncode == 130 and f"task cancel TARGET {task['operation_id']}" in said
    assert "%" in done("task", "list", volume.path)
    done("task", "pause", volume.path, task["operation_id"])
    assert "paused" in done("task", "show", volume.path, task["operation_id"])
    time.sleep(0.2)
    done("task", "resume", volume.path, task["operation_id"])
    done("task", "wait", volume.path, task["operation_id"])
    assert describe(volume.path / "tree") == describe(garden.path)
    assert os.listdir(volume.path) == ["tree"]
    late = volgate("task", "cancel", volume.path, task["operation_id"])
    assert late.returncode and "has ended already: done" in late.stderr
    unknown = volgate("task", "show", volume.path, "0" * 16)
    assert unknown.returncode and "no task" in unknown.stderr


def test_a_stop_in_the_middle_breaks_a_copy_off_and_the_next_mount_goes_on(place, garden):
    with mounting.mounted(place) as mount:
        said = done("copy", garden.path, f"{mount.path}/tree", "--limit", "2MiB", "--detach", "--json")
        operation_id = json.loads(said)["operation_id"]
    with mounting.mounted(place) as mount:
        done("task", "wait", mount.path, operation_id)
        assert describe(mount.path / "tree") == describe(garden.path)
        assert used_of(mount) == walk_usage(mount.backing)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("nowhere", "mnt/x", "there is no"), ("mnt/nothing", "mnt/x", "has no 'nothing'"),
        ("garden", "mnt/no/where", "no directory 'no' to copy into"), ("garden", "garden/x", "no volume"),
        ("mnt/.snapshots", "mnt/x", "name one of the snapshots"), ("mnt/.snapshots/s9/a", "mnt/x", "no snapshot s9"),
        ("mnt", "mnt/x", "into itself"), ("garden", "mnt/.volgate/x", "not the users'"),
        ("garden", "mnt/.volgate-draft-x", "reserved"), ("mnt/.volgate/identity.json", "mnt/x", "not the users'"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_told_in_one_line(place, garden, source, target, says):
    with mounting.mounted(place, name="mnt") as mount:
        (place / "mnt/own").write_text("own")
        refused = volgate("copy", place / source, place / target)
        assert refused.returncode and says in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr
        assert os.listdir(mount.path) == ["own"]


def test_a_read_only_mount_copies_nothing(place, garden):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_text("f")
    with mounting.mounted(place, "--read-only") as mount:
        refused = volgate("copy", garden.path, f"{mount.path}/x")
        assert refused.returncode and "read-only" in refused.stderr


def test_what_happened_is_told_in_order(place, garden):
    with mounting.mounted(place, "--quota", "100MiB") as mount:
        volume_id = mount.volume_id()
        done("copy", garden.path, f"{mount.path}/tree")
        done("snapshot", "create", mount.path, "s1")
        done("quota", "set", mount.path, "200MiB")
        done("snapshot", "delete", mount.path, "s1")
        (mount.path / "large").write_bytes(bytes(172 << 20))
        mounting.wait_until(lambda: "percent=95" in done("events", volume_id))
    found = [json.loads(line) for line in done("events", volume_id, "--json").splitlines()]
    kinds = [event["kind"] for event in found]
    while kinds.count("quota.threshold") > 1:  # it was passed in several steps
        kinds.remove("quota.threshold")
    assert kinds == [
        "volume.served", "task.taken_on", "task.ended", "snapshot.taken", "quota.changed", "snapshot.deleted",
        "quota.threshold", "volume.ended",
    ]  # fmt: skip
    assert found[2]["facts"]["state"] == "done" and found[-2]["facts"]["percent"] == 95
    later = done("events", volume_id, "--since", found[3]["cursor"], "--json").splitlines()
    assert [json.loads(line)["kind"] for line in later] == [event["kind"] for event in found[4:]]
    assert volgate("events", "--since", "nonsense").returncode == os.EX_USAGE
