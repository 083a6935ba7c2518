"""What an administrator looks at: doctor, top, status in words."""

import contextlib
import glob
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import s3_server
from mounting import find_mount, in_namespace, mounted, one_line, volgate, wait_until


def doctor(**environment):
    done = subprocess.run(
        [sys.executable, "-m", "volgate", "doctor", "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_doctor_names_what_is_missing_and_what_mends_it():
    status, findings = doctor(PATH="/nonexistent", VOLGATE_LOG__LEVEL="loud")
    assert status == 1
    assert findings["fusermount3"]["remedy"] == "apt-get install fuse3"
    assert "'loud' is none of" in findings["configuration"]["message"]
    findings = doctor()[1]
    missing = {check for check, finding in findings.items() if finding["state"] == "missing"}
    assert missing <= {"mounts"}, findings  # a dead mount of somebody else's is none of this test's business
    assert findings["fuse device"]["state"] == "ok"
    for line in volgate("doctor").stdout.splitlines():
        assert line.startswith(("ok ", "warning ", "MISSING ", "         -> "))


def test_doctor_finds_a_dead_mount(place):
    with mounted(place) as mount:
        mount.checked = False
        mount.process.kill()
        mount.process.wait()
        status, findings = doctor()
        assert status == 1
        assert str(mount.path) in findings["mounts"]["message"] and "volgate umount" in findings["mounts"]["remedy"]


def test_doctor_warns_of_indexers_that_would_walk_every_mount(place):
    (place / "updatedb.conf").write_text('PRUNEFS="nfs"\n')
    script = "touch /etc/updatedb.conf; mount --bind updatedb.conf /etc/updatedb.conf; volgate doctor || true"
    was_there = os.path.exists("/etc/updatedb.conf")
    try:
        assert "PRUNEFS" in in_namespace(script, place).stdout
        (place / "updatedb.conf").write_text('PRUNEFS="nfs fuse.volgate"\n')
        assert "PRUNEFS" not in in_namespace(script, place).stdout
    finally:
        if not was_there:
            os.unlink("/etc/updatedb.conf")


@pytest.fixture
def s3(place):
    with s3_server.running(place / "s3") as server:
        server.make_bucket("bucket")
        yield server


def doctor_of(s3, source, *options, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "volgate", "doctor", source, "--endpoint-url", s3.url, "--json", *options],
        env={**os.environ, **s3.environment, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_doctor_tells_which_promises_a_bucket_keeps_and_leaves_nothing_in_it(s3):
    status, findings = doctor_of(s3, "s3://bucket/prefix")
    assert status == 0
    assert {finding["state"] for finding in findings.values()} == {"ok"}
    assert {"server", "clock", "conditional_put", "conditional_delete", "checksums"} <= findings.keys()
    assert [path for path in (s3.data / "bucket").rglob("*") if path.is_file()] == []


def test_doctor_tells_why_a_bucket_cannot_be_used(s3, place):
    status, findings = doctor_of(s3, "s3://bucket", AWS_SECRET_ACCESS_KEY="wrong")
    assert status == 1 and "does not fit the access key" in findings["credentials"]["message"]
    assert "AWS_SECRET_ACCESS_KEY" in findings["credentials"]["remedy"]
    findings = doctor_of(s3, "s3://bucket", AWS_ACCESS_KEY_ID="unheard-of")[1]
    assert "does not know this access key" in findings["credentials"]["message"]
    assert "AWS_SECRET_ACCESS_KEY" in findings["credentials"]["remedy"]
    findings = doctor_of(s3, "s3://bucket", "-o", "anonymous")[1]
    assert "s3:PutObject" in findings["credentials"]["remedy"]
    assert "there is no bucket 'missing'" in doctor_of(s3, "s3://missing")[1]["server"]["message"]
    (place / "key").write_text("canary")
    (place / "key").chmod(0o644)
    findings = doctor_of(s3, "s3://bucket", "-o", f"credentials_file={place}/key")[1]
    assert "all users may read it" in findings["settings"]["message"] and "canary" not in str(findings)
    assert volgate("doctor", "s3://bucket", "-o", "colour=red").returncode == 64


def test_doctor_tells_whether_a_directory_can_be_mounted_and_what_it_lacks(place):
    data = place / "data"
    assert "mkdir -p" in volgate("doctor", data).stdout
    data.mkdir()
    (data / "f").write_text("x")
    done = volgate("doctor", data)
    assert (done.returncode, "it is none yet" in done.stdout) == (0, True), done
    assert [file.name for file in data.iterdir()] == ["f"]
    subprocess.run(["mount", "-t", "ramfs", "ramfs", data], check=True)
    try:
        findings = {finding["check"]: finding for finding in json.loads(volgate("doctor", data, "--json").stdout)}
        assert findings["directory"]["state"] == "ok"
        assert {"inline_io", "xattrs"} <= {name for name, found in findings.items() if found["state"] == "warning"}
    finally:
        subprocess.run(["umount", data], check=True)
    (data / ".volgate").mkdir()
    (data / ".volgate/identity.json").write_text("{}")
    (data / "inner").mkdir()
    done = volgate("doctor", data / "inner")
    assert (done.returncode, "lies inside the volume" in done.stdout) == (1, True), done
    assert "no volume 'unheard-of'" in volgate("doctor", "unheard-of").stderr
    assert volgate("doctor", data, "--endpoint-url", "http://localhost").returncode == 64


def test_doctor_of_a_name_tells_where_its_data_is_missing(place):
    name = "doctortest"
    assert volgate("volume", "create", name, place / "data").returncode == 0
    try:
        assert volgate("doctor", name).returncode == 0
        shutil.rmtree(place / "data/.volgate")
        for says in (
            f"does not hold the volume {name}: is its storage mounted?",
            "is not there: is its storage mounted?",
        ):
            done = volgate("doctor", name)
            assert done.returncode == 1 and says in done.stdout and "mkdir" not in done.stdout, done
            shutil.rmtree(place / "data", ignore_errors=True)
    finally:
        volgate("volume", "delete", name)


def test_a_file_system_that_is_read_only_is_told_with_the_way_to_mount_it(place):
    data, path = place / "data", place / "volume"
    data.mkdir()
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", data], check=True)
    try:
        refused = volgate("mount", data, path, "-d")
        assert refused.returncode and f"{data} lies on a file system that is read-only; mount it with --read-only" in (
            refused.stderr
        )
    finally:
        subprocess.run(["umount", data], check=True)


def test_top_without_a_terminal_prints_one_table(place):
    with mounted(place) as mount:
        done = volgate("top", "--interval", "0.1")
        assert done.returncode == 0 and done.stdout.count(str(mount.path)) == 1, done


def test_doctor_of_what_is_mounted_says_so_and_looks_at_its_storage(place):
    with mounted(place, "--quota", "1MiB") as mount:
        (mount.path / "below").mkdir()
        for target in (mount.path, mount.backing, mount.volume_id()):
            done = volgate("doctor", target)
            assert done.returncode == 0, done
            assert f"{mount.backing} is mounted at {mount.path} as volume {mount.volume_id()}" in done.stdout
            assert "can be mounted" not in done.stdout and "limit 1 MiB" in done.stdout
        mount.kill()
        assert "can be mounted" in volgate("doctor", mount.backing).stdout


def test_doctor_of_a_mounted_bucket_knows_its_server(s3, place):
    with mounted(place, "--endpoint-url", s3.url, source="s3://bucket", environment=s3.environment) as mount:
        done = subprocess.run(
            [sys.executable, "-m", "volgate", "doctor", mount.path],
            env={**os.environ, **s3.environment, "AWS_ENDPOINT_URL": ""}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert f"s3://bucket is mounted at {mount.path} as volume" in done.stdout, done
        assert "s3://bucket can be listed, written and deleted" in done.stdout, done


def test_doctor_takes_the_server_and_the_secret_from_where_the_configuration_says(s3, place):
    secret = place / "secret"
    secret.write_text(
        f"[default]\naws_access_key_id = {s3_server.ACCESS_KEY}\naws_secret_access_key = {s3_server.SECRET_KEY}\n"
    )
    secret.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"VOLGATE_S3__ENDPOINT_URL": s3.url, "VOLGATE_S3__CREDENTIALS_FILE": str(secret)}

    def ask():
        return subprocess.run(
            [sys.executable, "-m", "volgate", "doctor", "s3://bucket"], env=environment, capture_output=True, text=True
        )

    assert ask().returncode == 0
    secret.chmod(0o604)
    assert f"chmod 600 {secret}" in ask().stdout


def test_doctor_sees_a_clock_that_is_off(s3):
    (library,) = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    off = {"LD_PRELOAD": library, "FAKETIME": "+300", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    status, findings = doctor_of(s3, "s3://bucket", **off)
    assert status == 0 and re.search(r"clock is \+(299|300|301) s off", findings["clock"]["message"])
    status, findings = doctor_of(s3, "s3://bucket", **{**off, "FAKETIME": "+3000"})
    assert status == 1 and "set this host's by NTP" in findings["credentials"]["message"]
    assert findings["credentials"]["remedy"] == "timedatectl set-ntp true"


def test_top_shows_what_happens_between_two_looks(place):
    with mounted(place, "--quota", "1MiB", "--attr-timeout", "0") as mount:
        top = subprocess.Popen(
            [sys.executable, "-m", "volgate", "top", "--json", "--once", "--interval", "2"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        while top.poll() is None:
            os.stat(mount.path)
            time.sleep(0.01)
        rows = [json.loads(line) for line in top.stdout]
        top.stdout.close()
        (row,) = [row for row in rows if row["mount_point"] == str(mount.path)]
        assert row["requests_per_s"] > 0 and "getattr" in row["busiest"] and row["median_us"] >= 1
        assert (row["state"], row["quota_bytes"]) == ("ready", 1 << 20)
        table = volgate("top", "--once", "--interval", "0.1").stdout
        assert "MOUNT POINT" in table and "ready" in table


def test_top_shows_how_many_bytes_pass(place):
    with mounted(place) as mount:
        watch = [sys.executable, "-m", "volgate", "top", "--json", "--interval", "0.5"]
        with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as top:
            seen = {"read_bytes_per_s": 0, "written_bytes_per_s": 0}
            while not all(seen.values()):
                (mount.path / "f").write_bytes(bytes(1 << 20))
                with (mount.path / "f").open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    file.read()
                if select.select([top.stdout], [], [], 0)[0]:
                    row = json.loads(top.stdout.readline())
                    if row["mount_point"] == str(mount.path):
                        seen = {name: max(seen[name], row[name]) for name in seen}
            top.kill()
        passed = {name: mount.statistic(name) for name in ("read_bytes", "written_bytes")}
        (mount.path / "g").write_bytes(bytes(12345))
        assert mount.statistic("written_bytes") == passed["written_bytes"] + 12345


@contextlib.contextmanager
def terminal(*arguments, **environment):
    """Run a verb on a terminal of its own; yields its process, and what reads from and types into it."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "volgate", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40", **environment},
    )  # fmt: skip
    os.close(theirs)
    try:
        with open(ours, "r+b", buffering=0) as screen:
            yield process, screen
    finally:
        process.kill()
        process.wait()


def read_until(screen, text):
    seen = b""
    while text not in seen:
        assert select.select([screen], [], [], 20)[0], seen
        seen += screen.read(65536)
    return seen


def test_top_shows_all_mounts_at_once_and_ends_at_q(place):
    with mounted(place) as mount, terminal("top", "--interval", "3600") as (top, screen):
        read_until(screen, bytes(mount.path))
        screen.write(b"xq")
        assert top.wait(20) == 0


def test_no_color_is_obeyed(place):
    with mounted(place) as mount:
        mount.checked = False
        mount.process.kill()
        mount.process.wait()
        for environment, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
            with terminal("top", "--interval", "3600", **environment) as (_, screen):
                seen = read_until(screen, b"dead")
                assert (re.search(rb"\x1b\[[0-9;]*3[0-7]m", seen) is not None) == colours, seen


def test_status_says_in_words_that_usage_is_above_the_limit(place):
    with mounted(place) as mount:
        (mount.path / "f").write_bytes(bytes(1000))
        volgate("quota", "set", mount.path, "10")
        status = json.loads(volgate("status", mount.path, "--json").stdout)
        assert [problem["code"] for problem in status["problems"]] == ["above_limit"]
        assert "only growth is refused" in volgate("status", mount.path).stdout
        assert status["state"] == "ready"


@pytest.mark.parametrize("options", [[], ["--read-only"]], ids=["writable", "read-only"])
def test_a_daemon_that_does_not_answer_is_degraded_and_others_are_shown(place, options):
    with mounted(place, *options, name="hung") as hung, mounted(place, name="well") as well:
        hung.process.send_signal(signal.SIGSTOP)
        try:
            states = {m["mount_point"]: m["state"] for m in json.loads(volgate("list", "--json").stdout)}
            assert f"kill -9 {hung.process.pid}" in volgate("status", hung.path).stdout
            shown = one_line(volgate("quota", "show", hung.path), os.EX_TEMPFAIL)
            assert f"(process {hung.process.pid}) does not answer" in shown
        finally:
            hung.process.send_signal(signal.SIGCONT)
        assert states[str(well.path)] == "ready"
        assert states[str(hung.path)] == "degraded"
        wait_until(lambda: json.loads(volgate("status", hung.path, "--json").stdout)["state"] == "ready")


@pytest.fixture
def silent_daemon():
    """Return a socket among those of the daemons that hangs up on whoever asks, and which of our children asked."""
    path, asked = Path(f"/run/volgate/silent-{os.getpid()}.sock"), []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def hang_up():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if psutil.Process(pid).ppid() == os.getpid():  # others on the host may look, too
                    asked.append(pid)
                connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    try:
        yield path, asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        path.unlink()


def test_a_verb_about_one_mount_asks_no_other_daemon_which_may_hang(place, silent_daemon):
    path, asked = silent_daemon
    with mounted(place) as mount:
        for target in (mount.path, mount.volume_id()):
            assert json.loads(volgate("status", target, "--json").stdout)["mount_point"] == str(mount.path)
        assert not asked
        states = {m["volume_id"]: m["state"] for m in json.loads(volgate("list", "--json").stdout)}
        assert (states[path.stem], states[mount.volume_id()], len(set(asked))) == ("degraded", "ready", 1)


def test_the_mount_of_a_daemon_that_hangs_can_be_unmounted(place):
    with mounted(place) as mount:
        mount.process.send_signal(signal.SIGSTOP)
        umount = subprocess.Popen([sys.executable, "-m", "volgate", "umount", mount.path], stderr=subprocess.PIPE)
        try:
            wait_until(lambda: find_mount(mount.path) is None, 30)
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert umount.communicate(timeout=30) == (None, b"")
        assert (umount.returncode, mount.process.wait(20)) == (0, 0)
        mount.checked = False
