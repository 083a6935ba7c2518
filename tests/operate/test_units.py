"""volgate's units under a real systemd, as an administrator uses them."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import s3_server
from box import REPOSITORY, booted
from volgate.cli import command

UNITS = REPOSITORY / "systemd"


@pytest.fixture(scope="module")
def box():
    with tempfile.TemporaryDirectory(prefix="volgate-box-", dir="/var/tmp") as place, booted(Path(place)) as box:
        yield box


def make_volume(box, name, source=None, *options):
    box.run(
        f"mkdir -p /host/srv/{name}; volgate volume create {name} {source or f'/host/srv/{name}'} --quota 64MiB "
        f"--mount-point /mnt/{name} {' '.join(options)}"
    )


def state(box, name):
    return box.run(f"systemctl show -P ActiveState volgate@{name}")


def test_a_unit_mounts_its_volume_for_the_whole_host_and_stops_it(box):
    make_volume(box, "plain")
    box.run("systemctl start volgate@plain; echo hello >/mnt/plain/f")
    assert box.run("df --output=size -B1 /mnt/plain | tail -1").strip() == str(64 << 20)
    assert box.run("findmnt -no FSTYPE,SOURCE /mnt/plain").split() == ["fuse.volgate", "volgate:plain"]
    assert "serving /mnt/plain" in box.run("systemctl show -P StatusText volgate@plain")
    # "The host" is whoever is not the service: the mount is in the name space of PID 1.
    assert "/mnt/plain" in box.run("cat /proc/1/mountinfo")
    box.run("systemctl stop volgate@plain")
    assert box.run("cat /host/srv/plain/f") == "hello"
    assert box.try_("mountpoint -q /mnt/plain")[0] != 0
    assert box.run("systemctl show -P Result volgate@plain") == "success"


def test_a_unit_owns_a_volume_without_a_mount_until_one_comes(box):
    make_volume(box, "bare")
    box.run("systemctl start volgate-serve@bare; volgate snapshot create bare one")
    assert box.run("systemctl show -P StatusText volgate-serve@bare") == "serving without a mount"
    assert "bare" in box.run("volgate list") and box.try_("mountpoint -q /mnt/bare")[0] != 0
    pid = box.run("systemctl show -P MainPID volgate-serve@bare")
    box.run(f"kill -9 {pid}")
    box.wait_for(f"[ $(systemctl show -P MainPID volgate-serve@bare) != {pid} ] && volgate status bare | grep ready")
    box.run("systemctl start volgate@bare; ls /mnt/bare/.snapshots/one")
    assert box.run("systemctl show -P ActiveState volgate-serve@bare") == "inactive"
    box.run("systemctl stop volgate@bare; systemctl start volgate-serve@bare; volgate mount bare -d")
    box.wait_for("[ $(systemctl show -P ActiveState volgate-serve@bare) = inactive ]")
    assert box.run("systemctl show -P Result volgate-serve@bare") == "success"
    box.run("volgate umount bare; systemctl start volgate-serve@bare; systemctl stop volgate-serve@bare")
    assert "one" in box.run("volgate snapshot list bare")
    assert "--until-idle" in box.run(
        "xargs -0 </proc/$(volgate status bare --json | jq .pid)/cmdline; volgate umount bare"
    )
    assert box.try_("systemctl start volgate-serve@nothing")[0] != 0
    assert box.run("systemctl show -P NRestarts volgate-serve@nothing") == "0"


def test_the_unit_of_a_volume_that_does_not_exist_fails_once_with_a_clear_line(box):
    assert box.try_("systemctl start volgate@nothing")[0] != 0
    assert box.run("systemctl show -P NRestarts volgate@nothing") == "0"
    assert "no volume 'nothing' is known here" in box.log()


def test_fstab_lines_mount_at_boot_or_at_first_use(box):
    make_volume(box, "tab")
    box.run(
        "mkdir -p /host/srv/plain-directory /mnt/auto;"
        "echo 'tab /mnt/tab volgate _netdev,nofail,quota=10M 0 0' >>/etc/fstab;"
        "echo '/host/srv/plain-directory /mnt/auto fuse.volgate _netdev,nofail,x-systemd.automount,quota=10G 0 0'"
        " >>/etc/fstab;"
        "systemctl daemon-reload; systemctl start mnt-tab.mount"
    )
    # A kernel without autofs has no "first use" (systemd.automount(5)): there the line is mounted by name.
    waits_for_use = box.try_("[ -c /dev/autofs ]")[0] == 0
    box.run(f"systemctl start mnt-auto.{'automount' if waits_for_use else 'mount'}")
    assert box.run("stat -f -c %T /mnt/tab; df --output=size -B1 /mnt/tab | tail -1").split()[-1] == str(10 << 20)
    assert (box.try_("grep -q ' /mnt/auto fuse.volgate ' /proc/mounts")[0] != 0) == waits_for_use
    box.run("echo first >/mnt/auto/f")
    assert box.run("df --output=size -B1 /mnt/auto | tail -1").strip() == str(10 << 30)
    box.run(
        f"systemctl stop {'mnt-auto.automount' if waits_for_use else ''} mnt-auto.mount mnt-tab.mount;"
        "sed -i '/volgate/d' /etc/fstab; systemctl daemon-reload"
    )
    assert box.run("cat /host/srv/plain-directory/f") == "first"
    assert box.run("volgate list --json") == "[]"


def test_a_killed_daemon_comes_back_and_the_ledger_is_exact(box):
    make_volume(box, "killed")
    box.run("systemctl start volgate@killed; head -c 1000000 /dev/zero >/mnt/killed/kept")
    box.run(
        "exec 5>/mnt/killed/open; head -c 2000000 /dev/zero >&5; kill -9 $(systemctl show -P MainPID volgate@killed)"
    )
    box.wait_for("[ $(systemctl show -P ActiveState volgate@killed) = active ] && [ -e /mnt/killed/kept ]")
    assert int(box.run("stat -c %s /mnt/killed/kept")) == 1_000_000
    shown = json.loads(box.run("volgate status killed --json"))
    assert (shown["used_bytes"], shown["file_count"]) == (3_000_000, 2)
    assert "recovered after a crash" in shown["usage_found"]  # by file handles, which the unit's hardening allows
    box.run("systemctl stop volgate@killed")


def test_a_hung_daemon_is_ended_by_the_watchdog_and_serves_again(box):
    make_volume(box, "hung")
    box.run(
        "mkdir -p /etc/systemd/system/volgate@hung.service.d;"
        "printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/volgate@hung.service.d/fast.conf;"
        "systemctl daemon-reload; systemctl start volgate@hung; echo kept >/mnt/hung/f"
    )
    pid = box.run("systemctl show -P MainPID volgate@hung")
    box.run("sleep 5")
    assert box.run("systemctl show -P MainPID volgate@hung") == pid  # idle is not hung
    box.run(f"kill -STOP {pid}")
    box.wait_for(f"[ $(systemctl show -P MainPID volgate@hung) != {pid} ] && [ -e /mnt/hung/f ]")
    assert box.run("cat /mnt/hung/f") == "kept"
    box.run("systemctl stop volgate@hung")


def test_a_driver_that_hangs_is_ended_by_the_watchdog_and_serves_again(box):
    make_volume(box, "moody", "moody:///host/srv/moody", "-o attr_timeout=0")
    box.run(
        "mkdir -p /etc/systemd/system/volgate@moody.service.d;"
        "printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/volgate@moody.service.d/fast.conf;"
        "systemctl daemon-reload; systemctl start volgate@moody; echo kept >/mnt/moody/f"
    )
    pid = box.run("systemctl show -P MainPID volgate@moody")
    box.run("touch /host/hang; stat /mnt/moody/f >/host/stat 2>&1 &")
    box.wait_for(f"[ $(systemctl show -P MainPID volgate@moody) != {pid} ]")
    box.run("rm /host/hang")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@moody) = active ] && [ -e /mnt/moody/f ]")
    assert box.run("cat /mnt/moody/f") == "kept"
    box.run("systemctl stop volgate@moody")


def test_a_volume_whose_server_comes_later_waits_for_it(box):
    box.run("touch /host/down; systemctl start --no-block volgate@moody")
    box.wait_for("systemctl show -P StatusText volgate@moody | grep 'waiting for the storage: its server does not'")
    box.run("rm /host/down")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@moody) = active ]")
    assert (
        box.run("cat /mnt/moody/f; systemctl show -P NRestarts volgate@moody; systemctl stop volgate@moody")
        == "kept\n0"
    )


def test_a_volume_whose_disk_is_mounted_later_waits_for_it(box):
    make_volume(box, "later")
    box.run(
        "systemctl start volgate@later; echo kept >/mnt/later/f; systemctl stop volgate@later;"
        "mount -t tmpfs over /host/srv/later; systemctl start --no-block volgate@later"
    )
    box.wait_for("systemctl show -P StatusText volgate@later | grep 'is its storage mounted'")
    box.run("umount /host/srv/later")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@later) = active ]")
    assert box.run("cat /mnt/later/f; systemctl stop volgate@later") == "kept"


def test_a_dead_mount_is_detached_also_where_nothing_is_started_again(box):
    make_volume(box, "ended")
    box.run(
        "mkdir -p /etc/systemd/system/volgate@ended.service.d;"
        "printf '[Service]\nRestart=no\n' >/etc/systemd/system/volgate@ended.service.d/once.conf;"
        "systemctl daemon-reload; systemctl start volgate@ended;"
        "kill -9 $(systemctl show -P MainPID volgate@ended)"
    )
    box.wait_for("[ $(systemctl show -P ActiveState volgate@ended) = failed ]")
    assert box.try_("grep /mnt/ended /proc/self/mountinfo")[0] == 1
    box.run("systemctl reset-failed volgate@ended")


def test_a_split_worker_serves_and_feeds_the_watchdog(box):
    make_volume(box, "split", None, "-o worker=volgate")
    box.run(
        "mkdir -p /etc/systemd/system/volgate@split.service.d; cd /etc/systemd/system/volgate@split.service.d;"
        "cp /opt/volgate/share/split.conf .; printf '[Service]\nWatchdogSec=2\n' >fast.conf;"
        "systemctl daemon-reload; systemctl start volgate@split; echo kept >/mnt/split/f; sleep 5"
    )
    parent = box.run("systemctl show -P MainPID volgate@split")
    worker = json.loads(box.run("volgate status split --json"))["pid"]
    assert parent != str(worker)
    assert box.run(f"stat -c %U /proc/{worker}") == "volgate"
    box.run(f"kill -STOP {worker}")
    box.wait_for(f"[ $(systemctl show -P MainPID volgate@split) != {parent} ] && [ -e /mnt/split/f ]")
    assert box.run("cat /mnt/split/f; systemctl stop volgate@split") == "kept"


def test_a_stop_while_files_are_open_waits_and_then_detaches_and_loses_nothing(box):
    make_volume(box, "busy")
    box.run(
        "mkdir -p /etc/volgate; printf '[mount]\nstop_deadline = \"2s\"\n' >/etc/volgate/volgate.toml;"
        "systemctl start volgate@busy;"
        "bash -c 'exec 5>/mnt/busy/f; for i in $(seq 100); do echo line $i >&5 || exit; done;"
        " touch /host/written; sleep 20' &"
        "until [ -e /host/written ]; do sleep 0.1; done; systemctl stop volgate@busy; rm /etc/volgate/volgate.toml"
    )
    assert box.run("tail -1 /host/srv/busy/f") == "line 100"
    assert "detached while files are open" in box.log() and "sleep" in box.log()
    assert box.try_("mountpoint -q /mnt/busy")[0] != 0


STORE = """
import mmap, os, time
fd = os.open("/mnt/dirty/f", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
mapping = mmap.mmap(fd, 1 << 20)
os.close(fd)
mapping[:] = b"d" * (1 << 20)
open("/host/stored", "w").close()
while not os.path.exists("/host/stopping"):
    time.sleep(0.05)
"""


def test_a_stop_writes_back_what_was_stored_through_a_mapping(box):
    make_volume(box, "dirty")
    (box.out / "store.py").write_text(STORE)
    box.run("systemctl start volgate@dirty; python3 /host/store.py & until [ -e /host/stored ]; do sleep 0.1; done")
    box.run("systemctl stop --no-block volgate@dirty")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@dirty) = deactivating ]")
    box.run("touch /host/stopping")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@dirty) = inactive ]")
    assert (box.out / "srv/dirty/f").read_bytes() == b"d" * (1 << 20)
    assert box.run("systemctl show -P Result volgate@dirty") == "success"


def test_a_broken_configuration_keeps_the_old_one_at_reload_and_is_named_at_start(box):
    make_volume(box, "config")
    box.run("systemctl start volgate@config; mkdir -p /etc/volgate; echo '[logs]' >/etc/volgate/volgate.toml")
    box.run("systemctl reload volgate@config; sleep 0.5; echo x >/mnt/config/f")
    status, printed = box.try_("volgate config check")
    assert (status, printed) == (
        78,
        "volgate: /etc/volgate/volgate.toml:1: unknown section [logs]; did you mean 'log'?\n",
    )
    assert "the old one stays" in box.log()
    box.run("rm /etc/volgate/volgate.toml; volgate config check; systemctl stop volgate@config")


def test_many_volumes_start_and_stop_at_once(box):
    for n in range(20):
        make_volume(box, f"many-{n}")
    units = " ".join(f"volgate@many-{n}" for n in range(20))
    box.run(f"systemctl start {units}; for n in $(seq 0 19); do echo $n >/mnt/many-$n/f; done", 120)
    assert len(json.loads(box.run("volgate list --json"))) == 20
    box.run(f"systemctl stop {units}", 120)
    assert box.run("cat /host/srv/many-*/f | sort -n | tr '\n' ' '").split() == [str(n) for n in range(20)]
    assert box.try_("grep fuse.volgate /proc/mounts")[0] == 1


def test_the_target_takes_all_its_volumes_down(box):
    make_volume(box, "one")
    box.run("systemctl enable --now volgate@one; systemctl start volgate.target; systemctl stop volgate.target")
    box.wait_for("[ $(systemctl show -P ActiveState volgate@one) = inactive ]")
    box.run("systemctl disable volgate@one")


def test_a_secret_reaches_a_service_as_its_credential(box):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, s3_server.running(Path(place) / "s3") as server:
        server.make_bucket("bucket")
        box.run(
            f"printf '[default]\\naws_access_key_id = %s\\naws_secret_access_key = %s\\n' {s3_server.ACCESS_KEY} "
            f"{s3_server.SECRET_KEY} >/host/s3.credentials; chmod 600 /host/s3.credentials"
        )
        doctor = f"/usr/local/bin/volgate doctor s3://bucket --endpoint-url {server.url}"
        for name, credential in (("with", "LoadCredential=s3:/host/s3.credentials"), ("without", "")):
            box.run(
                f"printf '%s\\n' '[Service]' Type=oneshot '{credential}' StandardOutput=file:/host/{name} "
                f"'ExecStart={doctor}' >/etc/systemd/system/{name}.service; systemctl daemon-reload"
            )
        assert "s3://bucket can be listed, written and deleted" in box.try_("systemctl start with; cat /host/with")[1]
        assert "no credentials for S3" in box.try_("systemctl start without; cat /host/without")[1]


def test_a_unit_mounts_a_bucket_with_its_credential_and_stores_all_before_it_stops(box):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, s3_server.running(Path(place) / "s3") as server:
        server.make_bucket("bucket")
        box.run(
            f"printf '[default]\\naws_access_key_id = %s\\naws_secret_access_key = %s\\n' {s3_server.ACCESS_KEY} "
            f"{s3_server.SECRET_KEY} >/host/mount.credentials; chmod 600 /host/mount.credentials; "
            "mkdir -p /host/loaded; cp /host/mount.credentials /host/loaded/s3; "
            f"CREDENTIALS_DIRECTORY=/host/loaded volgate volume create bucketed s3://bucket --quota 10MiB "
            f"--mount-point /mnt/bucketed -o endpoint_url={server.url}; "
            "mkdir -p /etc/systemd/system/volgate@bucketed.service.d; "
            "printf '[Service]\\nLoadCredential=s3:/host/mount.credentials\\n' "
            ">/etc/systemd/system/volgate@bucketed.service.d/secret.conf; systemctl daemon-reload",
            120,
        )
        box.run("systemctl start volgate@bucketed; echo stored >/mnt/bucketed/file; ls /var/cache/volgate", 60)
        assert "10 MiB" in box.run("volgate status bucketed")
        box.run("systemctl stop volgate@bucketed", 60)
        assert (server.data / "bucket" / "file").read_text() == "stored\n"
        assert s3_server.SECRET_KEY not in box.run("journalctl -u volgate@bucketed --no-pager; cat /proc/mounts")


def test_the_units_are_well_formed_and_hardened(box):
    assert box.try_(
        "cd /usr/lib/systemd/system; systemd-analyze verify volgate{,-serve,-brief}@.service volgate.target"
    ) == (0, "")
    for unit in ("volgate@.service", "volgate-serve@.service", "volgate-brief@.service"):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=50", UNITS / unit],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_man_pages_and_completions_are_installed(box):
    pages = box.run("cd /usr/share/man/man1; ls volgate*.1").split()
    assert {"volgate.1", "volgate-quota-set.1", "volgate-config-check.1", "volgate-quarantine-list.1"} <= set(pages)
    assert {f"volgate-{verb}.1" for verb in command.list_commands(None)} <= set(pages)
    assert "volgate umount projects" in box.run("cat /usr/share/man/man1/volgate-umount.1").replace("\\", "")
    box.run("source /usr/share/bash-completion/completions/volgate; complete -p volgate")
    box.run(
        "test -s /usr/share/zsh/vendor-completions/_volgate -a -s /usr/share/fish/vendor_completions.d/volgate.fish"
    )


def test_an_upgrade_leaves_what_is_mounted_working_until_it_is_started_again(box):
    """The new version has another name for each of its files: a running daemon must not need one of the old."""
    make_volume(box, "old")
    box.run("systemctl start volgate@old; echo before >/mnt/old/f; mv /opt/volgate/lib /opt/volgate/lib.new")
    pid = box.run("systemctl show -P MainPID volgate@old")
    box.run(
        "cat /mnt/old/f; echo during >/mnt/old/g; rm /mnt/old/f; systemctl reload volgate@old;"
        "curl -sS --fail --unix-socket /run/volgate/old.sock http://x/metrics | grep volgate_quota_used_bytes;"
        "curl -sS --fail --unix-socket /run/volgate/old.sock http://x/v1/status | grep '\"ready\"';"
        "curl -sS --fail --unix-socket /run/volgate/old.sock -X PUT -d '{\"quota_bytes\": 1000}' http://x/v1/quota"
    )
    box.run("mv /opt/volgate/lib.new /opt/volgate/lib; volgate status old; systemctl restart volgate@old")
    assert box.run("systemctl show -P MainPID volgate@old") != pid
    assert box.run("cat /mnt/old/g; systemctl stop volgate@old") == "during"
    assert "Traceback" not in box.log()


def test_uninstalling_takes_everything_away_but_data(box):
    shutil.copy(REPOSITORY / "tools/uninstall", box.out)
    box.run("/host/uninstall")
    assert (
        box.try_("ls -d /opt/volgate /usr/local/bin/volgate /sbin/mount.volgate /lib/systemd/system/volgate*")[0] != 0
    )
    assert box.run("cat /host/srv/plain/f") == "hello"


def test_the_debian_package_installs_serves_and_goes(box):
    built = subprocess.run(
        [REPOSITORY / "tools/package", box.out], capture_output=True, text=True, timeout=300, check=True
    )
    package = Path(built.stdout.strip())
    assert package.parent == box.out and package.suffix == ".deb"
    box.run(f"dpkg -i --force-depends /host/{package.name}", 120)
    box.run("systemctl start volgate@plain")
    assert box.run("cat /mnt/plain/f; ls /usr/share/man/man1/volgate-mount.1.gz")
    box.run("mount -t volgate /host/srv/plain-directory /mnt/auto -o ro; umount /mnt/auto")
    box.run("dpkg -r volgate")
    assert box.try_("mountpoint -q /mnt/plain")[0] != 0
    assert box.try_("ls -d /opt/volgate /usr/bin/volgate /usr/sbin/mount.volgate")[0] != 0
    assert box.run("cat /host/srv/plain/f") == "hello"
