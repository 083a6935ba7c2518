"""An ordinary user mounts through fusermount3, with folders of his own and nothing of root's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from box import REPOSITORY
from mounting import find_mount, volgate

USER = "nobody"
PRELUDE = r"""
set -eu
# A private mount namespace in which the interpreter can be reached, wherever it lies, and /dev/fuse opened.
mount --make-rprivate /
if [ ! -x /root ] || ! setpriv --reuid nobody --clear-groups test -x /root; then
    mkdir /run/volgate-test-root
    mount --bind /root /run/volgate-test-root
    mount -t tmpfs -o mode=755 root /root
    for name in .pyenv; do
        [ -d /run/volgate-test-root/$name ] || continue
        mkdir /root/$name
        mount --bind /run/volgate-test-root/$name /root/$name
    done
    umount /run/volgate-test-root
    rmdir /run/volgate-test-root
fi
chmod a+x "$REPOSITORY"
mount -t tmpfs dev /mnt
cp -a /dev/fuse /mnt/fuse
chmod $DEVICE_MODE /mnt/fuse
mount --bind /mnt/fuse /dev/fuse
umount -l /mnt
exec setpriv --reuid nobody --regid nogroup --clear-groups env -i PATH="$PATH" HOME="$HOME_OF_USER" \
    XDG_RUNTIME_DIR="$HOME_OF_USER/run" LC_ALL=C.UTF-8 PYTHON="$PYTHON" PLACE="$HOME_OF_USER" bash -c "$SCRIPT"
"""


@pytest.fixture
def as_user(place):
    """Return what runs a bash script as an ordinary user in a directory of his; ``volgate`` is the command line."""
    home = place / "home"
    (home / "run").mkdir(parents=True)
    for path in (home, home / "run"):
        os.chown(path, 65534, 65534)

    def run(script, expect=0, device_mode="666"):
        preamble = 'set -eu; cd "$PLACE"; volgate() { timeout 60 "$PYTHON" -m volgate "$@"; }; '
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", PRELUDE],
            env={
                **os.environ, "HOME_OF_USER": str(home), "PYTHON": sys.executable, "SCRIPT": preamble + script,
                "REPOSITORY": str(REPOSITORY), "DEVICE_MODE": device_mode,
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == expect, done
        return done.stdout + done.stderr

    return run


def test_a_user_mounts_writes_meets_the_limit_and_unmounts(as_user, place):
    printed = as_user(
        """
        mkdir data mnt
        volgate mount ./data mnt -d --quota 1MiB
        echo hello >mnt/f
        head -c 2000000 /dev/zero >mnt/big 2>error || cat error
        volgate list --json >list.json
        stat -c '%U %a' mnt/f
        volgate quota set mnt 2MiB
        volgate umount mnt
        volgate quota show ./data
        find .local run -type f -o -type s
        """
    )
    assert "Disk quota exceeded" in printed
    mounts = json.loads((place / "home/list.json").read_text())
    (listed,) = [mount for mount in mounts if mount["mount_point"] == str(place / "home/mnt")]
    assert (listed["state"], listed["quota_bytes"]) == ("ready", 1 << 20)
    assert "1 MiB of 2 MiB" in printed
    assert (place / "home/data/f").read_text() == "hello\n"
    assert Path(place / "home/.local/state/volgate").is_dir()
    assert find_mount(place / "home/mnt") is None


def test_after_a_crash_the_user_mounts_again_and_usage_is_exact(as_user):
    printed = as_user(
        """
        mkdir data mnt
        volgate mount ./data mnt -d --quota 1MiB
        exec 5>mnt/open
        head -c 5000 /dev/zero >&5
        kill -9 $("$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["pid"])' < <(volgate status mnt --json))
        exec 5>&- || true
        volgate mount ./data mnt -d
        volgate status mnt
        volgate quota check mnt
        volgate umount mnt
        """
    )
    assert "equal" in printed and "counted: 5000 bytes, 1 inodes" in printed


def test_a_user_mounts_again_what_root_served_and_limited_since(as_user, place):
    as_user("mkdir data mnt; volgate mount ./data mnt -d --quota 5MB; volgate umount mnt")
    (place / "mnt").mkdir()
    assert volgate("mount", place / "home/data", place / "mnt", "-d", "--quota", "6MB").returncode == 0
    (place / "mnt/f").write_bytes(bytes(1000))
    os.chown(place / "mnt/f", 65534, 65534)
    assert volgate("umount", place / "mnt").returncode == 0
    printed = as_user(
        """
        volgate quota show ./data
        volgate mount ./data mnt -d
        volgate quota show mnt
        volgate quota check mnt
        volgate umount mnt
        """
    )
    assert "not counted yet of 5.7 MiB" in printed and "1000 B of 5.7 MiB" in printed and "equal" in printed


def test_a_user_owns_a_volume_without_a_mount_and_without_fuse(as_user):
    printed = as_user(
        """
        mkdir data
        volgate volume create plain ./data
        volgate quota set plain 1MiB
        volgate list
        volgate serve plain -d
        volgate quota show plain
        volgate umount plain
        volgate status plain || true
        """,
        device_mode="600",
    )
    assert "limit 1 MiB" in printed and "serving plain without a mount" in printed
    assert "0 B of 1 MiB" in printed and "volume plain is not mounted" in printed


NOT_ALLOWED = [
    ("volgate mount ./data mnt -o allow_other", "user_allow_other"),
    ("volgate mount ./data /usr -o nonempty", "write access"),
    ("chmod 0 data; volgate mount ./data mnt", "data may not be read"),
    ("chmod 500 data; volgate mount ./data mnt", "data may not be written"),
    ("chmod 0 mnt; volgate mount ./data mnt", "mnt cannot be used: Permission denied"),
    ("chmod 0 .; volgate mount ./data mnt", ".config/volgate"),
    ("mkdir bin; ln -s $(command -v timeout) bin; PATH=$PWD/bin; volgate mount ./data mnt", "package fuse3"),
    ("volgate mount ./data mnt -o worker=nobody", "only root"),
    ("mkdir -p .config/volgate; echo '[mount]' >.config/volgate/volgate.toml;"
     "echo 'worker = 5' >>.config/volgate/volgate.toml; volgate mount ./data mnt", "volgate.toml:2: section [mount]"),
    ("export XDG_STATE_HOME=/proc/nothing; volgate mount ./data mnt", "/proc/nothing"),
    ("export XDG_RUNTIME_DIR=/proc/nothing; volgate mount ./data mnt", "/proc/nothing"),
    ("export XDG_RUNTIME_DIR=/proc/nothing; volgate mount ./data mnt --read-only", "/proc/nothing"),
]  # fmt: skip


@pytest.mark.parametrize("detach", ["", " -d"], ids=["foreground", "detached"])
@pytest.mark.parametrize(("script", "says"), NOT_ALLOWED, ids=[says for _, says in NOT_ALLOWED])
def test_a_user_is_told_in_one_line_what_he_may_not_do(as_user, place, script, says, detach):
    printed = as_user(f"mkdir data mnt; {script}{detach} 2>&1", expect=32).strip()
    assert says in printed and len(printed.splitlines()) == 1
    assert find_mount(place / "home/mnt") is None


def test_a_user_who_may_not_open_the_device_is_told_so(as_user):
    printed = as_user("mkdir data mnt; volgate mount ./data mnt 2>&1", expect=32, device_mode="600").strip()
    assert "/dev/fuse" in printed and "Permission denied" in printed and len(printed.splitlines()) == 1
    printed = as_user("volgate doctor || true", device_mode="600")
    assert "/dev/fuse may not be opened" in printed and "chmod 666 /dev/fuse" in printed


def test_a_users_settings_lie_in_his_own_folder(as_user):
    printed = as_user(
        """
        mkdir -p own/volgate; printf '[mount]\nattr_timeout = "5s"\nstop_deadline = "7s"\n' >own/volgate/volgate.toml
        export XDG_CONFIG_HOME=$PWD/own
        VOLGATE_MOUNT__STOP_DEADLINE=9s volgate config show --origin
        """
    )
    assert "own/volgate/volgate.toml:2" in printed and "environment VOLGATE_MOUNT__STOP_DEADLINE" in printed


def test_an_ordinary_user_has_a_control_daemon_of_his_own(as_user):
    printed = as_user(
        """
        mkdir data
        timeout 60 "$PYTHON" -m volgate control serve 2>log & pid=$!
        until [ -S run/volgate/control.sock ]; do sleep 0.1; done
        ask() { curl -sS -m 30 --unix-socket run/volgate/control.sock -H 'Content-Type: application/json' "$@"; echo; }
        echo '{"volume_id": "mine", "source": "PLACE/data", "mount_point": "PLACE/mnt"}' | sed "s#PLACE#$PLACE#g" >body
        ask http://x/v1/volumes -d @body
        ask -X POST http://x/v1/volumes/mine/mount
        echo kept >mnt/f
        ask -X POST http://x/v1/volumes/mine/unmount
        kill $pid; wait $pid
        cat data/f
        """
    ).splitlines()
    states = [json.loads(line)["state"] for line in printed[:3]]
    assert (states, printed[3]) == (["not mounted", "ready", "not mounted"], "kept")
