"""Mounting and ending, by the command line, as people and systemd do it."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mounting
from mounting import (
    ended,
    find_mount,
    fuse_control,
    in_namespace,
    mounted,
    one_line,
    signal_until_it_ends,
    volgate,
    wait_until,
)
from volgate import paths
from volgate.cli import ending, main


def test_detach_returns_when_the_mount_answers_and_umount_when_the_daemon_has_ended(folders):
    data, mnt = folders
    done = volgate("mount", data, mnt, "-d", "--quota", "1MiB")
    assert done.returncode == 0, done
    assert done.stdout.startswith("mounted data-") and "0 B of 1 MiB used" in done.stdout
    (mnt / "file").write_text("hello")
    pid = json.loads(volgate("status", mnt, "--json").stdout)["pid"]
    assert volgate("umount", mnt).returncode == 0
    assert ended(pid)
    assert find_mount(mnt) is None
    assert (data / "file").read_text() == "hello"


def test_quiet_says_nothing_but_errors_and_what_is_asked_for(folders):
    data, mnt = folders
    for words in (["mount", data, mnt, "-d"], ["quota", "set", mnt, "1MiB"], ["umount", mnt]):
        done = volgate("--quiet", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "1 MiB" in volgate("--quiet", "quota", "show", data).stdout
    one_line(volgate("--quiet", "umount", mnt), 32)


def test_umount_says_on_a_terminal_what_it_waits_for(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    container = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "50"])
    ours, theirs = pty.openpty()
    try:
        wait_until(lambda: str(mnt) in Path(f"/proc/{container.pid}/mountinfo").read_text())
        wait_until(lambda: Path(f"/proc/{container.pid}/comm").read_text() == "sleep\n")
        umount = subprocess.Popen([sys.executable, "-m", "volgate", "umount", mnt], stderr=theirs)
        said = b""
        while b"sleep" not in said:
            said += os.read(ours, 1000)
        assert b"namespace of their own" in b" ".join(said.split())
    finally:
        container.kill()
        container.wait()
    while select.select([ours], [], [], 0)[0]:
        os.read(ours, 1000)
    assert umount.wait(20) == 0
    os.close(ours)
    os.close(theirs)


def test_list_has_the_promised_fields(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d", "--quota", "1MiB", "--inodes", "10")
    try:
        (mnt / "file").write_text("hello")
        (listed,) = [m for m in json.loads(volgate("list", "--json").stdout) if m["mount_point"] == str(mnt)]
        assert list(listed) == [
            "volume_id", "uuid", "mount_point", "pid", "backend_type", "source", "state",
            "used_bytes", "quota_bytes", "file_count", "quota_inodes", "read_only",
        ]  # fmt: skip
        assert (listed["used_bytes"], listed["quota_bytes"]) == (5, 1 << 20)
        assert (listed["file_count"], listed["quota_inodes"]) == (1, 10)
        assert (listed["state"], listed["read_only"], listed["backend_type"]) == ("ready", False, "posix")
        assert listed["volume_id"] in volgate("list").stdout
        completing = {"_VOLGATE_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": f"volgate umount {mnt}"}
        command = [Path(sys.executable).with_name("volgate")]
        done = subprocess.run(command, env={**os.environ, **completing}, capture_output=True, text=True, timeout=20)
        assert done.stdout == f"plain,{mnt}\n"
    finally:
        volgate("umount", mnt)


def test_a_remount_without_a_quota_keeps_it_and_one_with_it_changes_it(folders):
    data, mnt = folders
    for options, expected in ((["--quota", "1MiB"], 1 << 20), ([], 1 << 20), (["--quota", "none"], None), ([], None)):
        assert volgate("mount", data, mnt, "-d", *options).returncode == 0
        shown = json.loads(volgate("quota", "show", mnt, "--json").stdout)
        assert volgate("umount", mnt).returncode == 0
        assert shown["quota_bytes"] == expected


def test_a_second_writable_mount_is_refused_and_names_the_holder(folders, place):
    data, mnt = folders
    other = place / "other"
    other.mkdir()
    volgate("mount", data, mnt, "-d")
    try:
        line = one_line(volgate("mount", data, other, "-d"), 32)
        assert str(mnt) in line and "process" in line
        assert find_mount(other) is None
        assert volgate("mount", data, other, "-d", "--read-only").returncode == 0
        with pytest.raises(OSError, match="Read-only"):
            (other / "file").write_text("no")
        assert volgate("umount", other).returncode == 0
    finally:
        volgate("umount", mnt)


def test_the_limit_can_be_set_on_a_live_mount_and_on_an_unmounted_directory(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d", "--quota", "1K")
    try:
        (mnt / "file").write_bytes(b"x" * 1024)
        with pytest.raises(OSError, match="quota"):
            (mnt / "more").write_bytes(b"x")
        assert volgate("quota", "set", mnt, "2K").returncode == 0
        (mnt / "more").write_bytes(b"x" * 1024)
        below = volgate("quota", "set", mnt, "1K")
        assert below.returncode == 0 and "only growth is refused" in below.stderr
    finally:
        volgate("umount", mnt)
    assert volgate("quota", "set", data, "5K").returncode == 0
    assert json.loads(volgate("quota", "show", data, "--json").stdout)["quota_bytes"] == 5120


def test_check_finds_what_was_changed_behind_a_ledgers_back_and_repairs_it(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    (mnt / "file").write_bytes(b"x" * 1000)
    volgate("umount", mnt)
    assert volgate("quota", "check", data).returncode == 0
    (data / "behind").write_bytes(b"x" * 500)
    checked = volgate("quota", "check", data, "--json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["counted"] == {"used_bytes": 1500, "file_count": 2}
    assert volgate("quota", "check", data, "--repair").returncode == 0
    assert volgate("quota", "check", data).returncode == 0


@pytest.mark.parametrize("taken", ["while it is mounted", "when it is not"])
def test_what_was_restored_in_place_from_a_backup_is_counted(folders, place, taken):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d", "--quota", "10MB").returncode == 0
    (mnt / "big").write_bytes(bytes(6_000_000))
    if taken == "when it is not":
        assert volgate("umount", mnt).returncode == 0
    subprocess.run(["cp", "-a", f"{data}/.", place / "backup"], check=True)
    if taken == "when it is not":
        assert volgate("mount", data, mnt, "-d").returncode == 0
    (mnt / "big").unlink()
    assert volgate("umount", mnt).returncode == 0
    subprocess.run(["cp", "-a", f"{place}/backup/.", data], check=True)
    assert volgate("mount", data, mnt, "-d").returncode == 0
    try:
        checked = volgate("quota", "check", mnt)
        assert checked.returncode == 0 and "ledger:  6000000 bytes, 1 inodes" in checked.stdout, checked
    finally:
        assert volgate("umount", mnt).returncode == 0


def test_what_another_host_or_user_served_since_is_counted(folders, place):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d", "--quota", "5MB").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    elsewhere = "mount -t tmpfs state /var/lib/volgate; mount -t tmpfs run /run/volgate; "
    grown = "volgate mount ./data mnt -d; head -c 4000000 /dev/zero >mnt/there; volgate umount mnt"
    done = in_namespace(elsewhere + grown, place)
    assert done.returncode == 0, done
    assert json.loads(volgate("quota", "show", data, "--json").stdout)["used_bytes"] is None
    assert volgate("mount", data, mnt, "-d").returncode == 0
    try:
        with pytest.raises(OSError, match="quota"):
            (mnt / "here").write_bytes(bytes(1_000_001))
        checked = volgate("quota", "check", mnt)
        assert checked.returncode == 0 and "ledger:  5000000 bytes, 2 inodes" in checked.stdout, checked
    finally:
        assert volgate("umount", mnt).returncode == 0


def test_a_mount_that_only_reads_takes_no_limit(folders):
    data, mnt = folders
    for limit in (("--quota", "1M"), ("-o", "inodes=5")):
        assert "stores no limits" in one_line(volgate("mount", data, mnt, "-d", "--read-only", *limit), 32)
    assert os.listdir(data) == []
    assert volgate("mount", data, mnt, "-d", "--quota", "5MB").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    assert volgate("mount", data, mnt, "-d", "-o", "ro,quota=6MB").returncode == 0
    assert json.loads(volgate("quota", "show", mnt, "--json").stdout)["quota_bytes"] == 5_000_000
    assert volgate("umount", mnt).returncode == 0


def test_a_check_beside_a_mount_that_only_reads_is_one_of_the_ledger(folders, place):
    data, mnt = folders
    (place / "ro").mkdir()
    volgate("mount", data, mnt, "-d")
    try:
        assert volgate("mount", data, place / "ro", "-d", "--read-only").returncode == 0
        (mnt / "file").write_bytes(b"x" * 1000)
        for target in (place / "ro", mnt):
            checked = volgate("quota", "check", target)
            assert checked.returncode == 0 and "ledger:  1000 bytes, 1 inodes" in checked.stdout, checked
        assert volgate("umount", mnt).returncode == 0
        (data / "behind").touch()
        for target in (place / "ro", data):
            assert volgate("quota", "check", target).returncode == 1
        assert volgate("quota", "check", place / "ro", "--repair").returncode == 0
        assert volgate("quota", "check", data).returncode == 0
    finally:
        volgate("umount", mnt)
        volgate("umount", place / "ro")


def test_a_killed_daemon_leaves_a_dead_mount_that_the_next_mount_heals(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d", "--quota", "1MiB")
    (mnt / "file").write_bytes(b"x" * 1000)
    pid = json.loads(volgate("status", mnt, "--json").stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid))
    (listed,) = [m for m in json.loads(volgate("list", "--json").stdout) if m["mount_point"] == str(mnt)]
    assert listed["state"] == "dead"
    done = volgate("mount", data, mnt, "-d")
    assert done.returncode == 0, done
    status = json.loads(volgate("status", mnt, "--json").stdout)
    assert (status["used_bytes"], status["file_count"]) == (1000, 1)
    assert status["usage_found"].startswith("recovered after a crash")
    assert volgate("umount", mnt).returncode == 0


def test_a_dead_mount_of_others_on_the_host_disturbs_no_verb(folders, place):
    data, mnt = folders
    with mounted(place, name="others") as others:
        others.checked = False
        others.process.kill()
        others.process.wait()
        assert volgate("mount", data, mnt, "-d", "--quota", "1MiB").returncode == 0
        try:
            for verb in (
                ["list"],
                ["top", "--once", "--interval", "0.1"],
                ["status"],
                ["status", mnt],
                ["quota", "show", mnt],
            ):
                done = volgate(*verb, "--json")
                assert (done.returncode, done.stderr) == (0, ""), done
                assert str(mnt) in done.stdout or verb[0] == "quota"
            assert volgate("quota", "set", data, "2MiB").returncode == 0
        finally:
            assert volgate("umount", data).returncode == 0
        assert find_mount(others.path) is not None


def test_umount_names_who_holds_files_and_lazy_detaches(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    pid = json.loads(volgate("status", mnt, "--json").stdout)["pid"]
    (mnt / "file").write_text("hello")
    with (mnt / "file").open() as held:
        line = one_line(volgate("umount", mnt), 32)
        assert str(os.getpid()) in line and "--lazy" in line
        assert volgate("umount", mnt, "--lazy").returncode == 0
        assert find_mount(mnt) is None
        assert held.read() == "hello"
    wait_until(lambda: ended(pid))


def test_sigterm_waits_for_an_open_file_and_loses_nothing(place):
    with mounted(place) as mount:
        with (mount.path / "file").open("wb") as file:
            file.write(b"x" * 100_000)
            file.flush()
            mount.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)  # the daemon meets a busy mount
            assert mount.process.poll() is None
            with pytest.raises(OSError):
                (mount.path / "other").open("wb")
            file.write(b"y" * 100_000)
        assert mount.process.wait(20) == 0
        assert (mount.backing / "file").read_bytes() == b"x" * 100_000 + b"y" * 100_000


def test_signals_that_go_on_cut_off_nothing_of_a_stop(place):
    with mounted(place, alarms=True) as mount:
        (mount.path / "file").write_text("kept")
        signal_until_it_ends(mount.process, signal.SIGTERM, signal.SIGHUP)
        assert mount.process.returncode == 0, mount.log()
        assert find_mount(mount.path) is None
        assert (mount.backing / "file").read_text() == "kept"


@pytest.mark.parametrize("control", ["without", "with"])
def test_a_stop_ends_the_daemon_though_another_namespace_has_the_mount(place, control):
    if control == "without":  # as on a host, or in a container, that does not mount fusectl
        subprocess.run(["umount", "/sys/fs/fuse/connections"], check=False)
    elif not os.path.ismount("/sys/fs/fuse/connections"):
        subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"], check=True)
    with mounted(place, alarms=True, environment={"VOLGATE_MOUNT__STOP_DEADLINE": "1s"}) as mount:
        (mount.path / "f").write_text("kept")
        holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "60"])
        try:
            wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
            mount.checked = False
            assert mount.stop() == 0
            assert "another mount namespace" in mount.log()
            assert (mount.backing / "f").read_text() == "kept"
        finally:
            holder.kill()
            holder.wait()


def test_an_aborted_connection_ends_the_daemon_with_an_error(place):
    with mounted(place, alarms=True) as mount:
        mount.checked = False
        fuse_control(find_mount(mount.path).minor, "abort").write_text("1")
        assert mount.process.wait(20) == 1
        assert find_mount(mount.path) is None
        assert "aborted" in mount.log()


def test_an_existing_directory_is_counted_at_its_first_mount(folders):
    data, mnt = folders
    (data / "deep").mkdir()
    (data / "deep" / "file").write_bytes(b"x" * 700)
    os.link(data / "deep" / "file", data / "again")
    os.symlink("file", data / "link")
    volgate("mount", data, mnt, "-d")
    try:
        shown = json.loads(volgate("quota", "show", mnt, "--json").stdout)
        assert (shown["used_bytes"], shown["file_count"]) == (700, 3)
    finally:
        volgate("umount", mnt)


def test_counting_shows_on_a_terminal_how_far_it_is(folders):
    data, mnt = folders
    (data / "d").mkdir()
    (data / "d" / "file").write_bytes(b"x" * 700)
    program = (
        "import sys; from volgate.volume import counting; counting._PROGRESS_S = 0;"
        "from volgate.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    ours, theirs = pty.openpty()
    mount = subprocess.Popen([sys.executable, "-c", program, "mount", str(data), str(mnt)], stderr=theirs)
    os.close(theirs)
    try:
        said = b""
        while b"2 files, 700 B" not in said:
            said += os.read(ours, 1000)
        assert b"counting: 2 files, 700 B" in said and "━".encode() in said
        wait_until(lambda: find_mount(mnt) is not None)
    finally:
        mount.terminate()
        mount.wait(20)
        os.close(ours)


def test_a_restored_or_copied_volume_is_counted_again(folders, place):
    data, mnt = folders
    (data / "f").write_bytes(bytes(1000))
    for _ in range(2):
        assert volgate("mount", data, mnt, "-d").returncode == 0
        assert volgate("umount", mnt).returncode == 0
    (place / "copy").mkdir()
    subprocess.run(["cp", "-a", f"{data}/.", place / "copy"], check=True)
    (place / "copy" / "more").write_bytes(bytes(500))
    assert volgate("mount", place / "copy", mnt, "-d").returncode == 0
    try:
        status = json.loads(volgate("status", mnt, "--json").stdout)
        assert (status["used_bytes"], "lies elsewhere" in status["usage_found"]) == (1500, True)
        (place / "other").mkdir()
        assert "'.volgate' folder" in one_line(volgate("mount", data, place / "other", "-d"), 32)
    finally:
        volgate("umount", mnt)


def test_a_volume_inside_a_volume_is_refused(folders):
    data, mnt = folders
    (data / "inner").mkdir()
    volgate("mount", data, mnt, "-d")
    assert volgate("umount", mnt).returncode == 0
    refused = one_line(volgate("mount", data / "inner", mnt), 32)
    assert f"lies inside the volume in {data}" in refused and f"remove {data}/.volgate" in refused


def test_a_directory_that_a_volume_lies_in_becomes_none(folders, place):
    data, mnt = folders
    inner = data / "a/inner"
    inner.mkdir(parents=True)
    (data / "a/.volgate").mkdir()  # no volume: a name that anybody may use there
    (data / "beside").mkdir()
    assert volgate("mount", inner, mnt, "-d").returncode == 0
    try:
        (place / "other").mkdir()
        for verb in (("mount", data, place / "other"), ("volume", "create", "outer", data)):
            refused = volgate(*verb)
            assert refused.returncode and f"the volume in {inner} lies within {data}" in refused.stderr, refused
            assert f"remove {inner}/.volgate" in refused.stderr
        assert not (data / ".volgate").exists()
    finally:
        assert volgate("umount", mnt).returncode == 0
    assert volgate("mount", data / "beside", mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    shutil.rmtree(inner / ".volgate")
    shutil.rmtree(data / "beside/.volgate")
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0


def test_a_volume_whose_storage_is_gone_is_shown_as_it_is_known(place):
    data = place / "going"
    assert volgate("volume", "create", "going", data).returncode == 0
    shutil.rmtree(data)
    shown = volgate("volume", "show", "going")
    assert shown.returncode == os.EX_UNAVAILABLE and f"source       {data}" in shown.stdout, shown
    assert f"{data} does not exist; where it is gone for good, 'volgate volume delete going'" in shown.stderr
    assert volgate("volume", "delete", "going").returncode == 0


def test_a_wait_for_a_daemon_is_told_where_nobody_sees_progress(folders, capfd, monkeypatch):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    pid = json.loads(volgate("status", mnt, "--json").stdout)["pid"]
    monkeypatch.setattr(ending, "TELL_S", 0.5)
    monkeypatch.setattr(ending, "WAIT_S", 2.0)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert main(["umount", str(mnt)]) == 32
    finally:
        os.kill(pid, signal.SIGCONT)
    assert capfd.readouterr().err.count(f"unmounted; waiting for its daemon, process {pid}") == 1
    wait_until(lambda: ended(pid))


@pytest.mark.parametrize("bound", ["data/a/sub", "data/a"])
def test_a_directory_of_a_volume_that_is_bound_elsewhere_becomes_none(folders, place, bound):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    (mnt / "a/sub").mkdir(parents=True)
    (place / "bound").mkdir()
    (place / "other").mkdir()
    subprocess.run(["mount", "--bind", place / bound, place / "bound"], check=True)
    try:
        inner = place / "bound" if bound.endswith("sub") else place / "bound/sub"
        for verb in (("mount", inner, place / "other"), ("volume", "create", "inner", inner)):
            assert "lies inside the volume" in volgate(*verb).stderr
        assert os.listdir(inner) == []
    finally:
        subprocess.run(["umount", place / "bound"], check=True)
        assert volgate("umount", mnt).returncode == 0


def test_a_mount_that_another_one_stands_over_hides_nothing(folders, place):
    script = """
    mkdir under hidden; mount -t tmpfs under under; mkdir under/v; mount --bind under hidden
    mount -t tmpfs over hidden
    mkdir one other
    volgate mount "$PWD/hidden" one -d
    volgate mount "$PWD/under/v" other -d
    volgate umount one; volgate umount other
    """
    done = in_namespace(script, place)
    assert done.returncode == 0, done


def test_usage_on_storage_that_is_read_only_is_checked(place):
    script = """
    mkdir data mnt; mount -t tmpfs data data; mkdir data/v
    volgate mount ./data/v mnt -d; echo hello >mnt/f; volgate umount mnt
    mount -o remount,ro data
    volgate quota check ./data/v
    volgate mount ./data/v mnt -d --read-only
    volgate quota check mnt
    volgate umount mnt
    mkdir rw ro m2; mount --bind rw ro; mount -o remount,ro,bind ro
    volgate mount ./rw m2 -d; echo more >m2/f
    volgate quota check ./ro
    volgate umount m2
    """
    done = in_namespace(script, place)
    assert (done.returncode, done.stdout.count("equal"), done.stdout.count("nothing settled")) == (0, 2, 1), done


def test_where_nothing_is_mounted_any_more_is_no_volume(folders):
    data, mnt = folders
    assert volgate("mount", data, mnt, "-d").returncode == 0
    assert volgate("umount", mnt).returncode == 0
    for verb in (("quota", "set", mnt, "1M"), ("snapshot", "list", mnt)):
        assert f"{mnt} is no volume of volgate's yet, and none is mounted there" in one_line(volgate(*verb), 69)


def test_a_mount_point_may_be_a_symlink(folders, place):
    data, mnt = folders
    link = place / "li nk"
    link.symlink_to(mnt)
    assert volgate("mount", data, link, "-d").returncode == 0
    try:
        (listed,) = [m for m in json.loads(volgate("list", "--json").stdout) if m["source"] == str(data)]
        assert listed["mount_point"] == str(mnt)
        assert volgate("status", link).returncode == 0
        pid = json.loads(volgate("status", link, "--json").stdout)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ended(pid))
        assert "mount it again" in one_line(volgate("quota", "show", mnt), 75)
        assert volgate("mount", data, link, "-d").returncode == 0
    finally:
        assert volgate("umount", link).returncode == 0


def test_a_detached_mount_is_said_to_be_draining(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    with (mnt / "f").open("w") as held:
        assert volgate("umount", "-l", mnt).returncode == 0
        status = json.loads(volgate("status", mnt, "--json").stdout)
        assert status["state"] == "draining"
        line = one_line(volgate("umount", mnt), 32)
        assert "detached already" in line and "1 open files" in line and f"kill {status['pid']}" in line
        assert one_line(volgate("mount", data, mnt, "-d"), 32) == line
        held.write("kept")
    wait_until(lambda: ended(status["pid"]))
    assert (data / "f").read_text() == "kept"


def test_a_directory_within_a_mount_is_no_volume_and_that_is_said(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    (mnt / "below").mkdir()
    for verb in (("snapshot", "list"), ("quota", "show"), ("status",)):
        line = one_line(volgate(*verb, mnt / "below"), os.EX_USAGE)
        assert f"'{mnt}/below' lies in the mount {mnt}: name that" in line
    (mnt / "f").touch()
    done = volgate("quota", "set", mnt, "none", "--inodes", "1")
    assert done.returncode == 0 and "2 inodes are in use, more than the limit" in done.stderr, done
    assert volgate("umount", mnt).returncode == 0


def test_a_volume_is_found_by_its_directory_and_two_mounts_of_it_are_told_apart(folders, place):
    data, mnt = folders
    (place / "ro").mkdir()
    volgate("mount", data, mnt, "-d")
    volgate("mount", data, place / "ro", "-d", "--read-only")
    try:
        line = one_line(volgate("umount", data), 32)
        assert str(mnt) in line and str(place / "ro") in line
    finally:
        volgate("umount", place / "ro")
    assert volgate("umount", data).returncode == 0


def test_of_a_volume_that_is_not_mounted_is_said_what_mounts_it(folders, place):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    volume_id = json.loads(volgate("status", mnt, "--json").stdout)["volume_id"]
    assert volgate("umount", mnt).returncode == 0
    said = f"the volume in {data} is not mounted; 'volgate mount {data} MOUNTPOINT' mounts it"
    assert said in one_line(volgate("status", data), 69) and said in one_line(volgate("umount", data), 32)
    assert f"no volume '{volume_id}' is known" in one_line(volgate("status", volume_id), 69)
    for target in (volume_id, data, mnt):
        assert "volume.ended" in volgate("events", target).stdout
    assert volgate("volume", "adopt", data).returncode == 0
    try:
        said = f"volume {volume_id} is not mounted; 'volgate mount {volume_id} MOUNTPOINT' mounts it"
        for target in (volume_id, data):
            assert said in one_line(volgate("refresh", target), 69)
        assert volgate("volume", "delete", volume_id).returncode == 0
        assert volgate("volume", "adopt", data, "--mount-point", mnt).returncode == 0
        for target in (volume_id, mnt):
            said = f"volume {volume_id} is not mounted; 'volgate mount {volume_id}' mounts it"
            assert said in one_line(volgate("status", target), 69)
    finally:
        volgate("volume", "delete", volume_id)


def test_another_users_mount_is_not_called_dead(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    try:
        program = "import os; os.geteuid = lambda: 1000; from volgate.cli.mounts import find; print(find(%r)['state'])"
        done = subprocess.run(
            [sys.executable, "-c", program % str(mnt)],
            env={**os.environ, "XDG_RUNTIME_DIR": "/nonexistent"}, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert done.stdout == "another user's\n", done
    finally:
        volgate("umount", mnt)


def test_one_limit_can_be_set_without_the_other(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d", "--quota", "1MiB")
    try:
        assert volgate("quota", "set", mnt, "--inodes", "5K").returncode == 0
        shown = json.loads(volgate("quota", "show", mnt, "--json").stdout)
        assert (shown["quota_bytes"], shown["quota_inodes"]) == (1 << 20, 5000)
        (mnt / "f").write_bytes(bytes(1000))
        assert "only growth is refused" in volgate("quota", "set", mnt, "10").stderr
    finally:
        volgate("umount", mnt)
    done = volgate("mount", data, mnt, "-d")
    assert "more than the limit" in done.stdout
    volgate("umount", mnt)


WRONG = [
    (["mount"], 1, "Missing argument"),
    (["mount", "/nope/at/all", "{mnt}"], 32, "does not exist"),
    (["mount", "name-only", "{mnt}"], 1, "'./name-only'"),
    (["mount", "gopher://x/y", "{mnt}"], 32, "no driver serves 'gopher'"),
    (["mount", "s3:/bucket/x", "{mnt}"], 32, "a URL has two slashes: s3://bucket/x"),
    (["mount", "{data}", "/nope/at/all"], 32, "does not exist"),
    (["mount", "{data}", "{file}"], 32, "not a directory"),
    (["mount", "{file}/", "{mnt}"], 32, "not a directory"),
    (["mount", "{data}", "{full}"], 32, "not empty"),
    (["mount", "{data}", "{data}"], 32, "source itself"),
    (["mount", "{data}", "{data}/inside"], 32, "lie in each other"),
    (["mount", "{data}/inside", "{data}", "-o", "nonempty"], 32, "lie in each other"),
    (["mount", "{data}", "{mnt}", "--quota", "10GiBB"], 1, "is no size"),
    (["mount", "{data}", "{mnt}", "--quota", "-5"], 1, "is no size"),
    (["mount", "{data}", "{mnt}", "--inodes", "10GB"], 1, "no number of inodes"),
    (["mount", "{data}", "{mnt}", "--attr-timeout", "-1"], 1, "no duration"),
    (["mount", "{data}", "{mnt}", "-o", "cache=7"], 1, "unknown mount option 'cache=7'"),
    (["mount", "{data}", "{mnt}", "-o", "quota=much"], 1, "is no size"),
    (["mount", "{data}", "{mnt}", "--frobnicate"], 1, "No such option"),
    (["mount", "{foreign}", "{mnt}"], 32, "'.volgate'"),
    (["mount", "{snapshots}", "{mnt}"], 32, "'.snapshots'"),
    (["mount", "{data}", "{mnt}", "-o", "quota"], 1, "needs a value: quota=..."),
    (["mount", "{data}", "{mnt}", "-o", "ro=1"], 1, "takes no value"),
    (["mount", "{data}", "{mnt}", "-o", "uid=me"], 1, "no numeric id"),
    (["mount", "{data}", "{mnt}", "-o", "umask=999"], 1, "no umask"),
    (["mount", "{data}", "{mnt}", "-o", "squash=some"], 1, "none, root, all"),
    (["mount", "{data}", "{mnt}", "-o", "uidmap=0:1"], 1, "0:100000:65536"),
    (["mount", "{data}", "{mnt}", "-o", "metrics=9478"], 1, "no address"),
    (["mount", "{data}"], 1, "say where to mount"),
    (["volume", "create", "Big Name", "{data}"], 64, "no volume name"),
    (["volume", "create", "name", "{data}", "-o", "cache=7"], 64, "unknown mount option 'cache=7'"),
    (["volume", "show", "nothing"], 69, "no volume 'nothing' is known"),
    (["volume", "delete", "nothing"], 69, "no volume 'nothing' is known"),
    (["volume", "adopt", "{data}"], 69, "is no volume yet"),
    (["volume", "adopt", "/nope"], 69, "volgate: /nope does not exist\n"),
    (["quota", "show", "/nope"], 69, "volgate: /nope does not exist\n"),
    (["snapshot", "list", "/nope"], 69, "volgate: /nope does not exist\n"),
    (["mount", "/nope", "{mnt}"], 32, "volgate: /nope does not exist; make the directory first\n"),
    (["umount", "{mnt}"], 32, "neither a mount"),
    (["frobnicate"], 64, "No such command"),
    (["quota", "set", "{mnt}", "x"], 64, "is no size"),
    (["quota", "set", "{mnt}", "x"], 64, "(see 'volgate quota set --help')"),
    (["quota", "set", "{mnt}"], 64, "say which limit"),
    (["quota", "show", "{mnt}"], 69, "no volume of volgate's yet"),
    (["quota", "show", "nothing"], 69, "no volume 'nothing' is known"),
    (["quota", "set", "nothing", "1G"], 69, "no volume 'nothing' is known"),
    (["status", "{mnt}"], 69, "neither a mount"),
    (["status", "nothing"], 69, "no volume 'nothing' is known"),
    (["umount", "nothing"], 32, "no volume 'nothing' is known"),
    (["events", "nothing"], 69, "no volume 'nothing' is known"),
    (["events", "{mnt}"], 69, "no volume of volgate's yet"),
]


@pytest.mark.parametrize("detach", [[], ["-d"]], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("arguments", "status", "says"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_wrong_input_gets_one_clear_line_and_changes_nothing(folders, place, arguments, status, says, detach):
    data, mnt = folders
    if detach and arguments[0] != "mount":
        return
    (data / "inside").mkdir()
    (place / "file").touch()
    (place / "full").mkdir()
    (place / "full" / "something").touch()
    (place / "foreign" / ".volgate").mkdir(parents=True)
    (place / "foreign" / ".volgate" / "mine").touch()
    (place / "snapshots" / ".snapshots").mkdir(parents=True)
    names = {n: place / n for n in ("file", "full", "foreign", "snapshots")}
    before = sorted(str(p) for p in place.rglob("*"))
    line = one_line(volgate(*[a.format(data=data, mnt=mnt, **names) for a in arguments], *detach, timeout_s=20), status)
    assert says in f"{line}\n"
    assert sorted(str(p) for p in place.rglob("*")) == before
    assert not [m for m in mounting.list_mounts() if place in m.path.parents]


WITHOUT_FUSE = """
mkdir -p dev; mount -t tmpfs dev dev; cp -a /dev/null /dev/urandom dev; mount --move dev /dev
"""


def test_what_nobody_foresaw_is_one_line_and_a_traceback_in_the_log(folders):
    data, mnt = folders
    program = (
        "import sys; from volgate.daemon import mountd; mountd.run = lambda *args, **kwargs: 1 / 0;"
        "from volgate.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "mount", data, mnt, "-d"], capture_output=True, text=True, timeout=20
    )
    line = one_line(done, 2)
    log = Path(line.partition("; see ")[2].partition(", and")[0])
    assert "ZeroDivisionError" in line and "Traceback" in log.read_text()
    log.unlink()


def test_a_log_that_cannot_be_written_is_named(folders, place):
    data, mnt = folders
    log = paths.state_directory() / "log" / (str(mnt).strip("/").replace("/", "-") + ".log")
    log.mkdir(parents=True)
    try:
        assert one_line(volgate("mount", data, mnt, "-d"), 32).endswith(f"{log} cannot be used: Is a directory")
    finally:
        log.rmdir()


def test_a_missing_device_is_named(folders, place):
    done = in_namespace(WITHOUT_FUSE + "volgate mount ./data mnt -d", place)
    assert "modprobe fuse" in one_line(done, 32)
    assert '"state": "missing"' in in_namespace(WITHOUT_FUSE + "volgate doctor --json", place).stdout


MAX_MODULES = 260
"""Modules that a verb may import before it does anything; half of them are the interpreter's own."""


def test_listing_and_help_import_nothing_heavy():
    heavy = {"trio", "pyfuse3", "boto3", "rich", "sqlite3", "cattrs", "prometheus_client", "asyncio"}
    helper = ["-c", "from volgate.cli.mount_helper import main; main()", "/srv", "/mnt", "-f", "-o", "quota=10G"]
    verbs = (["--help"], ["list", "--json"], ["mount", "--help"], ["volume", "--help"], ["config", "show"])
    for arguments in [*(["-m", "volgate", *verb] for verb in verbs), helper]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments],
            capture_output=True,
            text=True,
            timeout=20,
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not heavy & imported, (arguments, heavy & imported)
        assert len(imported) < MAX_MODULES, (arguments, len(imported))


def test_the_socket_is_for_its_user_only_and_survives_bad_requests(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d")
    try:
        volume_id = json.loads(volgate("status", mnt, "--json").stdout)["volume_id"]
        path = f"/run/volgate/{volume_id}.sock"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        put = b"PUT /v1/quota HTTP/1.1\r\nhost: x\r\n"
        for garbage in (
            b"\0" * 100,
            b"GET",
            b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
            put + b"content-length: 3\r\n\r\n{x}",
            put + b'content-length: 18\r\n\r\n{"quota_bytes":-1}',
        ):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(path)
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                try:
                    while s.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
        assert json.loads(volgate("status", mnt, "--json").stdout)["quota_bytes"] is None
    finally:
        volgate("umount", mnt)


def test_metrics_are_exposed(folders):
    data, mnt = folders
    volgate("mount", data, mnt, "-d", "--quota", "1K")
    try:
        (mnt / "file").write_text("hello")
        volume_id = json.loads(volgate("status", mnt, "--json").stdout)["volume_id"]
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"/run/volgate/{volume_id}.sock")
            s.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            text = b""
            while chunk := s.recv(65536):
                text += chunk
        assert f'volgate_quota_used_bytes{{volume="{volume_id}"}} 5.0'.encode() in text
        assert f'volgate_fuse_request_duration_seconds_count{{op="create",volume="{volume_id}"}} 1.0'.encode() in text
        assert f'volgate_ready{{volume="{volume_id}"}} 1.0'.encode() in text
    finally:
        volgate("umount", mnt)
