"""What changed since a snapshot is told, and brought back; whole, also where the daemon ends in the middle."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from test_snapshots_of_mounts import describe, fill, listed, snapshot
from test_work_beside import STEP, BucketWork, Work

import mounting
import s3_server
import volumes
from mounting import spawn, used_of, volgate, walk_usage
from volgate.vfs.restoring import Restore


def diff(mount, *arguments):
    found = json.loads(snapshot(mount, "diff", *arguments, "--json").stdout)
    return {change["path"]: (change["change"], *change["what"]) for change in found}


def without_links(tree):
    return {path: found[:-1] for path, found in tree.items() if path != "sparse"}


def test_a_diff_names_what_was_added_removed_and_changed_and_in_what(volume):
    fill(volume.path)
    snapshot(volume, "create", "s1")
    assert diff(volume, "s1") == {}
    (volume.path / "folder/one").chmod(0o600)
    os.setxattr(volume.path / "folder", "user.kind", b"another")
    (volume.path / "folder/below/two").write_bytes(b"now with content")
    (volume.path / "link").unlink()
    os.symlink("elsewhere", volume.path / "link")
    (volume.path / "fifo").unlink()
    (volume.path / "fifo").mkdir()
    (volume.path / "fifo/new").write_bytes(b"")
    os.rename(volume.path / "empty", volume.path / "renamed")
    os.chown(volume.path / "sparse", 7, 8)
    expected = {
        "again": ("changed", "mode"), "folder/one": ("changed", "mode"), "folder": ("changed", "xattrs"),
        "folder/below/two": ("changed", "content", "mtime"), "fifo/new": ("added",), "empty": ("removed",),
        "renamed": ("added",), "sparse": ("changed", "owner"),
    }  # fmt: skip
    found = diff(volume, "s1")
    assert found.pop("link")[:2] == ("changed", "content")
    assert found.pop("fifo") in (("added",), ("removed",))
    assert found == expected
    snapshot(volume, "create", "s2")
    (volume.path / "later").write_bytes(b"")
    assert "later" in diff(volume, "s1") and "later" not in diff(volume, "s1", "s2")
    assert diff(volume, "s2") == {"later": ("added",)}
    text = snapshot(volume, "diff", "s1", "s2").stdout.splitlines()
    assert "M folder/below/two (content, mtime)" in text and "- empty" in text and "+ renamed" in text


def test_a_change_within_the_clocks_tick_is_found(volume):
    path = volume.path / "f"
    path.write_bytes(b"one")
    snapshot(volume, "create", "s1")
    status = path.stat()
    with open(path, "r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "content" in diff(volume, "s1")["f"]


def test_a_volume_becomes_what_it_was(volume):
    fill(volume.path)
    before = without_links(describe(volume.path))
    snapshot(volume, "create", "s1")
    subprocess.run(
        "rm -r folder/below; echo changed > folder/one; mv empty elsewhere; chmod 777 sparse; rm link again; "
        "mkdir link; touch link/in fifo; setfattr -n user.new -v x folder; echo x >> sparse",
        shell=True, cwd=volume.path, check=True,
    )  # fmt: skip
    planned = json.loads(snapshot(volume, "restore", "s1", "--dry-run", "--json").stdout)
    assert (
        planned["removed"]
        and planned["created"]
        and planned["replaced"]
        and without_links(describe(volume.path)) != before
    )
    would_be = {change["path"]: change["change"] for change in planned["changes"]}
    assert (would_be["empty"], would_be["elsewhere"], would_be["folder/one"]) == ("added", "removed", "changed")
    unasked = volgate("snapshot", "restore", volume.path, "s1")
    assert unasked.returncode and unasked.stderr.endswith("what it would do with --dry-run, then say --yes\n"), unasked
    snapshot(volume, "create", "s2")
    changed = without_links(describe(volume.path))
    snapshot(volume, "restore", "s1", "--yes")
    assert without_links(describe(volume.path)) == before
    assert os.stat(volume.path / "again").st_ino == os.stat(volume.path / "folder/one").st_ino
    assert os.stat(volume.path / "sparse").st_blocks * 512 <= 1 << 20
    assert diff(volume, "s1") == {}
    assert used_of(volume) == walk_usage(volume.backing)
    snapshot(volume, "restore", "s2", "--yes")
    assert without_links(describe(volume.path)) == changed


def test_a_file_or_a_directory_alone_is_brought_back(volume):
    fill(volume.path)
    snapshot(volume, "create", "s1")
    subprocess.run(
        "echo x > folder/one; rm -r folder/below; echo y > again.txt", shell=True, cwd=volume.path, check=True
    )
    snapshot(volume, "restore", "s1", "folder/one", "--yes")
    assert (volume.path / "folder/one").read_bytes() == b"one" * 1000
    assert not (volume.path / "folder/below").exists()
    snapshot(volume, "restore", "s1", str(volume.path / "folder/below"))
    assert (volume.path / "folder/below/two").exists() and (volume.path / "again.txt").exists()
    (volume.path / "folder/new").write_bytes(b"")
    snapshot(volume, "restore", "s1", "folder", "--yes")
    assert sorted(os.listdir(volume.path / "folder")) == ["below", "one"]
    for path in ("../up", "nothing", ".volgate/identity.json"):
        done = volgate("snapshot", "restore", volume.path, "s1", path)
        assert done.returncode and len(done.stderr.splitlines()) == 1


def test_a_restore_that_does_not_fit_changes_nothing(place):
    with mounting.mounted(place, "--quota", "100k") as mount:
        (mount.path / "large").write_bytes(bytes(90_000))
        snapshot(mount, "create", "s1")
        (mount.path / "large").unlink()
        (mount.path / "other").write_bytes(bytes(50_000))
        snapshot(mount, "create", "s2")
        (mount.path / "other").unlink()
        (mount.path / "new").mkdir()
        (mount.path / "new/one").write_bytes(bytes(60_000))
        done = volgate("snapshot", "restore", mount.path, "s1", "large", "--yes")
        assert done.returncode == os.EX_CANTCREAT and "more, and" in done.stderr
        assert os.listdir(mount.path) == ["new"]
        snapshot(mount, "restore", "s1", "--yes")
        assert os.listdir(mount.path) == ["large"]
        assert used_of(mount) == walk_usage(mount.backing) == (90_000, 1)


def test_a_restore_that_a_kill_cut_off_goes_on_at_the_next_mount(place):
    path, backing = place / "mnt", place / "data"
    path.mkdir()
    backing.mkdir()
    note = backing / ".volgate/restore.json"
    chance = random.Random(11)
    mount = mounting.start(backing, path)
    for number in range(2000):
        folder = path / str(number % 20)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(b"%d" % number * 50)
    snapshot(mount, "create", "s1")
    expected = without_links(describe(path))
    cut_off = 0
    for _ in range(4):
        for number in chance.sample(range(2000), 1000):
            file = path / str(number % 20) / str(number)
            chance.choice([lambda file=file: file.write_bytes(b"changed"), lambda file=file: file.unlink()])()
        command = [*mounting.MOUNT[:-1], "snapshot", "restore", str(path), "s1", "--yes"]
        restoring = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 1.2))
        mount.kill()
        cut_off += restoring.wait(60) != 0
        mount = mounting.start(backing, path)
        mounting.wait_until(lambda: not note.exists() or json.loads(note.read_bytes() or b"null") is None, 30)
        if restoring.returncode or diff(mount, "s1"):  # killed before anything was noted
            snapshot(mount, "restore", "s1", "--yes")
        assert without_links(describe(path)) == expected
        assert used_of(mount) == walk_usage(backing)
        assert listed(mount)[0]["snapshot_id"] == "s1"
    assert mount.stop() == 0, mount.log()
    print("cut off", cut_off)


class _RestoringWork(Work):
    async def end(self):
        for handle in self.worked.handles:
            await self.worked.fs.tree.release(handle)
        self.worked.handles.clear()
        await self.remount(True)
        for name, tree in reversed(self.taken.items()):
            for _ in range(2):
                restore = Restore(self.worked.fs, name, b"", "work")
                changes = await restore.plan()
                await restore.run(changes)
            assert changes == []
            assert await self.worked.tree() == tree
            await self.check()
        await super().end()


class _RestoringBucketWork(_RestoringWork, BucketWork):
    pass


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "100")), deadline=None)
@given(st.lists(STEP, max_size=25))
def test_whatever_was_done_each_snapshot_can_be_brought_back(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        trio.run(_RestoringWork(Path(place)).run, steps)


@settings(max_examples=int(os.environ.get("VOLGATE_EXAMPLES", "60")), deadline=None)
@given(st.lists(STEP, max_size=20), st.integers(0, 1 << 30))
def test_whatever_was_done_each_snapshot_of_a_bucket_can_be_brought_back(steps, seed):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place, pytest.MonkeyPatch.context() as patch:
        with volumes.scaled_down(patch):
            trio.run(_RestoringBucketWork(Path(place), seed).run, steps)


def test_names_lead_to_what_was_restored_at_once(volume):
    one, two = volume.path / "one", volume.path / "two"
    one.write_bytes(b"h")
    os.link(one, two)
    snapshot(volume, "create", "s1")
    one.write_bytes(b"hc")
    snapshot(volume, "restore", "s1", "--yes")
    with open(one, "ab") as file:
        file.write(b"z")
    assert two.read_bytes() == b"hz"
    snapshot(volume, "restore", "s1", "one", "--yes")
    assert one.read_bytes() == b"h" and two.read_bytes() == b"hz"
    with open(one, "ab") as file:
        file.write(b"w")
    assert (volume.backing / "one").read_bytes() == b"hw" and (volume.backing / "two").read_bytes() == b"hz"


def test_a_directorys_own_attributes_are_told_and_brought_back(volume):
    folder = volume.path / "folder"
    folder.mkdir(mode=0o755)
    (folder / "f").write_bytes(b"")
    snapshot(volume, "create", "s1")
    folder.chmod(0o700)
    volume.path.chmod(0o711)
    assert diff(volume, "s1") == {".": ("changed", "mode"), "folder": ("changed", "mode")}
    assert "M folder (mode)" in snapshot(volume, "restore", "s1", "folder", "--dry-run").stdout
    snapshot(volume, "restore", "s1", "folder")
    assert folder.stat().st_mode & 0o777 == 0o755 and volume.path.stat().st_mode & 0o777 == 0o711
    snapshot(volume, "restore", "s1", ".")
    assert volume.path.stat().st_mode & 0o777 == 0o755 and diff(volume, "s1") == {}


def test_a_replaced_file_that_does_not_fit_beside_the_old_one_is_refused_before_anything_is_done(place):
    with mounting.mounted(place, "--quota", "100k") as mount:
        (mount.path / "a").write_bytes(b"before")
        (mount.path / "large").write_bytes(b"x" * 60_000)
        snapshot(mount, "create", "s1")
        (mount.path / "a").unlink()
        (mount.path / "large").write_bytes(b"y" * 60_000)
        told = snapshot(mount, "restore", "s1", "--dry-run")
        assert "+ a" in told.stdout and "would be refused" in told.stderr
        done = volgate("snapshot", "restore", mount.path, "s1", "--yes")
        assert done.returncode and "more, and" in done.stderr
        assert os.listdir(mount.path) == ["large"]


def test_what_is_lost_of_a_snapshot_is_named_and_all_else_is_restored(place):
    with mounting.mounted(place, alarms=True) as mount:
        for name in "abc":
            (mount.path / name).write_bytes(name.encode())
        snapshot(mount, "create", "s1")
        (mount.backing / "b").write_bytes(b"behind the mount")
        for name in "ac":
            (mount.path / name).write_bytes(b"changed")
        done = volgate("snapshot", "restore", mount.path, "s1", "--yes")
        assert done.returncode and "'b' cannot be restored: others changed" in done.stderr
        assert [(mount.path / name).read_bytes() for name in "ac"] == [b"a", b"c"]


def test_a_content_that_was_removed_from_a_snapshot_is_named_and_hinders_no_deletion(place):
    with mounting.mounted(place, alarms=True) as mount:
        for name in ("lost", "kept"):
            (mount.path / name).write_text("1")
        for number in (1, 2):
            snapshot(mount, "create", f"s{number}")
        for name in ("lost", "kept"):
            (mount.path / name).write_text("2")
        (kept,) = (mount.backing / ".volgate/snapshots").glob("*-s2")
        (kept / str((mount.path / "lost").stat().st_ino)).unlink()
        done = volgate("snapshot", "restore", mount.path, "s2", "--yes")
        assert done.returncode and "'lost' cannot be restored: others removed" in done.stderr, done
        assert (mount.path / "kept").read_text() == "1"
        snapshot(mount, "delete", "s2")
        assert not kept.exists() and [info["snapshot_id"] for info in listed(mount)] == ["s1"]
        (mount.path / "lost").write_text("3")
        view = mount.path / ".snapshots/s1"
        assert (view / "kept").read_text() == "1"
        with pytest.raises(OSError, match="Stale"):
            (view / "lost").read_text()
        snapshot(mount, "delete", "s1")
        assert used_of(mount) == walk_usage(mount.backing)


def test_mistakes_at_the_command_line_change_nothing(volume):
    (volume.path / "new\nline").write_bytes(b"")
    snapshot(volume, "create", "s1")
    snapshot(volume, "create", "s2")
    (volume.path / "new\nline").unlink()
    assert snapshot(volume, "diff", "s1").stdout == "- new\\nline\n"
    empty = volgate("snapshot", "restore", volume.path, "s1", "", "--yes")
    assert empty.returncode and "PATH is empty" in empty.stderr and os.listdir(volume.path) == []
    gone = volgate("snapshot", "delete", volume.path, "s1", "s3")
    assert gone.returncode and "no snapshot s3; nothing was deleted" in gone.stderr
    assert [info["snapshot_id"] for info in listed(volume)] == ["s1", "s2"]


def test_an_interrupted_restore_is_over_and_the_mount_lives(place):
    with mounting.mounted(place, alarms=True) as mount:
        for number in range(3000):
            (mount.path / str(number)).write_bytes(b"old")
        snapshot(mount, "create", "s1")
        for number in range(3000):
            (mount.path / str(number)).write_bytes(b"newer")
        name = mount.volume_id()
        command = [*mounting.MOUNT[:-1], "snapshot", "restore", str(mount.path), "s1", "--yes"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as restoring:
            note = mount.backing / ".volgate/restore.json"
            mounting.wait_until(lambda: note.exists() and b"s1" in note.read_bytes(), 30)
            asked = time.monotonic()
            (mount.path / "0").stat()
            assert time.monotonic() - asked < 2, "others are served meanwhile"
            with pytest.raises(AssertionError, match="is being restored"):  # by no command, which takes longer to begin
                mounting.request(name, "POST", "/v1/snapshots/delete", {"snapshot_id": "s1"})
            restoring.send_signal(signal.SIGINT)
        mounting.wait_until(lambda: json.loads(note.read_bytes()) is None, 30)
        assert {(mount.path / str(number)).read_bytes() for number in range(3000)} <= {b"old", b"newer"}
        (mount.path / "later").write_bytes(b"")
    with mounting.mounted(place, alarms=True) as mount:
        assert (mount.path / "later").exists() and b"newer" in {(mount.path / str(n)).read_bytes() for n in range(3000)}


def test_what_a_restore_needs_is_counted_by_inodes(place):
    with mounting.mounted(place, "--quota", "1MiB") as mount:
        one = mount.path / "one"
        one.write_bytes(bytes(300_000))
        for number in range(5):
            os.link(one, mount.path / f"link{number}")
        snapshot(mount, "create", "s1")
        for path in list(mount.path.iterdir()):
            path.unlink()
        snapshot(mount, "restore", "s1")
        assert one.stat().st_nlink == 6
        folder = mount.path / "folder"
        folder.mkdir()
        (folder / "kept").write_bytes(bytes(400_000))
        snapshot(mount, "create", "s2")
        (folder / "kept").unlink()
        (folder / "held").write_bytes(bytes(700_000))
        with open(folder / "held", "rb"):
            done = volgate("snapshot", "restore", mount.path, "s2", "folder", "--yes")
            assert done.returncode and "more, and" in done.stderr and os.listdir(folder) == ["held"]
        mounting.wait_until(lambda: volgate("snapshot", "restore", mount.path, "s2", "folder", "--yes").returncode == 0)
        assert os.listdir(folder) == ["kept"] and used_of(mount) == walk_usage(mount.backing)


def test_no_name_of_a_users_is_in_the_way_of_a_restore(volume):
    folder = volume.path / "folder"
    (folder / ".volgate-restore").mkdir(parents=True)
    (folder / "..f").write_bytes(b"1")
    snapshot(volume, "create", "s1")
    (folder / "..f").write_bytes(b"22")
    snapshot(volume, "restore", "s1", str(folder / "..f"), "--yes")
    assert sorted(os.listdir(folder)) == ["..f", ".volgate-restore"] and (folder / "..f").read_bytes() == b"1"


def test_usage_is_exact_where_others_link_and_unlink_beside_restores(volume):
    for number in range(20):
        (volume.path / f"f{number}").write_bytes(bytes(1000))
    snapshot(volume, "create", "s1")
    ends = time.monotonic() + 6
    workers = [spawn(link_and_unlink, volume.path, number, ends) for number in range(3)]
    while time.monotonic() < ends:
        volgate("snapshot", "restore", volume.path, "s1", "--yes")
    for worker in workers:
        worker.result()
    with contextlib.suppress(AssertionError):
        mounting.wait_until(lambda: used_of(volume) == walk_usage(volume.backing), 5)
    assert used_of(volume) == walk_usage(volume.backing)


def link_and_unlink(path, number, ends):
    for i in itertools.count():
        if time.monotonic() > ends:
            return
        with contextlib.suppress(OSError):
            os.link(path / f"f{(7 * i + number) % 20}", path / f"l{i % 9}")
        with contextlib.suppress(OSError):
            if i % 3:
                os.rename(path / f"l{(i + 3) % 9}", path / f"f{3 * i % 20}")
            else:
                os.unlink(path / (f"f{i % 20}" if i % 2 else f"l{(i + 4) % 9}"))


def test_nothing_differs_after_a_restore_though_the_number_of_an_inode_is_used_again(volume):
    """What was changed and renamed goes, and the file that comes back may get its number."""
    for size in (100, 5000, 3 << 20):
        content = os.urandom(size)
        (volume.path / "f").write_bytes(content)
        snapshot(volume, "create", f"s{size}")
        with open(volume.path / "f", "r+b") as file:
            file.write(b"Z")
        (volume.path / "f").rename(volume.path / "g")
        snapshot(volume, "restore", f"s{size}", "--yes")
        assert (volume.path / "f").read_bytes() == content
        assert diff(volume, f"s{size}") == {}


@pytest.fixture(params=["posix", "bucket"])
def either(request, place):
    """Return a mount of one or the other model of snapshots."""
    with contextlib.ExitStack() as stack:
        if request.param == "posix":
            yield stack.enter_context(mounting.mounted(place))
        else:
            server = stack.enter_context(s3_server.running(place / "s3"))
            server.make_bucket("bucket")
            yield stack.enter_context(s3_server.mounted(server, "bucket", place))


def test_a_name_that_leads_to_another_file_of_the_same_size_and_time_is_told_and_restored(either):
    path = either.path
    for name in ("a", "b", "c", "d/x", "e/x"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name * 4)
        os.utime(path / name, (1_000_000, 1_000_000))
    volgate("flush", path)
    snapshot(either, "create", "s1")
    taken = {name: (path / ".snapshots/s1" / name).read_text() for name in ("a", "b", "c", "d/x", "e/x")}
    for one, other in (("a", "b"), ("d", "e")):
        (path / one).rename(path / "t")
        (path / other).rename(path / one)
        (path / "t").rename(path / other)
    (path / "same").write_text("c" * 4)  # as cp -p makes it
    os.utime(path / "same", (1_000_000, 1_000_000))
    (path / "same").rename(path / "c")
    changed = {name for name, what in diff(either, "s1").items() if what[:2] == ("changed", "content")}
    assert changed == {"a", "b", "d/x", "e/x"}
    snapshot(either, "restore", "s1", "--yes")
    assert {name: (path / name).read_text() for name in taken} == taken
    assert not [what for what in diff(either, "s1").values() if "content" in what]


def test_what_comes_and_goes_meanwhile_fails_no_diff_and_no_restore(volume):
    for number in range(60):
        folder = volume.path / f"d/k{number}"
        folder.mkdir(parents=True)
        (folder / "f").write_text("kept")
    snapshot(volume, "create", "s1")
    (volume.path / "d/k7/f").unlink()
    (volume.path / "d/k7").rmdir()
    program = """
import os, sys, itertools
for number in itertools.count():
    top = f"{sys.argv[1]}/t{number % 5}"
    os.makedirs(f"{top}/u/v")
    open(f"{top}/u/f", "w").close()
    os.unlink(f"{top}/u/f"); os.rmdir(f"{top}/u/v"); os.rmdir(f"{top}/u"); os.rmdir(top)
"""
    worker = subprocess.Popen([sys.executable, "-c", program, volume.path / "d"])
    try:
        for _ in range(6):
            found = diff(volume, "s1")
            assert found["d/k7"] == ("removed",) and found["d/k7/f"] == ("removed",)
            snapshot(volume, "restore", "s1", "d/k7", "--yes")
            assert (volume.path / "d/k7/f").read_text() == "kept"
            (volume.path / "d/k7/f").unlink()
            (volume.path / "d/k7").rmdir()
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()


def link_groups(tree):
    """Return which names lead to one file."""
    groups = {}
    for path in tree.iterdir():
        groups.setdefault(path.stat().st_ino, set()).add(path.name)
    return {frozenset(names) for names in groups.values()}


@pytest.mark.parametrize("seed", range(6))
def test_names_are_joined_and_parted_as_they_were(volume, seed):
    chance = random.Random(seed)
    names = [f"n{number}" for number in range(9)]

    def regroup():
        for name in chance.sample(names, 7):
            path, other = volume.path / name, volume.path / chance.choice(names)
            content = other.read_bytes() if other.exists() else b"%d" % chance.randrange(3)
            path.unlink(missing_ok=True)
            if other.exists() and other != path and chance.random() < 0.6:
                os.link(other, path)
            elif chance.random() < 0.8:
                path.write_bytes(content)
                os.utime(path, (1e9, 1e9))

    for name in names:
        (volume.path / name).write_bytes(b"0")
        os.utime(volume.path / name, (1e9, 1e9))
    regroup()
    snapshot(volume, "create", "s1")
    before = link_groups(volume.path), {path.name: path.read_bytes() for path in volume.path.iterdir()}
    regroup()
    is_other = before != (link_groups(volume.path), {path.name: path.read_bytes() for path in volume.path.iterdir()})
    assert (diff(volume, "s1") != {}) == is_other
    snapshot(volume, "restore", "s1", "--yes")
    assert (link_groups(volume.path), {path.name: path.read_bytes() for path in volume.path.iterdir()}) == before
    assert diff(volume, "s1") == {}
    assert used_of(volume) == walk_usage(volume.backing)


def test_a_link_that_was_broken_up_is_told_and_joined_again(volume):
    one, two = volume.path / "one", volume.path / "two"
    one.write_bytes(b"content")
    os.link(one, two)
    snapshot(volume, "create", "s1")
    two.unlink()
    subprocess.run(["cp", "-p", one, two], check=True)
    assert diff(volume, "s1") == {"two": ("changed", "links")}
    snapshot(volume, "restore", "s1", "--yes")
    assert one.stat().st_ino == two.stat().st_ino and diff(volume, "s1") == {}
    two.unlink()
    snapshot(volume, "restore", "s1")
    assert one.stat().st_ino == two.stat().st_ino


def test_a_restore_of_a_part_changes_nothing_outside_of_it(volume):
    part = volume.path / "part"
    part.mkdir()
    for name in ("alone", "joined"):
        (part / name).write_bytes(b"content")
        (part / name).chmod(0o600)
    os.link(part / "joined", volume.path / "joined")
    snapshot(volume, "create", "s1")
    os.link(part / "alone", volume.path / "outside")
    (part / "alone").chmod(0o644)
    (part / "joined").chmod(0o644)
    assert "links" in snapshot(volume, "restore", "s1", "part", "--dry-run").stdout
    snapshot(volume, "restore", "s1", "part", "--yes")
    for name in ("alone", "joined"):
        assert (part / name).stat().st_mode & 0o777 == 0o600
        assert (part / name).stat().st_nlink == 1
    for name in ("outside", "joined"):
        assert (volume.path / name).stat().st_mode & 0o777 == 0o644
    assert used_of(volume) == walk_usage(volume.backing)
    snapshot(volume, "restore", "s1", "--yes")
    assert (part / "joined").stat().st_ino == (volume.path / "joined").stat().st_ino
    assert diff(volume, "s1") == {}
