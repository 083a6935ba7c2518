"""Operating a volume in a bucket: what is on its way there, what stays behind, and what people do about it."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import urllib.request
from pathlib import Path

import pytest

import mounting
import s3_server
from mounting import find_mount, volgate, wait_until
from volgate.cli.mounts import find
from volgate.control.client import ask, send

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch, place):
    """Return the directory of a fresh bucket; the command line and daemons know its server, and cache below place."""
    name = f"bucket-{next(NUMBERS)}"
    server.make_bucket(name)
    for variable, value in {**server.environment, "XDG_CACHE_HOME": str(place / "cache")}.items():
        monkeypatch.setenv(variable, value)
    return server.data / name


@contextlib.contextmanager
def mounted(bucket, place, *options, cache="cache", alarms=True):
    """Mount a bucket; at the end stop the daemon where the test has not."""
    mnt = place / "mnt"
    mnt.mkdir(exist_ok=True)
    options = ("-o", f"cache_dir={place / cache}", *options)
    mount = mounting.start(f"s3://{bucket.name}", mnt, *options)
    try:
        yield mount
    finally:
        if mount.process.poll() is None:
            mount.process.send_signal(signal.SIGTERM)
            mount.process.send_signal(signal.SIGTERM)
            try:
                mount.process.wait(20)
            except subprocess.TimeoutExpired:
                mount.process.kill()
                mount.process.wait()
        mounting.detach(mnt)
        print(mount.log())
    assert alarms or not mounting.ALARM.search(mount.log())


@contextlib.contextmanager
def paused(server):
    """Let the server answer nobody for a while."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def storage(mount):
    return mount.status()["storage"]


def refuse(bucket, mount, name="f", ours=b"ours", theirs=b"theirs!"):
    """Have another writer's object refuse ours: it comes while ours is not uploaded yet."""
    with open(mount.path / name, "wb") as file:
        file.write(ours)
        s3_put(bucket, name, theirs)
    assert os.stat(mount.path / name).st_size == len(ours)  # and the kernel remembers that
    wait_until(lambda: storage(mount)["refused"] == 1, 30)


def test_status_names_the_backlog_and_flush_waits_until_the_bucket_has_it(bucket, server, place):
    with mounted(bucket, place, alarms=False) as mount:
        with paused(server):
            (mount.path / "late").write_text("hello")
            wait_until(lambda: storage(mount)["backlog_files"] == 1)
            shown = volgate("status", mount.path).stdout
            assert re.search(r"backlog   1 file, 5 B; oldest \d+ s: late\n", shown), shown
            assert os.getxattr(mount.path, "user.volgate.backlog.files") == b"1"
            assert os.getxattr(mount.path, "user.volgate.backlog.bytes") == b"5"
        done = volgate("flush", mount.path)
        assert (done.returncode, done.stdout) == (0, f"{mount.path}: all is stored\n")
        assert (bucket / "late").read_text() == "hello"
        shown = volgate("status", mount.path).stdout
        assert "backlog   none: all is stored" in shown and "lease     held" in shown
        assert storage(mount)["requests"]["PutObject"] > 0


def test_a_daemon_that_many_wait_for_still_says_how_it_is(bucket, server, place):
    with mounted(bucket, place, alarms=False) as mount:
        socket_path = Path(find(str(mount.path))["socket"])
        with paused(server):
            (mount.path / "late").write_text("hello")
            answers = [send(socket_path, "POST", "/v1/flush", timeout_s=60) for _ in range(40)]
            for _ in range(3):
                assert ask(socket_path, "GET", "/v1/status")["storage"]["backlog_files"] == 1
        assert [answer()["backlog_files"] for answer in answers] == [0] * 40


def test_flush_says_what_is_left_and_why(bucket, place):
    with mounted(bucket, place) as mount:
        refuse(bucket, mount)
        done = volgate("flush", mount.path)
        assert done.returncode == 75
        assert done.stderr == (
            f"volgate: not stored: 1 file, 4 B; 1 of them refused, see 'volgate quarantine list {mount.path}'\n"
        )
        assert json.loads(volgate("flush", mount.path, "--json").stdout)["refused"] == 1


def test_flush_ends_with_the_error_where_the_server_is_gone(place, monkeypatch):
    with contextlib.ExitStack() as undo:
        server = undo.enter_context(s3_server.running(place / "s3"))
        server.make_bucket("bucket")
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        mount = undo.enter_context(mounted(server.data / "bucket", place))
        server.process.terminate()
        server.process.wait(20)
        (mount.path / "f").write_text("hello")
        done = volgate("flush", mount.path, timeout_s=100)
        assert done.returncode == 75
        assert re.match(r"volgate: not stored: 1 file, 5 B; oldest: f: .+", done.stderr), done
        again = undo.enter_context(s3_server.running(place / "s3", port=int(server.url.rpartition(":")[2])))
        assert volgate("flush", mount.path, timeout_s=100).returncode == 0
        assert (again.data / "bucket" / "f").read_text() == "hello"


def test_a_stop_tells_systemd_how_far_the_rest_is_and_asks_for_time_while_it_gets_on(
    bucket, server, place, monkeypatch
):
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with said:
        said.bind(str(place / "notify"))
        said.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
        with mounted(bucket, place, alarms=False) as mount:
            with paused(server):
                for number in range(3):
                    (mount.path / f"f{number}").write_text("hello")
                mount.process.send_signal(signal.SIGTERM)
                messages = [said.recv(4096).decode()]
                while "STATUS=storing what is left: 3 files, 15 B" not in messages[-1]:
                    messages.append(said.recv(4096).decode())
                assert "EXTEND_TIMEOUT_USEC" in messages[-1]
            assert mount.process.wait(20) == 0
    assert sorted(path.name for path in bucket.glob("f*")) == ["f0", "f1", "f2"]


def test_promises_that_the_server_does_not_keep_and_keys_without_a_name_are_in_status(bucket, place):
    s3_put(bucket, "same", b"a file")
    s3_put(bucket, "same.rclonelink", b"target")
    with mounted(bucket, place, alarms=False) as mount:
        broken = storage(mount)["broken_promises"]
        assert os.listdir(mount.path) == ["same"]
        shown = volgate("status", mount.path).stdout
        assert [f"ignores {name}:" in shown for name in broken] == [True] * len(broken)
        assert storage(mount)["unshown"] == 1
        assert "unshown   'same.rclonelink': another object has its name" in shown


def test_metrics_tell_backlog_requests_cache_and_lease(bucket, place):
    with mounted(bucket, place, "-o", "metrics=127.0.0.1:9797") as mount:
        refuse(bucket, mount)
        text = urllib.request.urlopen("http://127.0.0.1:9797/metrics", timeout=20).read().decode()
        volume = mount.volume_id()
        assert f'volgate_backlog_files{{volume="{volume}"}} 1.0' in text
        assert f'volgate_backlog_bytes{{volume="{volume}"}} 4.0' in text
        assert f'volgate_refused_files{{volume="{volume}"}} 1.0' in text
        assert f'volgate_lease{{state="held",volume="{volume}"}} 1.0' in text
        assert re.search(r'volgate_store_requests_total\{operation="PutObject",volume="[^"]+"\} [1-9]', text)
        for name in ("backlog_oldest_seconds", "cache_bytes", "cache_hits_total", "cache_misses_total"):
            assert f"volgate_{name}{{" in text


def test_refresh_shows_at_once_what_others_made_changed_and_removed(bucket, place):
    with mounted(bucket, place, "--attr-timeout", "3600", alarms=False) as mount:
        (mount.path / "changed").write_text("before")
        (mount.path / "removed").write_text("x")
        assert volgate("flush", mount.path).returncode == 0
        assert (mount.path / "changed").read_text() == "before" and not (mount.path / "made").exists()
        s3_put(bucket, "changed", b"after all")
        s3_put(bucket, "made", b"new")
        (bucket / "removed").unlink()
        assert not (mount.path / "made").exists() and (mount.path / "changed").read_text() == "before"
        assert volgate("refresh", mount.path).returncode == 0
        assert (mount.path / "made").read_text() == "new"
        assert (mount.path / "changed").read_text() == "after all"
        assert not (mount.path / "removed").exists()


def s3_put(bucket, key, body):
    """Make an object as another S3 client does."""
    client(bucket).put_object(Bucket=bucket.name, Key=key, Body=body)


def client(bucket):
    import boto3

    return boto3.session.Session().client("s3", region_name="us-east-1")


def test_umount_waits_until_the_bucket_has_what_was_written(bucket, server, place):
    with mounted(bucket, place, alarms=False) as mount:
        names = [f"f{number}" for number in range(50)]
        server.process.send_signal(signal.SIGSTOP)
        try:
            for name in names:
                (mount.path / name).write_text(name * 1000)
            umount = subprocess.Popen(
                [sys.executable, "-m", "volgate", "umount", mount.path], stderr=subprocess.PIPE, text=True
            )
            wait_until(lambda: find_mount(mount.path) is None)
            assert umount.poll() is None
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert umount.communicate(timeout=60)[1] == ""
        assert umount.returncode == 0
        assert mount.process.wait(5) == 0
        assert sorted(path.name for path in bucket.iterdir() if path.name.startswith("f")) == sorted(names)


@pytest.mark.parametrize("verb", ["flush", "umount"])
def test_on_a_terminal_it_is_shown_how_much_is_left(bucket, server, place, verb):
    with mounted(bucket, place, alarms=False) as mount:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 200, 0, 0))
        with paused(server):
            (mount.path / "late").write_text("hello")
            process = subprocess.Popen([sys.executable, "-m", "volgate", verb, mount.path], stderr=theirs)
            said = b""
            while b"storing what is left: 1 file, 5 B" not in said:
                said += os.read(ours, 1000)
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 1000)
        assert process.returncode == 0
        os.close(ours)
        os.close(theirs)
    assert (bucket / "late").read_text() == "hello"


def test_umount_names_what_the_bucket_did_not_take_and_the_next_mount_stores_it(bucket, place):
    with mounted(bucket, place) as mount:
        refuse(bucket, mount)
        done = volgate("umount", mount.path)
        assert done.returncode == 0
        assert "not stored: 1 file, 4 B; 1 of them refused" in done.stderr and "mount again" in done.stderr
        assert mount.process.wait(5) == 0
    with mounted(bucket, place) as mount:
        assert (mount.path / "f").read_bytes() == b"theirs!"
        assert volgate("quarantine", "retry", mount.path).returncode == 0
        assert volgate("flush", mount.path).returncode == 0
        assert (bucket / "f").read_bytes() == b"ours"


def test_a_stop_gives_up_when_nothing_moves_and_keeps_the_rest(bucket, server, place, monkeypatch):
    monkeypatch.setenv("VOLGATE_MOUNT__STOP_DEADLINE", "2")
    with mounted(bucket, place) as mount:
        server.process.send_signal(signal.SIGSTOP)
        try:
            (mount.path / "late").write_text("hello")
            assert mount.stop() == 0
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert "not all is stored" in mount.log()
    with mounted(bucket, place) as mount:
        assert volgate("flush", mount.path).returncode == 0
        assert (bucket / "late").read_text() == "hello"


def test_a_second_signal_ends_the_wait_and_the_rest_comes_with_the_next_mount(bucket, server, place):
    with mounted(bucket, place) as mount:
        with paused(server):
            (mount.path / "late").write_text("hello")
            mount.process.send_signal(signal.SIGTERM)
            wait_until(lambda: find_mount(mount.path) is None)
            wait_until(lambda: "unmounted" in mount.log())
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(25) == 0
        assert not (bucket / "late").exists() or (bucket / "late").read_text() == "hello"
    with mounted(bucket, place) as mount:
        assert (mount.path / "late").read_text() == "hello"
        assert volgate("flush", mount.path).returncode == 0
    assert (bucket / "late").read_text() == "hello"


def test_a_file_in_quarantine_is_listed_exported_retried_and_dropped(bucket, place):
    with mounted(bucket, place) as mount:
        refuse(bucket, mount)
        (found,) = json.loads(volgate("quarantine", "list", mount.path, "--json").stdout)
        assert re.fullmatch(r"f@[0-9a-f]{8}", found["name"]), found
        assert found["size"] == 4 and "another writer" in found["reason"]
        assert "volgate quarantine list" in volgate("status", mount.path).stdout
        wait_until(lambda: (mount.path / "f").stat().st_size == 7, 5)
        assert (mount.path / "f").read_bytes() == b"theirs!"
        assert mounting.used_of(mount) == (11, 2)
        assert volgate("quota", "check", mount.path).returncode == 0

        copy = place / "copy"
        assert volgate("quarantine", "export", mount.path, found["name"], copy).returncode == 0
        assert copy.read_bytes() == b"ours" and copy.stat().st_mode & 0o777 == 0o600
        again = volgate("quarantine", "export", mount.path, found["name"], copy)
        assert again.returncode == 73 and "copy exists" in again.stderr
        assert volgate("quarantine", "drop", mount.path, "nothing").returncode == 69

        assert volgate("quarantine", "drop", mount.path, found["name"]).returncode == 0
        assert json.loads(volgate("quarantine", "list", mount.path, "--json").stdout) == []
        assert (mount.path / "f").read_bytes() == b"theirs!"
        assert mounting.used_of(mount) == (7, 1)
        assert volgate("quota", "check", mount.path).returncode == 0

        refuse(bucket, mount, name="g")
        assert volgate("quarantine", "retry", mount.path).returncode == 0
        assert (mount.path / "g").read_bytes() == b"ours"
        assert volgate("flush", mount.path).returncode == 0
        assert (bucket / "g").read_bytes() == b"ours"


def test_content_that_no_file_has_any_more_is_listed_exported_and_dropped(bucket, place):
    with mounted(bucket, place) as mount:
        volgate("umount", mount.path)
    folder = place / "cache" / "staging"
    (folder / "0123456789abcdef").write_bytes(b"lost and found")
    with mounted(bucket, place) as mount:
        (found,) = json.loads(volgate("quarantine", "list", mount.path, "--json").stdout)
        assert (found["name"], found["size"], found["is_orphan"]) == ("orphan-0123456789abcdef", 14, True)
        assert volgate("quarantine", "retry", mount.path, found["name"]).returncode == 64
        assert volgate("quarantine", "export", mount.path, found["name"], place / "copy").returncode == 0
        assert (place / "copy").read_bytes() == b"lost and found"
        assert volgate("quarantine", "drop", mount.path, found["name"]).returncode == 0
        assert json.loads(volgate("quarantine", "list", mount.path, "--json").stdout) == []


@pytest.mark.parametrize("is_mounted", [True, False])
def test_gc_removes_abandoned_uploads_and_leftovers_but_not_young_ones(bucket, place, is_mounted):
    s3 = client(bucket)
    with mounted(bucket, place) as mount:
        if not is_mounted:
            volgate("umount", mount.path)
        s3.create_multipart_upload(Bucket=bucket.name, Key="large")
        s3_put(bucket, ".volgate/aside/left", b"x")
        target = mount.path if is_mounted else f"s3://{bucket.name}"
        kept = volgate("gc", target, "--json")
        assert json.loads(kept.stdout) == {"uploads": 0, "objects": 0}, kept
        assert json.loads(volgate("gc", target, "--older-than", "0", "--json").stdout) == {"uploads": 1, "objects": 1}
        assert not s3.list_multipart_uploads(Bucket=bucket.name).get("Uploads")
        assert not (bucket / ".volgate/aside/left").exists()


def test_gc_leaves_what_an_open_file_is_read_from(bucket, place):
    with mounted(bucket, place, "-o", "cache_size=1", alarms=False) as mount:
        old = os.urandom(3 << 20)
        (mount.path / "f").write_bytes(old)
        assert volgate("flush", mount.path).returncode == 0
        with open(mount.path / "f", "rb", buffering=0) as file:
            (mount.path / "g").write_text("new")
            (mount.path / "g").replace(mount.path / "f")
            wait_until(lambda: any(bucket.glob(".volgate/aside/*")))
            removed = json.loads(volgate("gc", mount.path, "--older-than", "0", "--json").stdout)
            assert removed == {"uploads": 0, "objects": 0}
            assert b"".join(iter(lambda: file.read(1 << 20), b"")) == old
        assert volgate("flush", mount.path).returncode == 0
        wait_until(lambda: not any(bucket.glob(".volgate/aside/*")))


def test_who_lost_the_volume_is_told_who_has_it_and_changes_nothing_any_more(bucket, place):
    with mounted(bucket, place) as mount:
        (mount.path / "old").write_text("x")
        assert volgate("flush", mount.path).returncode == 0
        record = json.loads((bucket / ".volgate/lease").read_text())
        record |= {"epoch": record["epoch"] + 1, "grant": "another"}
        record["holder"] |= {"host": "other-host", "mount_point": "/mnt/there", "pid": 7}
        s3_put(bucket, ".volgate/lease", json.dumps(record).encode())
        wait_until(lambda: storage(mount)["lease"] == "lost", 30)
        shown = volgate("status", mount.path).stdout
        assert "another owner has the volume, at /mnt/there by process 7 on host other-host since" in shown
        assert mount.status()["state"] == "degraded"
        for change in (
            lambda: (mount.path / "new").write_text("x"),
            lambda: (mount.path / "old").write_text("x"),
            lambda: (mount.path / "old").unlink(),
            lambda: (mount.path / "old").rename(mount.path / "older"),
            lambda: (mount.path / "old").chmod(0o600),
        ):
            with pytest.raises(OSError, match="Read-only"):
                change()
        assert (mount.path / "old").read_text() == "x"


def test_a_second_host_is_told_where_the_volume_is_mounted(bucket, place):
    with mounted(bucket, place) as mount:
        (place / "second").mkdir()
        options = ("-o", f"cache_dir={place / 'other-cache'}")
        done = volgate("mount", f"s3://{bucket.name}", place / "second", *options)
        assert done.returncode == 32
        assert f"is in use at {mount.path} by process {mount.process.pid} on host " in done.stderr, done
        assert "unmount it there first" in done.stderr


def test_a_volume_in_a_bucket_is_created_shown_limited_counted_and_adopted_by_name(bucket, place, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    name, source = f"v{os.getpid()}", f"s3://{bucket.name}/below"
    try:
        done = volgate("volume", "create", name, source, "--quota", "1MiB", "-o", f"cache_dir={place / 'cache'}")
        assert done.returncode == 0, done
        assert volgate("volume", "create", name + "x", source).returncode == 73
        assert f"{source} can be listed, written and deleted" in volgate("doctor", name).stdout
        mnt = place / "mnt"
        mnt.mkdir()
        mount = mounting.start(name, mnt)
        try:
            (mnt / "file").write_text("hello")
            assert volgate("quota", "check", mnt).returncode == 0
        finally:
            assert volgate("umount", mnt).returncode == 0
            assert mount.process.wait(20) == 0
        shown = volgate("volume", "show", name).stdout
        assert "5 B of 1 MiB" in shown, shown
        done = volgate("quota", "set", name, "2MiB")
        assert done.returncode == 0 and "limit 2 MiB" in done.stdout, done
        assert "5 B of 2 MiB" in volgate("quota", "show", name).stdout
        s3_put(bucket, "below/behind", b"12345")
        done = volgate("quota", "check", name)
        assert done.returncode == 1 and "counted: 10 bytes, 2 inodes" in done.stdout, done
        assert volgate("quota", "check", name, "--repair").returncode == 0
        assert volgate("quota", "check", name).returncode == 0
        assert volgate("volume", "delete", name).returncode == 0
        assert volgate("volume", "adopt", source).returncode == 0
    finally:
        volgate("volume", "delete", name)


def test_a_volume_within_another_is_refused_from_below_and_told_from_above(bucket, server, place):
    (bucket / "a" / "b" / ".volgate").mkdir(parents=True)
    (bucket / "a" / "b" / ".volgate" / "identity.json").write_text("{}")
    (place / "other").mkdir()
    for prefix in ("a/b/c", "a/b/c/d/"):
        refused = volgate("mount", f"s3://{bucket.name}/{prefix}", place / "other", "-d")
        assert refused.returncode != 0
        assert f"lies in the volume s3://{bucket.name}/a/b, whose limit it would pass" in refused.stderr
        assert f"delete the objects below s3://{bucket.name}/a/b/.volgate/" in refused.stderr
    s3_put(bucket, "a/b/c/f", b"content")
    with mounting.mounted(place, name="copies") as copies:
        done = volgate("copy", f"s3://{bucket.name}/a/b/c", f"{copies.path}/c")
        assert done.returncode == 0 and (copies.path / "c/f").read_bytes() == b"content", done.stderr
        nothing = volgate("copy", f"s3://{bucket.name}/a/b/typo", f"{copies.path}/t")
        assert nothing.returncode and f"there is nothing at s3://{bucket.name}/a/b/typo" in nothing.stderr, nothing
    with mounted(bucket, place) as mount:
        assert volgate("flush", mount.path).returncode == 0
        wait_until(lambda: mount.status()["storage"]["volumes_within"] == ["a/b/"])
        assert "a/b/ is a volume of its own" in volgate("status", mount.path).stdout


def test_a_volume_is_not_locked_out_by_one_that_is_made_around_it_later(bucket, place):
    for folder in ("inner", "outer"):
        (place / folder).mkdir()
    assert volgate("mount", f"s3://{bucket.name}/in", place / "inner", "-d").returncode == 0
    (place / "inner/f").write_text("x")
    assert volgate("umount", place / "inner").returncode == 0
    assert volgate("mount", f"s3://{bucket.name}", place / "outer", "-d").returncode == 0
    assert volgate("umount", place / "outer").returncode == 0
    assert volgate("mount", f"s3://{bucket.name}/in", place / "inner", "-d").returncode == 0
    assert (place / "inner/f").read_text() == "x"
    assert volgate("umount", place / "inner").returncode == 0
    refused = volgate("mount", f"s3://{bucket.name}/in/new", place / "inner", "-d")
    assert refused.returncode and f"s3://{bucket.name}/in/new lies in the volume" in refused.stderr, refused


def test_a_bucket_that_is_mounted_already_says_where_and_one_that_is_not_says_how(bucket, place):
    other = place / "other"
    other.mkdir()
    with mounted(bucket, place) as mount:
        again = volgate("mount", f"s3://{bucket.name}", other, "-d", "-o", f"cache_dir={place / 'cache'}")
        assert f"in use here already, at {mount.path} by process {mount.process.pid}" in again.stderr
    missing = volgate("mount", "s3://no-such-bucket-here", other, "-d")
    assert "there is no bucket 'no-such-bucket-here'" in missing.stderr


def test_a_secret_that_does_not_fit_is_told_in_words(bucket, place, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (place / "mnt").mkdir()
    refused = volgate("mount", f"s3://{bucket.name}", place / "mnt", "-d")
    assert "the secret key does not fit the access key" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_volume_that_is_known_and_not_mounted_says_how_to_mount_it(bucket, place):
    assert volgate("volume", "create", "known", f"s3://{bucket.name}").returncode == 0
    for verb in (["status"], ["refresh"]):
        done = volgate(*verb, "known")
        assert done.returncode == 69
        assert "volume known is not mounted; 'volgate mount known MOUNTPOINT' mounts it" in done.stderr
    checked = volgate("quota", "check", "known")
    assert (checked.returncode, checked.stdout.splitlines()[1]) == (
        0,
        "ledger:  nothing settled; the next mount counts or measures it",
    )
    assert volgate("volume", "delete", "known").returncode == 0


def test_verbs_about_a_bucket_that_is_not_mounted_are_told_its_server(bucket, server, place, monkeypatch):
    with mounted(bucket, place) as mount:
        (mount.path / "f").write_bytes(b"12345")
    source = f"s3://{bucket.name}"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    lost = volgate("quota", "show", source)
    assert lost.returncode == 75 and "say --endpoint-url" in lost.stderr
    there = ("--endpoint-url", server.url)
    assert json.loads(volgate("quota", "show", source, *there, "--json").stdout)["used_bytes"] == 5
    assert volgate("quota", "set", source, "1MiB", *there).returncode == 0
    assert volgate("quota", "check", source, *there).returncode == 0
    assert volgate("gc", source, *there).returncode == 0
    assert volgate("umount", source).returncode == 0
    assert volgate("snapshot", "create", source, *there).returncode == 0
    assert volgate("umount", source).returncode == 0
    assert json.loads(volgate("quarantine", "list", source, *there, "--json").stdout) == []
    assert volgate("flush", source, *there).returncode == 0
    assert volgate("volume", "adopt", source, *there).returncode == 0
    (known,) = [v for v in json.loads(volgate("volume", "list", "--json").stdout) if v["source"] == source]
    assert volgate("quota", "show", known["volume_id"]).returncode == 0
    assert volgate("volume", "delete", known["volume_id"]).returncode == 0


def test_a_single_object_is_copied_by_its_url_and_what_is_refused_of_a_tree_is_named(bucket, place):
    (bucket / "folder").mkdir()
    (bucket / "folder/object").write_text("content")
    (bucket / "top").write_text("at the top")
    with mounting.mounted(place, name="copies") as copies:
        for url, name in ((f"s3://{bucket.name}/folder/object", "object"), (f"s3://{bucket.name}/top", "top")):
            done = volgate("copy", url, f"{copies.path}/")
            assert done.returncode == 0, done.stderr
            assert (copies.path / name).read_text() == (bucket / url.split("/", 3)[3]).read_text()
            assert "nothing differed" in volgate("sync", url, f"{copies.path}/{name}").stdout
        for url in (f"s3://{bucket.name}/folder/none", f"s3://{bucket.name}/folder/object/below"):
            refused = volgate("copy", url, f"{copies.path}/none")
            assert refused.returncode == 73 and f"there is nothing at {url}" in refused.stderr
    tree = place / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("content")
    os.setxattr(tree / "sub/file", "user.large", bytes(3000))
    with mounted(bucket, place) as mount:
        refused = volgate("copy", tree, f"{mount.path}/tree")
        assert refused.returncode == 73 and "'sub/file': an object's metadata has 2048 bytes" in refused.stderr
        assert not (mount.path / "tree").exists()


def test_a_copy_from_a_server_that_is_not_there_says_what_it_waits_for(place, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with mounting.mounted(place, name="copies", alarms=True) as copies:
        command = [sys.executable, "-m", "volgate", "copy", f"s3://{bucket.name}", f"{copies.path}/tree"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as copying:
            said = copying.stderr.readline()
            copying.send_signal(signal.SIGINT)
        assert "it waits, and tries again: " in said and len(said.splitlines()) == 1, said
        (task,) = json.loads(volgate("task", "list", copies.path, "--json").stdout)
        assert volgate("task", "cancel", copies.path, task["operation_id"]).returncode == 0
