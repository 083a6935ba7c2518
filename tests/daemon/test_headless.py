"""Owners without a mount: real daemons, asked by the command line; directories and a bucket on a real server."""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mounting
import s3_server
from mounting import ended, find_mount, one_line, volgate, wait_until
from volgate.cli import ending, owners
from volgate.cli.mounts import find, find_all
from volgate.cli.owners import end_headless
from volgate.control.client import ask, send
from volgate.errors import Busy, NotFound, Unavailable

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def ends_all(place):
    """End whatever a test left running: it is known by its data."""
    yield
    for status in find_all():
        if str(place) in str(status["source"]) or str(status["source"]).startswith(f"s3://headless-{os.getpid()}-"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(status["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch, place):
    """Return the directory of a fresh bucket; its volume is known as ``name``, with its cache below place."""
    name = f"headless-{os.getpid()}-{next(NUMBERS)}"
    server.make_bucket(name)
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    done = volgate("volume", "create", name, f"s3://{name}", "-o", f"cache_dir={place / 'cache'},cache_free=1M")
    assert done.returncode == 0, done
    yield server.data / name
    server.process.send_signal(signal.SIGCONT)
    with contextlib.suppress(Exception):
        volgate("umount", name)
    volgate("volume", "delete", name)


class Owner(subprocess.Popen):
    """An owner in the foreground."""

    def __init__(self, log_path, words, environment):
        self.log_path = log_path
        with log_path.open("ab") as log:
            super().__init__(
                [sys.executable, "-m", "volgate", "serve", *map(str, words)],
                env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def log(self):
        return self.log_path.read_text()

    def stop(self):
        self.send_signal(signal.SIGTERM)
        return self.wait(30)


@pytest.fixture
def serve(place):
    """Return what serves a volume in the foreground, and waits until it is ready."""
    owners = []

    def begin(*words, **environment):
        owner = Owner(place / "owner.log", words, environment)
        owners.append(owner)

        def is_ready():
            assert owner.poll() is None, owner.log()
            with contextlib.suppress(NotFound):
                return find(str(words[0]))["state"] == "ready"
            return False

        wait_until(is_ready, 30)
        return owner

    yield begin
    for owner in owners:
        owner.kill()
        owner.wait(20)
        print(owner.log())


def owner_of(target):
    return find(str(target), owner=True)


def is_gone(target):
    try:
        find(str(target))
    except NotFound:
        return True
    return False


def leave_behind(bucket, server, mnt, content="hello", count=1):
    """Have a mount killed that acknowledged files which the bucket does not have: late, late1, ..."""
    mnt.mkdir()
    mount = mounting.start(bucket.name, mnt)
    files = [open(mnt / f"late{number or ''}", "w") for number in range(count)]
    with paused(server):
        for file in files:
            file.write(content)
            file.close()
        mount.kill()
    time.sleep(0.5)  # a request may lie in the server's socket, whole, though nobody waits for it any more
    for file in bucket.glob("late*"):
        file.unlink()


@contextlib.contextmanager
def paused(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


# -- an owner ------------------------------------------------------------------------------------------------------


def test_an_owner_without_a_mount_is_shown_as_what_it_is_and_ends_at_sigterm(folders, place, serve):
    data, _ = folders
    (data / "file").write_bytes(bytes(1000))
    process = serve(data, "-o", "quota=1MiB")
    try:
        status = json.loads(volgate("status", data, "--json").stdout)
        assert (status["mount_point"], status["state"], status["pid"]) == (None, "ready", process.pid)
        assert (status["used_bytes"], status["file_count"], status["quota_bytes"]) == (1000, 1, 1 << 20)
        statistics = status["statistics"]
        assert (statistics["requests"], statistics["in_flight"], statistics["open_files"]) == ({}, 0, 0)
        assert statistics["read_bytes"] == statistics["waiting"] == 0 and status["problems"] == []
        (listed,) = [m for m in json.loads(volgate("list", "--json").stdout) if m["source"] == str(data)]
        assert (listed["mount_point"], listed["state"], listed["read_only"]) == (None, "ready", False)
        (row,) = [line for line in volgate("list").stdout.splitlines() if line.endswith(f" {data}")]
        assert row.split()[1:3] == ["-", "ready"]
        assert "without a mount: ready" in volgate("status", data).stdout
        name = status["volume_id"]
        (sample,) = [
            row for row in map(json.loads, volgate("top", "--once", "--interval", "0.1", "--json").stdout.splitlines())
            if row["volume_id"] == name
        ]  # fmt: skip
        assert (sample["mount_point"], sample["requests_per_s"], sample["state"]) == (None, 0, "ready")
        text = mounting._ask(name, "GET", "/metrics")
        assert f'volgate_ready{{volume="{name}"}} 1.0' in text
        assert f'volgate_quota_used_bytes{{volume="{name}"}} 1000.0' in text
        assert f'volgate_fuse_inflight{{volume="{name}"}} 0.0' in text
    finally:
        assert process.stop() == 0, process.log()
    assert "given up" in process.log() and not mounting.ALARM.search(process.log()), process.log()
    assert is_gone(data)


def test_it_tells_systemd_that_it_is_ready_and_that_it_stops(folders, place, monkeypatch, serve):
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with said:
        said.bind(str(place / "notify"))
        said.settimeout(30)
        process = serve(folders[0], NOTIFY_SOCKET=str(place / "notify"))
        messages = [said.recv(4096).decode()]
        while "READY=1" not in messages[-1]:
            messages.append(said.recv(4096).decode())
        assert "STATUS=serving without a mount" in messages[-1]
        process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in messages[-1]:
            messages.append(said.recv(4096).decode())
        assert process.wait(30) == 0


def test_detached_it_is_ready_when_the_command_returns_and_umount_ends_it(folders):
    data, _ = folders
    done = volgate("serve", data, "-d", "-o", "quota=1MiB")
    assert done.returncode == 0 and "without a mount: 0 B of 1 MiB used" in done.stdout, done
    pid = owner_of(data)["pid"]
    again = one_line(volgate("serve", data, "-d"), 75)
    assert f"in use without a mount by process {pid} on host " in again and "volgate umount data-" in again
    assert owner_of(data)["pid"] == pid
    assert volgate("umount", data).returncode == 0
    assert ended(pid) and is_gone(data)
    assert f"the volume in {data} is not mounted" in one_line(volgate("umount", data), 32)


def test_what_cannot_be_served_is_told_in_one_line(folders, place):
    data, _ = folders
    before = sorted(os.listdir(data))
    assert "no volume 'nothing' is known" in one_line(volgate("serve", "nothing", "-d"), 69)
    assert "does not exist" in one_line(volgate("serve", place / "missing", "-d"), 69)
    assert "no volume of volgate's yet" in one_line(volgate("serve", data, "-d", "--existing"), 69)
    assert "read only" in one_line(volgate("serve", data, "-d", "-o", "ro"), 64)
    assert sorted(os.listdir(data)) == before


def test_an_owner_that_ends_when_it_is_idle_outlives_looks_but_not_silence(folders, serve):
    data, _ = folders
    process = serve(data, "--until-idle", "1s")
    socket_path = Path(owner_of(data)["socket"])
    for _ in range(30):
        ask(socket_path, "POST", "/v1/hold")
        time.sleep(0.1)
    assert process.poll() is None, "what is asked of it keeps it"
    with contextlib.suppress(NotFound, Unavailable):
        while process.poll() is None:  # a look does not, however often
            ask(socket_path, "GET", "/v1/status")
    assert process.wait(20) == 0
    assert is_gone(data)


def test_without_root_it_is_a_worker_that_serves(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    assert volgate("serve", data, "-d", "-o", "worker=nobody").returncode == 0
    status = owner_of(data)
    try:
        assert Path(f"/proc/{status['pid']}").stat().st_uid == 65534
        assert volgate("quota", "set", data, "1MiB").returncode == 0
        assert owner_of(data)["quota_bytes"] == 1 << 20
    finally:
        assert volgate("umount", data).returncode == 0
    assert ended(status["pid"])


def test_a_killed_owner_leaves_nothing_in_the_way_of_the_next(folders, serve):
    data, mnt = folders
    (data / "f").write_bytes(bytes(100))
    process = serve(data)
    process.kill()
    process.wait(30)
    assert is_gone(data)
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert json.loads(volgate("status", mnt, "--json").stdout)["used_bytes"] == 100
    assert volgate("umount", mnt).returncode == 0
    process = serve(data)
    assert process.stop() == 0


def test_a_bucket_is_owned_without_a_mount_and_what_was_left_behind_is_stored(bucket, server, place, serve):
    mnt = place / "mnt"
    leave_behind(bucket, server, mnt)
    process = serve(bucket.name)
    assert owner_of(bucket.name)["storage"]["lease"] == "held"
    wait_until(lambda: (bucket / "late").exists(), 30)
    assert process.stop() == 0
    assert (bucket / "late").read_text() == "hello"
    lease = json.loads((bucket / ".volgate/lease").read_text())
    assert lease["released"] and lease["backlog_files"] == 0 and lease["holder"]["mount_point"] is None


def test_the_schedule_is_kept_and_a_restore_that_was_cut_off_goes_on(folders, serve):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    for number in range(300):
        (mnt / f"f{number}").write_bytes(bytes(20_000))
    assert volgate("snapshot", "create", mnt, "whole").returncode == 0
    for number in range(300):
        (mnt / f"f{number}").unlink()
    pid = owner_of(data)["pid"]
    restore = subprocess.Popen([sys.executable, "-m", "volgate", "snapshot", "restore", str(mnt), "whole", "--yes"])
    wait_until(lambda: len(os.listdir(data)) > 20, 30)
    os.kill(pid, signal.SIGKILL)
    assert restore.wait(30) != 0
    mounting.detach(mnt)
    assert len(os.listdir(data)) < 300
    process = serve(data)
    wait_until(lambda: owner_of(data)["file_count"] == 300 and not owner_of(data)["under_way"], 60)
    done = volgate("snapshot", "schedule", data, "hourly=2")
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: "schedule" in volgate("snapshot", "list", data).stdout, 30)
    assert process.stop() == 0
    assert sorted(name for name in os.listdir(data) if name[0] == "f") == sorted(f"f{n}" for n in range(300))


# -- verbs that need an owner --------------------------------------------------------------------------------------


def test_verbs_start_an_owner_where_there_is_none_which_ends_by_itself(folders, place, monkeypatch):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    (mnt / "f").write_text("before")
    assert volgate("snapshot", "create", mnt, "one").returncode == 0
    (mnt / "f").write_text("after all")
    assert volgate("umount", mnt).returncode == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unit:  # as where a unit's program calls it
        unit.bind(str(place / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
        assert volgate("snapshot", "create", data, "two").returncode == 0
        with pytest.raises(BlockingIOError):
            unit.recv(4096, socket.MSG_DONTWAIT)
    monkeypatch.delenv("NOTIFY_SOCKET")
    pid = owner_of(data)["pid"]
    assert "M f" in volgate("snapshot", "diff", data, "one").stdout
    assert volgate("snapshot", "restore", data, "one", "--yes").returncode == 0
    assert (data / "f").read_text() == "before"
    assert "not mounted" in one_line(volgate("snapshot", "restore", data, "one", mnt / "f", "--yes"), 64)
    assert volgate("quota", "set", data, "1MiB", "--inodes", "10").returncode == 0
    assert volgate("snapshot", "limit", data, "1GiB").returncode == 0
    assert volgate("flush", data).returncode == 0
    scheduled = volgate("snapshot", "schedule", data, "daily=3")
    assert scheduled.stdout == f"{data}: daily=3\n" and f"'volgate serve {data} -d'" in one_line(scheduled, 0)
    assert volgate("snapshot", "schedule", data).stderr == volgate("snapshot", "schedule", data, "--off").stderr == ""
    assert "at the root of the mount, .snapshots/one" in volgate("snapshot", "show", data, "one").stdout
    assert "writes to its storage at once" in one_line(volgate("quarantine", "list", data), 64)
    assert owner_of(data)["pid"] == pid, "one of them serves them all"
    wait_until(lambda: is_gone(data), 30)
    assert json.loads(volgate("quota", "show", data, "--json").stdout) == {
        "volume_id": owner_id(data), "used_bytes": 6, "quota_bytes": 1 << 20, "file_count": 1, "quota_inodes": 10,
    }  # fmt: skip


def owner_id(data):
    return json.loads((data / ".volgate/identity.json").read_text())["volume_id"]


def test_verbs_at_the_same_moment_share_one_owner(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    verbs = [
        subprocess.Popen(
            [sys.executable, "-m", "volgate", "snapshot", "limit", str(data), f"{number}GiB"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(1, 5)
    ]  # fmt: skip
    for verb in verbs:
        assert verb.wait(60) == 0, verb.communicate()
        verb.communicate()
    assert len([status for status in find_all() if status["source"] == str(data)]) == 1


def test_a_verb_never_meets_an_owner_that_is_about_to_end(folders, monkeypatch):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    monkeypatch.setattr(owners, "_IDLE", "1s")
    dice = random.Random(1)
    for number in range(12):
        status = owners.find_served(str(data))
        ask(Path(status["socket"]), "PUT", "/v1/snapshots/limit", {"limit_bytes": number})
        time.sleep(dice.choice((0.9, 0.97, 0.99, 1.0, 1.01)))
    wait_until(lambda: is_gone(data), 30)
    assert "11 B" in volgate("snapshot", "limit", data).stdout


def test_a_verb_waits_for_the_end_of_a_mount_and_then_starts_an_owner(bucket, server, place):
    mnt = place / "mnt"
    leave_behind(bucket, server, mnt, "x" * 100_000, 10)
    mount = mounting.start(bucket.name, mnt, "-o", "upload_limit=100K")
    subprocess.run(["umount", mnt], check=True, timeout=60)
    wait_until(lambda: owner_of(bucket.name)["state"] == "draining", 30)
    assert volgate("quota", "set", bucket.name, "1GiB").returncode == 0
    assert mount.process.wait(1) == 0
    assert owner_of(bucket.name)["mount_point"] is None
    assert [path.stat().st_size for path in bucket.glob("late*")] == [100_000] * 10


def test_a_verb_on_what_is_no_volume_changes_nothing_and_says_so(folders):
    data, mnt = folders
    for words in (["snapshot", "create", mnt], ["quota", "set", data, "1G"], ["gc", data], ["flush", data]):
        assert "no volume of volgate's yet, and none is mounted there" in one_line(volgate(*words), 69)
    assert os.listdir(data) == os.listdir(mnt) == []


def test_a_verb_that_finds_the_volume_elsewhere_says_where(bucket, place, serve):
    process = serve(f"s3://{bucket.name}", "-o", f"cache_dir={place / 'others'}")
    socket_path = Path(owner_of(f"s3://{bucket.name}")["socket"])
    hidden = socket_path.rename(socket_path.with_suffix(".hidden"))  # as if it were on another host
    try:
        line = one_line(volgate("quota", "set", bucket.name, "1GiB"), 75)
        assert f"is in use without a mount by process {process.pid} on host" in line
    finally:
        hidden.rename(socket_path)
    assert process.stop() == 0


def test_verbs_of_a_bucket_that_is_not_mounted_are_done_by_its_owner(bucket, place):
    mnt = place / "mnt"
    mnt.mkdir()
    assert volgate("mount", bucket.name, mnt, "-d").returncode == 0
    (mnt / "f").write_text("before")
    assert volgate("snapshot", "create", mnt, "one").returncode == 0
    (mnt / "f").write_text("after all")
    assert volgate("umount", mnt).returncode == 0
    assert volgate("snapshot", "create", bucket.name, "two").returncode == 0
    assert json.loads(volgate("quarantine", "list", bucket.name, "--json").stdout) == []
    assert json.loads(volgate("gc", bucket.name, "--json").stdout)["uploads"] == 0
    assert volgate("flush", bucket.name).stdout == f"{bucket.name}: all is stored\n"
    assert owner_of(bucket.name)["until_idle_s"] == 5.0
    assert "M f" in volgate("snapshot", "diff", bucket.name, "one").stdout
    assert volgate("snapshot", "restore", bucket.name, "one", "--yes").returncode == 0
    assert volgate("umount", bucket.name).returncode == 0, "what the restore did is stored by then"
    assert (bucket / "f").read_text() == "before"


def test_a_volume_can_be_deleted_and_its_ledger_repaired_just_after_a_verb(folders):
    data, _ = folders
    name = f"brief-{os.getpid()}"
    assert volgate("volume", "create", name, data).returncode == 0
    try:
        assert volgate("quota", "set", name, "1MiB").returncode == 0
        (known,) = [v for v in json.loads(volgate("volume", "list", "--json").stdout) if v["volume_id"] == name]
        assert known["state"] == "ready, not mounted"
        (data / "behind").write_bytes(bytes(500))
        checked = volgate("quota", "check", name)
        assert checked.returncode == 1
        assert checked.stdout.splitlines()[-1] == "different; 'quota check --repair' takes the count"
        assert volgate("quota", "check", name, "--repair").returncode == 0
        assert is_gone(name)
        assert volgate("quota", "set", name, "2MiB").returncode == 0
        assert "500 B of 2 MiB" in volgate("quota", "show", name).stdout
    finally:
        assert volgate("volume", "delete", name).returncode == 0
    assert is_gone(name)


def test_verbs_go_to_the_owner_and_not_to_who_only_reads(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    assert volgate("mount", data, mnt, "-d", "--read-only").returncode == 0
    try:
        assert volgate("snapshot", "create", data, "one").returncode == 0
        assert volgate("status", data, "--json").stdout.count(str(mnt)) >= 1, "of both, the mount is shown"
        assert volgate("umount", data).returncode == 0, "and the mount is what is unmounted"
        assert find_mount(mnt) is None
    finally:
        volgate("umount", mnt)
    assert volgate("umount", data).returncode == 0


# -- hand-over -----------------------------------------------------------------------------------------------------


def test_a_mount_takes_the_volume_from_an_owner_without_one(folders, serve):
    data, mnt = folders
    process = serve(data, "-o", "quota=1MiB")
    done = volgate("mount", data, mnt, "-d")
    assert done.returncode == 0 and "of 1 MiB used" in done.stdout, done
    assert process.wait(30) == 0
    assert owner_of(data)["mount_point"] == str(mnt)
    refused = ask_error(owner_of(data), "POST", "/v1/release")
    assert isinstance(refused, Busy) and str(mnt) in str(refused)
    assert f"in use at {mnt} by" in one_line(volgate("serve", data, "-d"), 75)
    assert volgate("umount", mnt).returncode == 0


def ask_error(status, *words):
    with pytest.raises((Busy, NotFound, Unavailable)) as caught:
        ask(Path(status["socket"]), *words)
    return caught.value


def test_a_mount_takes_a_bucket_with_what_is_not_stored_yet(bucket, server, place, serve):
    mnt = place / "mnt"
    leave_behind(bucket, server, mnt)
    process = serve(bucket.name, "-o", "upload_limit=1M")
    assert volgate("mount", f"s3://{bucket.name}/", mnt, "-d", "-o", f"cache_dir={place / 'cache'}").returncode == 0
    try:
        assert process.wait(30) == 0
        assert (bucket / "late").read_text() == "hello", "stored before it was given up"
        assert (mnt / "late").read_text() == "hello"
        assert mounting.used_of(mounting.Mount("", mnt, place / "log", process)) == (5, 1)
    finally:
        assert volgate("umount", mnt).returncode == 0


def test_an_owner_that_is_killed_while_it_gives_the_volume_up_loses_nothing(bucket, server, place, serve):
    mnt = place / "mnt"
    leave_behind(bucket, server, mnt, "x" * 100_000, 10)
    process = serve(bucket.name, "-o", "upload_limit=100K")
    mount = subprocess.Popen([sys.executable, "-m", "volgate", "mount", bucket.name, str(mnt), "-d"])
    wait_until(lambda: owner_of(bucket.name)["state"] == "draining", 30)
    assert 0 < owner_of(bucket.name)["storage"]["backlog_files"] < 10
    process.kill()
    assert mount.wait(60) == 0
    try:
        assert sorted(os.listdir(mnt)) == sorted(f"late{number or ''}" for number in range(10))
        assert all((mnt / name).read_text() == "x" * 100_000 for name in os.listdir(mnt))
        used = json.loads(volgate("status", mnt, "--json").stdout)
        assert (used["used_bytes"], used["file_count"]) == (1_000_000, 10)
    finally:
        assert volgate("umount", mnt).returncode == 0
    assert [path.stat().st_size for path in bucket.glob("late*")] == [100_000] * 10


def test_a_stop_of_an_owner_that_gives_the_volume_up_lets_it_store_all(bucket, server, place, serve):
    leave_behind(bucket, server, place / "mnt", "x" * 100_000, 10)
    process = serve(bucket.name, "-o", "upload_limit=200K")
    ask(Path(owner_of(bucket.name)["socket"]), "POST", "/v1/release")
    wait_until(lambda: "given up" in process.log(), 30)
    assert process.stop() == 0
    assert [path.stat().st_size for path in bucket.glob("late*")] == [100_000] * 10
    assert json.loads((bucket / ".volgate/lease").read_text())["backlog_files"] == 0


def test_an_owner_that_stays_takes_over_from_one_that_a_verb_started_but_not_from_another(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    assert volgate("snapshot", "create", data).returncode == 0
    brief = owner_of(data)
    assert volgate("serve", data, "-d").returncode == 0
    assert ended(brief["pid"])
    assert owner_of(data)["until_idle_s"] is None
    assert "in use without a mount" in one_line(volgate("serve", data, "-d", "--until-idle", "1s"), 75)
    assert volgate("umount", "--lazy", data).returncode == 0
    wait_until(lambda: is_gone(data), 30)


def test_an_owner_that_is_asked_to_end_ends_what_it_began_and_begins_nothing_new(
    bucket, server, place, monkeypatch, serve
):
    process = serve(bucket.name)
    status = owner_of(bucket.name)
    socket_path = Path(status["socket"])
    with paused(server):
        collecting = send(socket_path, "POST", "/v1/gc", {"older_than_s": 0}, timeout_s=60)
        wait_until(lambda: owner_of(bucket.name)["under_way"] == ["gc"])
        assert ask(socket_path, "POST", "/v1/release") == {"under_way": ["gc"]}
        wait_until(lambda: owner_of(bucket.name)["state"] == "draining")
        for method, path in (("POST", "/v1/snapshots"), ("PUT", "/v1/quota"), ("POST", "/v1/hold")):
            assert "about to end" in str(ask_error(status, method, path))
        monkeypatch.setattr(ending, "WAIT_S", 1.0)
        with pytest.raises(
            Busy, match=rf"without a mount by process {process.pid}, which is at work: gc; it ends when"
        ):
            end_headless(status)
        assert process.poll() is None
    assert collecting()["uploads"] == 0, "what was begun was ended, and answered"
    assert process.wait(30) == 0


def test_a_stop_ends_what_it_waits_for_in_vain(bucket, server, serve):
    process = serve(bucket.name, VOLGATE_MOUNT__STOP_DEADLINE="1s")
    socket_path = Path(owner_of(bucket.name)["socket"])
    with paused(server):
        collecting = send(socket_path, "POST", "/v1/gc", {"older_than_s": 0}, timeout_s=60)
        wait_until(lambda: owner_of(bucket.name)["under_way"] == ["gc"])
        process.send_signal(signal.SIGTERM)
        with pytest.raises(Unavailable, match="about to end, and broke this off"):
            collecting()
        assert "ended what was under way" in process.log() and "gc" in process.log()
    assert process.wait(60) == 0


def test_an_owner_that_hangs_is_named_and_its_volume_free_again_when_it_was_killed(folders, serve):
    data, mnt = folders
    process = serve(data)
    name = owner_of(data)["volume_id"]
    process.send_signal(signal.SIGSTOP)
    assert f"in use without a mount by process {process.pid}" in one_line(volgate("mount", data, mnt, "-d"), 32)
    assert f"(process {process.pid}) does not answer" in one_line(volgate("umount", name), 32)
    assert f"kill -9 {process.pid}" in volgate("status", name).stdout
    process.kill()
    process.wait(20)
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0


def test_a_mount_that_does_not_get_the_volume_in_time_names_who_has_it_and_what_it_does(bucket, server, place, serve):
    mnt = place / "mnt"
    leave_behind(bucket, server, mnt, "x" * 100_000, 10)
    process = serve(bucket.name, "-o", "upload_limit=50K")
    impatient = (
        "import sys; from volgate.cli import ending; ending.WAIT_S = 1.0;"
        "from volgate.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", impatient, "mount", bucket.name, str(mnt), "-d"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    line = one_line(done, 32)
    assert re.search(rf"without a mount by process {process.pid}, which stores what is left: \d files?, ", line)
    assert find_mount(mnt) is None
    assert process.wait(60) == 0
    assert [path.stat().st_size for path in bucket.glob("late*")] == [100_000] * 10
    assert volgate("mount", bucket.name, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0


@pytest.mark.parametrize("how", ["release", "stop", "umount"])
def test_a_restore_is_broken_off_for_the_next_owner_which_goes_on_with_it(folders, how):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    for number in range(400):
        (mnt / f"f{number}").write_bytes(bytes([number % 256]) * 20_000)
    assert volgate("snapshot", "create", mnt, "whole").returncode == 0
    for number in range(400):
        (mnt / f"f{number}").unlink()
    if how != "umount":
        assert volgate("umount", mnt).returncode == 0
        assert volgate("serve", data, "-d").returncode == 0
    owner = owner_of(data)
    restore = subprocess.Popen(
        [sys.executable, "-m", "volgate", "snapshot", "restore", str(data), "whole", "--yes"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: len(os.listdir(data)) > 20, 30)
    if how == "release":
        assert ask(Path(owner["socket"]), "POST", "/v1/release") == {"under_way": ["snapshots restore"]}
    elif how == "stop":
        os.kill(owner["pid"], signal.SIGTERM)
    else:
        subprocess.run(["umount", mnt], check=True, timeout=60)
    wait_until(lambda: ended(owner["pid"]), 30)
    assert len(os.listdir(data)) < 400
    said = restore.communicate(timeout=30)[1]
    assert restore.returncode == 75 and "the restore goes on when" in said, said
    assert volgate("mount", data, mnt, "-d").returncode == 0
    try:
        wait_until(lambda: len(os.listdir(mnt)) == 400 and not owner_of(data)["under_way"], 60)
        assert all((mnt / f"f{n}").read_bytes() == bytes([n % 256]) * 20_000 for n in range(400))
    finally:
        assert volgate("umount", mnt).returncode == 0


def test_a_restore_of_a_bucket_that_is_broken_off_leaves_nothing_behind_on_its_host(bucket, place):
    mnt = place / "mnt"
    mnt.mkdir()
    names = [f"f{number}" for number in range(300)]
    assert volgate("mount", bucket.name, mnt, "-d").returncode == 0
    for name in names:
        (mnt / name).write_text(name * 100)
    assert volgate("snapshot", "create", mnt, "whole").returncode == 0
    for name in names:
        (mnt / name).unlink()
    assert volgate("umount", mnt).returncode == 0
    assert volgate("serve", bucket.name, "-d").returncode == 0
    owner = owner_of(bucket.name)
    restore = subprocess.Popen(
        [sys.executable, "-m", "volgate", "snapshot", "restore", bucket.name, "whole", "--yes"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: owner_of(bucket.name)["file_count"] > 20, 30)
    assert ask(Path(owner["socket"]), "POST", "/v1/release") == {"under_way": ["snapshots restore"]}
    assert "the restore goes on when" in restore.communicate(timeout=60)[1]
    wait_until(lambda: ended(owner["pid"]), 60)
    lease = json.loads((bucket / ".volgate/lease").read_text())
    assert (lease["released"], lease["backlog_files"]) == (True, 0)
    assert lease["usage"]["inodes"] == len(list(bucket.glob("f*"))) < 300
    assert volgate("mount", bucket.name, mnt, "-d", "-o", f"cache_dir={place / 'another'}").returncode == 0
    try:
        wait_until(lambda: len(os.listdir(mnt)) == 300 and not owner_of(bucket.name)["under_way"], 60)
    finally:
        assert volgate("umount", mnt).returncode == 0
    assert all((bucket / name).read_text() == name * 100 for name in names)


@pytest.mark.parametrize("kind", ["folders", "bucket"])
def test_of_many_that_want_a_volume_at_once_exactly_one_gets_it(kind, request, place):
    found = request.getfixturevalue(kind)
    target = found[0] if kind == "folders" else found.name
    mounts = [place / f"mnt{number}" for number in range(3)]
    for mnt in mounts:
        mnt.mkdir()
    assert volgate("serve", target, "-d").returncode == 0
    words = [["mount", target, mnt, "-d"] for mnt in mounts] + [["serve", target, "-d"]] * 2
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "volgate", *map(str, verb)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for verb in words
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in started]
    winners = [verb for verb, process in zip(words, started, strict=True) if process.returncode == 0]
    standing = [mnt for mnt in mounts if find_mount(mnt) is not None]
    assert [verb[2] for verb in winners if verb[0] == "mount"] == standing, said
    assert len(standing) == 1, "a mount takes it from all others"
    assert all(" in use " in text or not text for _, text in said), said
    owner = owner_of(target)
    assert owner["mount_point"] == str(standing[0])
    (standing[0] / "f").write_text("hello")
    assert volgate("umount", target).returncode == 0
    assert ((found[0] if kind == "folders" else found) / "f").read_text() == "hello"
