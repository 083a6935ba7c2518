"""Mount options, the mount(8) helper, volumes by name, what the mount says of itself, reloading."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mounting import find_mount, in_child, mounted, one_line, volgate, wait_until


@pytest.fixture
def name():
    """Return a volume name for this test; what is left of it in this host's catalog is taken out."""
    name = f"test-{os.getpid()}"
    yield name
    volgate("umount", name, "--lazy")
    volgate("volume", "delete", name)


def helper(*arguments):
    return subprocess.run(
        [str(Path(sys.executable).with_name("mount.volgate")), *map(str, arguments)],
        capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_mount_helper_takes_what_mount_8_gives(folders):
    data, mnt = folders
    done = helper(data, mnt, "-o", "rw,_netdev,nofail,x-systemd.automount,quota=10M", "-s", "-n", "-v")
    try:
        assert done.returncode == 0, done
        assert json.loads(volgate("status", mnt, "--json").stdout)["quota_bytes"] == 10 << 20
        assert find_mount(mnt).kind == "fuse.volgate"
    finally:
        subprocess.run(["umount", mnt], check=True, timeout=30)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 1, "usage: mount.volgate"),
        (["{data}"], 1, "a mount point are needed"),
        (["{data}", "{mnt}", "-x"], 1, "'-x'"),
        (["{data}", "{mnt}", "-o"], 1, "-o needs a value"),
        (["{data}", "{mnt}", "-ofrob"], 1, "unknown mount option"),
        (["{data}", "/nope"], 32, "does not exist"),
        (["{data}", "{mnt}", "-f"], 0, ""),
    ],
)
def test_the_mount_helper_answers_with_mount_8s_status(folders, arguments, status, says):
    data, mnt = folders
    done = helper(*[argument.format(data=data, mnt=mnt) for argument in arguments])
    assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (status, True, bool(says))
    assert find_mount(mnt) is None


def test_a_volume_has_a_name_a_limit_and_a_place(folders, name):
    data, mnt = folders
    mnt /= "made/with/it"
    done = volgate("volume", "create", name, data, "--quota", "1MiB", "--mount-point", mnt, "-o", "attr_timeout=5")
    assert done.returncode == 0, done
    assert volgate("mount", name, "-d").returncode == 0
    (mnt / "f").write_text("x")
    (listed,) = [v for v in json.loads(volgate("volume", "list", "--json").stdout) if v["volume_id"] == name]
    assert (listed["state"], listed["mount_point"], listed["quota_bytes"]) == ("ready", str(mnt), 1 << 20)
    refused = volgate("volume", "delete", name)
    assert (refused.returncode, "is mounted" in refused.stderr) == (75, True)
    assert volgate("umount", name).returncode == 0
    shown = json.loads(volgate("volume", "show", name, "--json").stdout)
    assert (shown["state"], shown["used_bytes"], shown["quota_bytes"]) == ("not mounted", 1, 1 << 20)
    assert name in volgate("volume", "list").stdout and "/data" in volgate("volume", "show", name).stdout


def test_a_named_volume_whose_storage_is_not_there_is_not_taken_for_a_new_one(folders, name):
    data, mnt = folders
    assert volgate("volume", "create", name, data, "--mount-point", mnt).returncode == 0
    subprocess.run(["mount", "-t", "tmpfs", "something-else", data], check=True)
    try:
        refused = volgate("mount", name, "-d")
        assert (refused.returncode, "is its storage mounted?" in refused.stderr) == (32, True), refused
        assert os.listdir(data) == []
    finally:
        subprocess.run(["umount", data], check=True)
    os.rename(data, f"{data}.away")
    refused = volgate("mount", name, "-d")
    assert (refused.returncode, "is its storage mounted?" in refused.stderr) == (32, True), refused
    os.rename(f"{data}.away", data)
    assert volgate("mount", name, "-d").returncode == 0


def test_the_catalog_is_made_again_from_the_volumes_themselves(folders, name):
    data, mnt = folders
    assert volgate("volume", "create", name, data, "--quota", "1MiB").returncode == 0
    taken = volgate("volume", "create", name, data)
    assert (taken.returncode, "exists" in taken.stderr) == (73, True)
    taken = volgate("volume", "create", f"{name}-2", data)
    assert f"is volume {name} already; see 'volgate volume show {name}'" in one_line(taken, 73)
    assert volgate("volume", "delete", name).returncode == 0
    again = volgate("volume", "create", f"{name}-2", data)
    assert (again.returncode, "volgate volume adopt" in again.stderr) == (73, True)
    assert volgate("volume", "adopt", data, "--mount-point", mnt).returncode == 0
    assert json.loads(volgate("volume", "show", name, "--json").stdout)["quota_bytes"] == 1 << 20


def test_the_root_says_what_it_is(place):
    with mounted(place, "--quota", "1MiB") as mount:
        (mount.path / "f").write_bytes(b"12345")
        shown = {
            key: os.getxattr(mount.path, f"user.volgate.{key}")
            for key in ("volume", "backend", "quota.bytes", "quota.inodes", "used.bytes", "used.inodes")
        }
        assert shown == {
            "volume": mount.volume_id().encode(), "backend": b"posix", "quota.bytes": b"1048576",
            "quota.inodes": b"none", "used.bytes": b"5", "used.inodes": b"1",
        }  # fmt: skip
        assert not [attribute for attribute in os.listxattr(mount.path) if "volgate" in attribute]
        with pytest.raises(PermissionError):
            os.setxattr(mount.path, "user.volgate.quota.bytes", b"1")
        for path, key in ((mount.path, "nothing"), (mount.path / "f", "volume")):
            with pytest.raises(OSError, match="No data"):
                os.getxattr(path, f"user.volgate.{key}")


def test_uid_gid_and_umask_show_everything_as_one_users(place):
    with mounted(place, "-o", "uid=1234,gid=4321,umask=077") as mount:
        (mount.path / "f").write_text("x")
        (mount.path / "d").mkdir()
        status = os.stat(mount.path / "f")
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o600)
        assert in_child(Path.read_text, mount.path / "f", uid=1234) == "x"
        with pytest.raises(AssertionError, match="PermissionError"):
            in_child(Path.read_text, mount.path / "f", uid=1235)
        with pytest.raises(PermissionError):
            os.chown(mount.path / "f", 5, 5)
        assert os.stat(mount.backing / "f").st_uid == 0


def test_an_id_map_translates_both_ways(place):
    with mounted(place, "-o", "uidmap=0:100000:65536,gidmap=0:100000:65536") as mount:
        mount.path.chmod(0o777)
        in_child(Path.write_text, mount.path / "f", "x", uid=1000)
        assert os.stat(mount.path / "f").st_uid == 1000
        assert os.stat(mount.backing / "f").st_uid == 101000
        os.chown(mount.path / "f", 7, 8)
        stored = os.stat(mount.backing / "f")
        assert (stored.st_uid, stored.st_gid) == (100007, 100008)
        with pytest.raises(AssertionError, match="PermissionError"):
            in_child(Path.write_text, mount.path / "g", "x", uid=70000)
        with pytest.raises(PermissionError):
            os.chown(mount.path / "f", 70000, 0)


def test_squash_gives_new_files_to_nobody(place):
    with mounted(place, "-o", "squash=root") as mount:
        mount.path.chmod(0o777)
        (mount.path / "roots").write_text("x")
        in_child(Path.write_text, mount.path / "users", "x", uid=1000)
        assert os.stat(mount.path / "roots").st_uid == 65534
        assert os.stat(mount.path / "users").st_uid == 1000
        with pytest.raises(PermissionError):
            os.chown(mount.path / "users", 5, 5)


def test_metrics_are_served_over_tcp_and_nothing_else_is(place):
    with mounted(place, "-o", "metrics=127.0.0.1:19478") as mount:
        with urllib.request.urlopen("http://127.0.0.1:19478/metrics", timeout=10) as answer:
            assert f'volgate_quota_used_bytes{{volume="{mount.volume_id()}"}} 0.0' in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen("http://127.0.0.1:19478/v1/status", timeout=10)
        (place / "second.data").mkdir()
        (place / "second").mkdir()
        taken = volgate("mount", place / "second.data", place / "second", "-o", "metrics=127.0.0.1:19478")
        assert (taken.returncode, "cannot listen" in taken.stderr.splitlines()[-1]) == (32, True)


def test_a_flag_wins_over_the_environment(place):
    environment = {"VOLGATE_METRICS__LISTEN": "127.0.0.1:19479"}
    with mounted(place, "-o", "metrics=127.0.0.1:19480", environment=environment):
        with urllib.request.urlopen("http://127.0.0.1:19480/metrics", timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen("http://127.0.0.1:19479/metrics", timeout=10)


def test_a_reload_takes_new_settings_and_a_broken_file_changes_nothing(place, monkeypatch):
    config = place / "config" / "volgate"
    config.mkdir(parents=True)
    (config / "volgate.toml").write_text('[log]\nlevel = "info"\n')
    program = (
        "import os, sys; from volgate import paths; from pathlib import Path;"
        f"paths.config_directory = lambda: Path({str(config)!r}); from volgate.cli import main; sys.exit(main())"
    )
    (place / "data").mkdir()
    (place / "mnt").mkdir()
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-c", program, "mount", str(place / "data"), str(place / "mnt")], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: b"mounted" in (place / "log").read_bytes())
        (config / "volgate.toml").write_text("[log]\nlevle = 5\n")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: "the old one stays" in (place / "log").read_text())
        assert "did you mean 'level'?" in (place / "log").read_text()
        (config / "volgate.toml").write_text('[log]\nformat = "json"\n')
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: '"message": "the configuration was read again"' in (place / "log").read_text())
        (place / "mnt" / "f").write_text("still served")
    finally:
        daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert daemon.wait(20) == 0
