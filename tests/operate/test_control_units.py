"""The control daemon's units under a real systemd, as an administrator uses them."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from box import REPOSITORY, booted

UNITS = REPOSITORY / "systemd"
CURL = "curl -sS -m 60 --unix-socket /run/volgate/control.sock -H 'Content-Type: application/json'"


@pytest.fixture(scope="module")
def box():
    with tempfile.TemporaryDirectory(prefix="volgate-box-", dir="/var/tmp") as place, booted(Path(place)) as box:
        box.run("systemctl daemon-reload; systemctl enable --now volgate-control.socket")
        yield box


def ask(box, method, target, body=None, prefix=""):
    data = "" if body is None else f"--data '{json.dumps(body)}'"
    printed = box.run(f"{prefix} {CURL} -X {method} {data} -w '\\n%{{http_code}}' http://x{target}", 120)
    content, _, status = printed.rpartition("\n")
    return int(status), json.loads(content) if content and content[0] in "{[" else content


def make(box, name):
    box.run(f"mkdir -p /host/srv/{name}")
    body = {"volume_id": name, "source": f"/host/srv/{name}", "mount_point": f"/mnt/{name}", "quota_bytes": 1 << 20}
    assert ask(box, "POST", "/v1/volumes", body)[0] == 201


def test_the_first_question_starts_the_daemon(box):
    assert box.run("systemctl show -P ActiveState volgate-control.service") == "inactive"
    assert box.run("stat -c '%a %U %G' /run/volgate/control.sock") == "660 root root"
    assert ask(box, "GET", "/v1/health") == (200, {"status": "ok"})
    assert box.run("systemctl show -P ActiveState volgate-control.service") == "active"
    assert "serving /run/volgate/control.sock" in box.run("systemctl show -P StatusText volgate-control.service")


def test_a_volume_is_mounted_by_its_unit_for_the_whole_host_and_unmounted(box):
    make(box, "united")
    status, volume = ask(box, "POST", "/v1/volumes/united/mount")
    assert (status, volume["state"]) == (200, "ready"), volume
    assert box.run("systemctl show -P ActiveState volgate@united") == "active"
    assert "/mnt/united" in box.run("cat /proc/1/mountinfo")
    box.run("echo kept >/mnt/united/f")
    assert ask(box, "GET", "/v1/volumes/united/quota")[1]["used_bytes"] == 5
    status, refused = ask(box, "PATCH", "/v1/volumes/united/quota", {"quota_bytes": -1})
    assert (status, refused["code"]) == (422, "invalid_request")
    box.run("sleep 1000 </mnt/united/f & echo $! >/host/holder")
    status, refused = ask(box, "POST", "/v1/volumes/united/unmount", {})
    assert (status, refused["code"]) == (409, "busy"), refused
    box.run("kill $(cat /host/holder)")
    box.wait_for("[ ! -e /proc/$(cat /host/holder) ]")
    status, volume = ask(box, "POST", "/v1/volumes/united/unmount", {})
    assert (status, volume["state"]) == (200, "not mounted"), volume
    assert box.run("systemctl show -P ActiveState volgate@united") == "inactive"
    assert (box.out / "srv/united/f").read_text() == "kept\n"


def test_what_nobody_serves_is_served_by_a_unit_that_ends_when_it_is_idle(box):
    make(box, "brief")
    status, snapshot = ask(box, "POST", "/v1/volumes/brief/snapshots", {"snapshot_id": "one"})
    assert (status, snapshot["snapshot_id"]) == (201, "one"), snapshot
    assert box.run("systemctl show -P ActiveState volgate-brief@brief") == "active"
    box.run("systemctl restart volgate-control.service")  # which it does not depend on
    assert ask(box, "GET", "/v1/volumes/brief/snapshots")[1]["items"][0]["snapshot_id"] == "one"
    box.wait_for("[ $(systemctl show -P ActiveState volgate-brief@brief) = inactive ]")
    assert box.run("systemctl show -P Result volgate-brief@brief") == "success"
    ask(box, "GET", "/v1/volumes/brief/files")
    assert ask(box, "POST", "/v1/volumes/brief/mount")[0] == 200  # which takes it
    assert box.run("systemctl show -P ActiveState volgate-brief@brief") == "inactive"
    ask(box, "POST", "/v1/volumes/brief/unmount")


def test_what_was_mounted_by_hand_is_unmounted_too(box):
    make(box, "manual")
    box.run("volgate mount manual -d; echo kept >/mnt/manual/f")
    status, volume = ask(box, "POST", "/v1/volumes/manual/unmount", {})
    assert (status, volume["state"]) == (200, "not mounted"), volume
    assert box.try_("mountpoint -q /mnt/manual")[0] != 0


def test_a_unit_that_fails_is_told_with_where_to_look(box):
    make(box, "broken")
    box.run("mv /host/srv/broken /host/srv/away; touch /mnt/broken/in-the-way")
    status, refused = ask(box, "POST", "/v1/volumes/broken/mount")
    assert (status, refused["code"]) == (409, "mount_failed"), refused
    assert "journalctl -u volgate@broken" in refused["detail"]
    assert ask(box, "POST", "/v1/volumes/broken/unmount", {})[0] == 200  # which it would go on trying to mount
    assert box.run("systemctl show -P ActiveState volgate@broken") in ("inactive", "failed")
    assert ask(box, "POST", "/v1/volumes/broken/unmount", {})[1]["code"] == "not_mounted"


def test_mounts_outlive_the_control_daemon_and_it_comes_back(box):
    make(box, "lasting")
    ask(box, "POST", "/v1/volumes/lasting/mount")
    box.run("systemctl kill -s KILL volgate-control.service; echo written >/mnt/lasting/f")
    assert ask(box, "GET", "/v1/volumes/lasting/ready")[0] == 200
    box.run("systemctl stop volgate-control.service; cat /mnt/lasting/f; ls -d /run/volgate/lasting.sock")
    assert box.run("systemctl show -P Result volgate-control.service") == "success"
    assert ask(box, "GET", "/v1/volumes/lasting/ready")[0] == 200  # its socket waits for the next question
    box.run("systemctl stop volgate@lasting")


def test_a_hung_control_daemon_is_ended_by_the_watchdog(box):
    box.run(
        "mkdir -p /etc/systemd/system/volgate-control.service.d;"
        "printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/volgate-control.service.d/fast.conf;"
        "systemctl daemon-reload; systemctl restart volgate-control.service; sleep 4"
    )
    pid = box.run("systemctl show -P MainPID volgate-control.service")
    box.run(f"kill -STOP {pid}")
    assert ask(box, "GET", "/v1/health")[0] == 200
    assert box.run("systemctl show -P MainPID volgate-control.service") != pid
    box.run("rm -r /etc/systemd/system/volgate-control.service.d; systemctl daemon-reload")


def test_a_user_of_the_sockets_group_has_the_role_he_is_given(box):
    make(box, "shared")
    box.run(
        "mkdir -p /etc/systemd/system/volgate-control.socket.d /etc/volgate;"
        "printf '[Socket]\nSocketGroup=games\n' >/etc/systemd/system/volgate-control.socket.d/group.conf;"
        "printf '[control]\nroles = [\"games=reader:shared\"]\n' >/etc/volgate/volgate.toml;"
        "systemctl daemon-reload; systemctl stop volgate-control.service volgate-control.socket;"
        "systemctl start volgate-control.socket"
    )
    as_user = "setpriv --reuid games --regid games --clear-groups"
    assert ask(box, "GET", "/v1/volumes/shared", prefix=as_user)[0] == 200
    status, refused = ask(box, "POST", "/v1/volumes/shared/mount", prefix=as_user)
    assert (status, refused["code"]) == (403, "forbidden")
    assert box.try_(f"setpriv --reuid daemon --regid daemon --clear-groups {CURL} http://x/v1/health")[0] == 7
    box.run("rm -r /etc/systemd/system/volgate-control.socket.d /etc/volgate/volgate.toml; systemctl daemon-reload")


def test_tls_and_tokens_come_as_credentials(box):
    box.run(
        "cd /host; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        " -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.pem 2>/dev/null; chmod 600 tls.key;"
        "export VOLGATE_CONTROL__TOKENS=/host/tokens.json; volgate control token create ann --grant 'reader:*' >token;"
        "mkdir -p /etc/systemd/system/volgate-control.service.d /etc/volgate;"
        "printf '[control]\nlisten = \"127.0.0.1:9479\"\n' >/etc/volgate/volgate.toml;"
        "printf '%s\\n' '[Service]' LoadCredential=control-tls-certificate:/host/tls.pem "
        "LoadCredential=control-tls-key:/host/tls.key LoadCredential=control-tokens:/host/tokens.json "
        ">/etc/systemd/system/volgate-control.service.d/secrets.conf;"
        "systemctl daemon-reload; systemctl restart volgate-control.service"
    )
    url = "--cacert /host/tls.pem https://127.0.0.1:9479/v1/volumes"
    assert box.run(f"curl -sS -m 20 -o /dev/null -w '%{{http_code}}' {url}") == "401"
    assert '"items"' in box.run(f'curl -sS -m 20 -H "Authorization: Bearer $(cat /host/token)" {url}')
    assert "vgt_" not in box.run("journalctl -u volgate-control --no-pager; systemctl status volgate-control || true")
    box.run("rm -r /etc/systemd/system/volgate-control.service.d /etc/volgate/volgate.toml; systemctl daemon-reload")


def test_the_units_are_well_formed_and_hardened(box):
    units = "/usr/lib/systemd/system/volgate-control"
    assert box.try_(f"systemd-analyze verify {units}.service {units}.socket") == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=50", UNITS / "volgate-control.service"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in box.log()
