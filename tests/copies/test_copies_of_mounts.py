"""Copies and syncs as people do them: by the command line, on real volumes, mounted or not."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from trees import Garden, describe

import mounting
from mounting import mounted, used_of, volgate, walk_usage


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
    planned = done("sync", garden.path, f"{volume.path}/another", "--dry-run").splitlines()
    names = [name for _, folders, files in os.walk(os.fsencode(garden.path)) for name in (*folders, *files)]
    assert planned[0] == "+ ." and len(planned) == 1 + len(names) and not (volume.path / "another").exists()
    done("copy", garden.path, f"{volume.path}/tree/")
    assert describe(volume.path / "tree/garden") == describe(garden.path)


def test_what_a_sync_of_one_file_would_do_is_said(volume, place):
    (place / "file").write_text("one")
    sync = ("sync", place / "file", f"{volume.path}/file")
    would_be = f"{volume.path}/file would be like {place}/file"

    def plan():
        planned = volgate(*sync, "--dry-run")
        assert planned.returncode == 0, planned
        return planned.stdout, planned.stderr

    assert plan() == ("+ .\n", f"{would_be}: 1 created\n")
    done(*sync)
    assert plan() == ("", f"{would_be}: nothing differs\n")
    (place / "file").write_text("another")
    assert plan() == ("M . (content, mtime)\n", f"{would_be}: 1 changed\n")
    for target, says in ((volume.path / "no/such", "there is no directory"), (volume.path, "needs a name")):
        refused = volgate("sync", place / "file", target, "--dry-run")
        assert refused.returncode and says in refused.stderr, refused
    (volume.path / "folder").mkdir()
    refused = volgate("sync", place / "file", f"{volume.path}/folder", "--dry-run")
    assert refused.returncode and "'folder' is a directory, and the source is none: say 'folder/'" in refused.stderr, (
        refused
    )


def test_a_single_symlink_device_or_owner_that_differs_is_said_and_synced(volume, place):
    source, target = place / "it", volume.path / "it"

    def synced(expected):
        os.utime(source, (1000, 1000), follow_symlinks=False)
        assert done("sync", source, target, "--dry-run") == f"M . ({expected})\n"
        assert "nothing differed" not in done("sync", source, target)
        assert done("sync", source, target, "--dry-run") == ""

    source.symlink_to("one")
    os.utime(source, (1000, 1000), follow_symlinks=False)
    done("copy", source, target)
    source.unlink()
    source.symlink_to("two")
    synced("content")
    assert os.readlink(target) == "two"
    source.unlink()
    os.mknod(source, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    synced("content")
    source.unlink()
    os.mknod(source, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    synced("content")
    assert target.stat().st_rdev == os.makedev(1, 5)
    source.unlink()
    source.write_text("content")
    synced("content")
    os.chown(source, 33, 33)
    os.setxattr(source, "user.k", b"v")
    synced("owner, xattrs")
    assert target.stat().st_uid == 33 and os.getxattr(target, "user.k") == b"v"


def test_links_that_a_sync_joins_or_parts_are_said(volume, place):
    source, target = place / "tree", volume.path / "tree"
    source.mkdir()
    for name in "ab":
        (source / name).write_text("1")
        os.utime(source / name, (1000, 1000))
    done("copy", source, target)
    (source / "b").unlink()
    os.link(source / "a", source / "b")
    os.utime(source, ns=(target.stat().st_atime_ns, target.stat().st_mtime_ns))
    assert done("sync", source, target, "--dry-run") == "M b (links)\n"
    assert "1 replaced" in done("sync", source, target)
    assert (target / "a").stat().st_ino == (target / "b").stat().st_ino
    assert done("sync", source, target, "--dry-run") == ""


def test_nothing_is_removed_from_a_directory_where_a_sync_is_refused(volume, place):
    source, target = place / "tree", volume.path / "tree"
    (source / "was-file").mkdir(parents=True)
    (source / "was-folder").write_text("now a file")
    (target / "was-folder").mkdir(parents=True)
    (target / "was-folder/kept").write_text("kept")
    (target / "was-file").write_text("precious")
    for options in (("--dry-run",), ()):
        refused = volgate("sync", source, target, *options)
        assert refused.returncode and "'was-folder' is a directory here" in refused.stderr, refused
        assert (target / "was-file").read_text() == "precious" and (target / "was-folder/kept").exists()


def test_a_dry_run_names_what_another_kind_of_file_replaces(volume, place):
    source, target = place / "tree", volume.path / "tree"
    (source / "folder").mkdir(parents=True)
    (source / "folder/below").write_text("below")
    (source / "link").symlink_to("folder")
    os.mkfifo(source / "fifo")
    target.mkdir()
    for name in ("folder", "link", "fifo", "kept"):
        (target / name).write_text("precious")
    planned = done("sync", source, target, "--dry-run").splitlines()
    replaced = {f"{sign} {name}" for name in ("folder", "link", "fifo") for sign in "+-"}
    assert {line for line in planned if line[0] in "+-"} == {*replaced, "+ folder/below"}
    assert "4 created, 1 changed, 3 removed" in volgate("sync", source, target, "--dry-run").stderr
    done("sync", source, target)
    assert (target / "kept").read_text() == "precious"
    assert done("sync", source, target, "--dry-run") == ""


def test_a_sync_that_does_not_fit_is_refused_before_it_begins_and_by_its_dry_run(place):
    source = place / "source"
    (source / "below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (source / name).write_bytes(os.urandom(100_000))
    os.link(source / "a", source / "below/a")
    with mounting.mounted(place, "--quota", "400000") as volume:
        for name in ("old", "t"):
            (volume.path / name).mkdir()
        (volume.path / "old/f").write_bytes(bytes(150_000))
        target = volume.path / "t"
        for options in ((), ("--dry-run",)):
            refused = volgate("sync", source, target, *options)
            assert refused.returncode == os.EX_CANTCREAT and "50000 bytes) are missing" in refused.stderr, refused
            assert os.listdir(target) == []
        (target / "gone").mkdir()
        (volume.path / "old/f").rename(target / "gone/f")
        assert volgate("sync", source, target, "--dry-run").returncode == os.EX_CANTCREAT
        assert len(done("sync", source, target, "--delete", "--dry-run").splitlines()) == 7
        done("sync", source, target, "--delete")
        assert describe(target) == describe(source)
        (source / "a").write_bytes(os.urandom(90_000))
        done("sync", source, target)
        assert used_of(volume) == walk_usage(volume.backing)


def test_a_dry_run_refuses_what_the_sync_refuses(place, volume):
    source = place / "source"
    (source / "kept").mkdir(parents=True)
    (source / "file").write_text("a file")
    (volume.path / "t/file").mkdir(parents=True)
    for options in ((), ("--dry-run",)):
        refused = volgate("sync", source, volume.path / "t", *options)
        assert refused.returncode and "--delete replaces it" in refused.stderr, refused
    (place / "empty").mkdir()
    for options in (("--delete",), ("--delete", "--dry-run")):
        refused = volgate("sync", place / "empty", volume.path / "t", *options)
        assert refused.returncode and "the source is empty" in refused.stderr, refused
    assert os.listdir(volume.path / "t") == ["file"]


def test_a_time_beyond_what_the_target_stores_is_told(place):
    with (
        mounting.loop_image(place, "btrfs", 256 << 20) as root,
        mounting.loop_image(place, "ext4", 64 << 20) as data,
        mounting.mounted(place, source=str(data)) as volume,
    ):
        (root / "tree").mkdir()
        (root / "tree/far").write_text("far")
        os.utime(root / "tree/far", (30_000_000_000, 30_000_000_000))
        refused = volgate("copy", root / "tree", f"{volume.path}/tree")
        assert refused.returncode == os.EX_CANTCREAT and "does not keep the mtime of 'far'" in refused.stderr, refused
        assert not (volume.path / "tree").exists()


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
    command = [sys.executable, "-m", "volgate", "copy", str(garden.path), f"{volume.path}/tree", "--limit", "1MiB"]
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
    assert copying.returncode == 130 and f"task cancel {volume.volume_id()} {task['operation_id']}" in said
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
    with ThreadPoolExecutor() as pool, mounting.mounted(place) as mount:
        said = done("copy", garden.path, f"{mount.path}/tree", "--limit", "2MiB", "--detach", "--json")
        operation_id = json.loads(said)["operation_id"]
        waiting = pool.submit(volgate, "task", "wait", mount.path, operation_id)
        other = pool.submit(volgate, "copy", garden.path, f"{mount.path}/other", "--limit", "2MiB")
        mounting.wait_until(lambda: len(json.loads(done("task", "list", mount.path, "--json"))) == 2, 30)
        time.sleep(0.5)  # both wait at the daemon's socket
    for waited in (waiting.result(), other.result()):
        assert waited.returncode and "goes on when the volume is mounted" in waited.stderr, waited
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
        mounting.wait_until(lambda: "threshold=95" in done("events", volume_id))
    found = [json.loads(line) for line in done("events", volume_id, "--json").splitlines()]
    kinds = [event["kind"] for event in found]
    while kinds.count("quota.threshold") > 1:  # it was passed in several steps
        kinds.remove("quota.threshold")
    assert kinds == [
        "volume.served", "task.taken_on", "task.ended", "snapshot.taken", "quota.changed", "snapshot.deleted",
        "quota.threshold", "volume.ended",
    ]  # fmt: skip
    assert found[2]["facts"]["state"] == "done" and found[-2]["facts"]["threshold"] == 95
    later = done("events", volume_id, "--since", found[3]["cursor"], "--json").splitlines()
    assert [json.loads(line)["kind"] for line in later] == [event["kind"] for event in found[4:]]
    assert volgate("events", "--since", "nonsense").returncode == os.EX_USAGE


def test_what_comes_and_goes_meanwhile_is_told_and_what_is_gone_leaves_nothing(volume, place):
    source = place / "source"
    source.mkdir()
    for number in range(60):
        (source / f"{number:02}").write_bytes(bytes(range(250)) * 200)
    operation_id = json.loads(done("copy", source, f"{volume.path}/copy", "--limit", "2MiB", "--detach", "--json"))[
        "operation_id"
    ]
    mounting.wait_until(lambda: json.loads(done("task", "show", volume.path, operation_id, "--json"))["done_files"] > 3)
    for number in range(2, 60):
        (source / f"{number:02}").unlink()
    (source / "new").write_text("new")
    done("task", "wait", volume.path, operation_id)
    task = json.loads(done("task", "show", volume.path, operation_id, "--json"))
    assert task["total_files"] == task["done_files"] == 3 and "60 files at first, and 3" in task["report"]["changed"]
    assert sorted(os.listdir(volume.path / "copy")) == ["00", "01", "new"]
    for number in range(60):
        (source / f"{number:02}").write_bytes(bytes(range(250)) * 200)
    operation_id = json.loads(done("copy", source, f"{volume.path}/gone", "--limit", "2MiB", "--detach", "--json"))[
        "operation_id"
    ]
    mounting.wait_until(lambda: json.loads(done("task", "show", volume.path, operation_id, "--json"))["done_files"] > 3)
    shutil.rmtree(source)
    failed = volgate("task", "wait", volume.path, operation_id)
    assert failed.returncode == os.EX_CANTCREAT and "taken away while it was copied" in failed.stderr, failed
    assert os.listdir(volume.path) == ["copy"]
    assert used_of(volume) == walk_usage(volume.backing)


def test_what_is_mounted_within_the_source_is_told_before(volume, garden):
    (garden.path / "within").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "within", garden.path / "within"], check=True)
    try:
        for words in (["copy"], ["sync"], ["sync", "--dry-run"]):
            refused = volgate(words[0], garden.path, f"{volume.path}/tree", *words[1:])
            assert refused.returncode and "1 file system mounted within it" in refused.stderr
            assert "not copied; accept the losses (--accept-losses), or copy elsewhere" in refused.stderr
        done("copy", garden.path, f"{volume.path}/tree", "--accept-losses")
    finally:
        subprocess.run(["umount", garden.path / "within"], check=True)
    assert not (volume.path / "tree/within").exists()


def test_a_single_file_is_synced_too(volume, place):
    (place / "f").write_text("one")
    done("sync", place / "f", f"{volume.path}/f")
    done("sync", place / "f", f"{volume.path}/f")
    (place / "f").write_text("another")
    assert "1 replaced" in done("sync", place / "f", f"{volume.path}/f")
    assert (volume.path / "f").read_text() == "another"
    (volume.path / "d").mkdir()
    refused = volgate("sync", place / "f", f"{volume.path}/d")
    assert refused.returncode and "is a directory, and the source is none" in refused.stderr
    refused = volgate("sync", place / "f", f"{volume.path}/d", "--delete")
    assert refused.returncode and "empty" not in refused.stderr
    (place / "folder").mkdir()
    (place / "folder/g").write_text("below")
    for source in ("f", "folder"):
        done("sync", place / source, f"{volume.path}/d/", "--delete" if source == "folder" else "--json")
    assert sorted(os.listdir(volume.path / "d")) == ["f", "folder"]  # into it, and nothing beside was removed
    assert (volume.path / "d/folder/g").read_text() == "below"


def test_snapshots_are_copied_of_a_mounted_volume_alone_and_that_is_said(volume, place):
    with mounted(place, name="other") as other:
        (other.path / "f").write_text("kept")
        assert volgate("snapshot", "create", other.path, "s1").returncode == 0
        name = other.volume_id()
        done("copy", f"{other.path}/.snapshots/s1/f", f"{volume.path}/f")
    refused = volgate("copy", f"{place}/other.data/.snapshots/s1/f", f"{volume.path}/g")
    assert refused.returncode == os.EX_USAGE and "while it is mounted: mount it" in refused.stderr, (refused, name)


def test_a_volume_is_not_copied_into_itself_by_its_own_data(volume, place):
    for source in (place, volume.backing.parent):
        refused = volgate("copy", source, f"{volume.path}/x")
        assert refused.returncode and "lie within each other" in refused.stderr, refused
    (volume.path / "a/b").mkdir(parents=True)
    (volume.path / "a/b/f").write_text("kept")
    (place / "again").mkdir()
    subprocess.run(["mount", "--bind", volume.backing, place / "again"], check=True)
    try:
        refused = volgate("sync", place / "again/a/b", f"{volume.path}/a", "--delete")
    finally:
        subprocess.run(["umount", place / "again"], check=True)
    assert refused.returncode and "lie within each other" in refused.stderr, refused
    assert (volume.path / "a/b/f").read_text() == "kept"


def test_a_source_that_is_not_mounted_after_a_restart_empties_nothing(place):
    source = place / "source"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "source", source], check=True)
    garden = Garden(source / "tree", 8)
    garden.grow(60)
    (source / "large").write_bytes(os.urandom(5 << 20))
    tasks = {}
    with mounting.mounted(place) as mount:
        (mount.path / "synced").mkdir()
        (mount.path / "synced/only here").write_text("mine")
        for kind, options in (("copy", []), ("sync", ["--delete"])):
            said = done(kind, source, f"{mount.path}/{kind}ed", *options, "--limit", "1MiB", "--detach", "--json")
            tasks[kind] = json.loads(said)["operation_id"]
        mounting.wait_until(
            lambda: all(t["stage"] == "begun" for t in json.loads(done("task", "list", mount.path, "--json")))
        )
        mount.kill()
    subprocess.run(["umount", "-l", source], check=True)
    with mounting.mounted(place) as mount:
        for operation_id in tasks.values():
            failed = volgate("task", "wait", mount.path, operation_id)
            assert failed.returncode and "the source is another than when this was begun" in failed.stderr, failed
        assert (mount.path / "synced").is_dir() and not (mount.path / "copyed").exists()
        refused = volgate("sync", source, f"{mount.path}/synced", "--delete")
        assert refused.returncode and "the source is empty" in refused.stderr
        assert used_of(mount) == walk_usage(mount.backing)
        assert not [name for name in os.listdir(mount.backing) if name.startswith(".volgate-draft")]


def test_what_a_user_makes_meanwhile_under_the_name_of_a_file_stays(volume, place):
    (place / "f").write_bytes(os.urandom(2 << 20))
    said = done("copy", place / "f", f"{volume.path}/x", "--limit", "1MiB", "--detach", "--json")
    operation_id = json.loads(said)["operation_id"]
    mounting.wait_until(lambda: json.loads(done("task", "show", volume.path, operation_id, "--json"))["done_bytes"] > 0)
    (volume.path / "x").write_text("precious")
    failed = volgate("task", "wait", volume.path, operation_id)
    assert failed.returncode and (volume.path / "x").read_text() == "precious"
    assert os.listdir(volume.path) == ["x"] and used_of(volume) == walk_usage(volume.backing)


def test_the_daemons_own_mount_within_the_source_hangs_nobody(place, garden):
    (garden.path / "mnt").mkdir()
    (place / "data").mkdir()
    mount = mounting.start(place / "data", garden.path / "mnt", "--attr-timeout", "0.1s")
    try:
        time.sleep(0.3)
        refused = volgate("copy", garden.path, f"{mount.volume_id()}:all")
        assert refused.returncode and "mounted within it" in refused.stderr
        os.symlink(garden.path / "mnt", place / "link")
        (garden.path / "mnt/d").mkdir()
        done("copy", place / "link/d", f"{mount.volume_id()}:copied")
        assert (garden.path / "mnt/copied").is_dir()
    finally:
        assert mount.stop() == 0


def test_paused_tasks_hold_up_no_others(place, garden):
    with mounting.mounted(place) as mount:
        for number in range(10):
            said = done("copy", garden.path, f"{mount.path}/{number}", "--limit", "10KiB", "--detach", "--json")
            done("task", "pause", mount.path, json.loads(said)["operation_id"])
        done("copy", garden.path, f"{mount.path}/quick")
        for task in json.loads(done("task", "list", mount.path, "--json")):
            if task["state"] != "done":
                done("task", "cancel", mount.path, task["operation_id"])
        assert os.listdir(mount.path) == ["quick"] and used_of(mount) == walk_usage(mount.backing)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"format": 1e999, "tasks": []}', b"{", b'{"format": 1, "tasks": [{"operation_id": 7}]}', b"\0",
     b'{"format": 1, "tasks": {"a": 1}}'],
)  # fmt: skip
def test_tasks_that_are_damaged_keep_no_volume_from_being_mounted(place, content):
    with mounting.mounted(place) as mount:
        (mount.path / "f").write_text("f")
    (place / "volume.data/.volgate/tasks.json").write_bytes(content)
    with mounting.mounted(place, alarms=True) as mount:
        assert (mount.path / "f").read_text() == "f"
        assert json.loads(done("task", "list", mount.path, "--json")) == []


def test_a_large_file_whose_copy_was_cut_off_is_copied_from_its_start(place):
    (place / "large").write_bytes(os.urandom(6 << 20))
    with mounted(place, "--quota", "10MiB") as volume:
        done("copy", place / "large", f"{volume.path}/large", "--limit", "1MiB", "--detach")
        mounting.wait_until(lambda: used_of(volume)[0] > 4 << 20)
        volume.kill()
    with mounted(place, "--quota", "10MiB") as volume:
        (task,) = json.loads(done("task", "list", volume.path, "--json"))
        assert task["state"] != "failed", task
        if task["state"] != "done":
            done("task", "wait", volume.path, task["operation_id"])
        assert (volume.path / "large").read_bytes() == (place / "large").read_bytes()
        assert used_of(volume) == walk_usage(volume.backing)


def test_what_is_copied_anew_after_a_cut_off_is_counted_once(place):
    (place / "tree").mkdir()
    for name in ("first", "large"):
        (place / "tree" / name).write_bytes(os.urandom(1 << 20 if name == "first" else 3 << 20))
    seen = []

    def look(volume):
        (task,) = json.loads(done("task", "list", volume.path, "--json"))
        seen.append((task["done_bytes"], task["total_bytes"], task["done_files"], task["total_files"]))
        return task["state"] == "done"

    with mounted(place) as volume:
        done("copy", place / "tree", f"{volume.path}/tree", "--limit", "1MiB", "--detach")
        mounting.wait_until(lambda: used_of(volume)[0] > 3 << 20)
        volume.kill()
    with mounted(place) as volume:
        mounting.wait_until(lambda: look(volume), 30)
    assert all(done <= total and files <= all_files for done, total, files, all_files in seen), seen
    assert seen[-1] == (4 << 20, 4 << 20, 2, 2)


def test_a_sync_changes_no_other_names_of_a_file(volume, place):
    source, target = place / "tree", volume.path / "tree"
    source.mkdir()
    target.mkdir()
    for name in ("one", "two"):
        (source / name).write_text("1")
        (target / name).write_text("1")
        os.utime(source / name, (1000, 1000))
        os.utime(target / name, (1000, 1000))
        os.link(target / name, volume.path / f"other-{name}")
        (source / name).chmod(0o666)
    done("sync", source / "one", target / "one")
    done("sync", source, target)
    for name in ("one", "two"):
        assert (target / name).stat().st_mode & 0o777 == 0o666
        assert (volume.path / f"other-{name}").stat().st_mode & 0o777 == 0o644
    assert done("sync", source, target, "--dry-run") == ""
    assert used_of(volume) == walk_usage(volume.backing)


def test_a_place_that_is_written_wrongly_is_told_with_the_right_way(volume, place):
    name = json.loads(done("list", "--json"))[0]["volume_id"]
    assert volgate("volume", "adopt", volume.backing).returncode == 0
    try:
        (place / "file").write_text("")
        refused = volgate("copy", place / "file", f"{name}/file")
        assert refused.returncode and f"a place in the volume {name} is {name}:PATH" in refused.stderr, refused
        for source in (name, f"{name}/file"):
            refused = volgate("copy", source, f"{volume.path}/file")
            assert refused.returncode and f"a place in the volume {name} is {name}:PATH" in refused.stderr, refused
    finally:
        volgate("volume", "delete", name)
    refused = volgate("copy", "unheard-of:.snapshots/s1/f", f"{volume.path}/f")
    assert refused.returncode and "no volume 'unheard-of' is known here" in refused.stderr, refused
