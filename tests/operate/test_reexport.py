"""A mount handed on by another server: Samba works, NFS is refused its file handles' lasting."""

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from mounting import mounted, wait_until
from volgate.drivers.posix import syscalls

_SAMBA = """
[global]
  interfaces = 127.0.0.1
  bind interfaces only = yes
  smb ports = {port}
  private dir = {own}
  lock directory = {own}
  state directory = {own}
  cache directory = {own}
  pid directory = {own}
  ncalrpc dir = {own}/rpc
  log file = {own}/log
  map to guest = Bad User
  guest account = root
  disable spoolss = yes
  load printers = no
[volume]
  path = {path}
  read only = no
  guest ok = yes
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def can_connect(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def samba(path, own):
    """Export a directory on the loopback; return a function that runs smbclient's commands there."""
    own.mkdir()
    port, configuration = free_port(), own / "smb.conf"
    configuration.write_text(_SAMBA.format(port=port, own=own, path=path))
    with (own / "out").open("w") as out:
        # It ends its whole process group, which must not be ours.
        server = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", "-s", str(configuration)],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_until(lambda: can_connect(port))

        def client(commands):
            return subprocess.run(
                ["smbclient", "-p", str(port), "-N", "//127.0.0.1/volume", "-c", commands],
                capture_output=True, text=True, timeout=60, cwd=own,
            )  # fmt: skip

        yield client
    finally:
        server.terminate()
        server.wait(20)


def test_samba_exports_a_mount_and_its_clients_meet_the_limit(place):
    with mounted(place, "--quota", "1MiB") as mount, samba(mount.path, place / "samba") as client:
        content = os.urandom(300_000)
        (place / "samba" / "content").write_bytes(content)
        (place / "samba" / "large").write_bytes(bytes(2 << 20))
        assert client("put content; mkdir d; rename content d/moved; get d/moved back").returncode == 0
        assert (mount.path / "d" / "moved").read_bytes() == (place / "samba" / "back").read_bytes() == content
        refused = client("put large")
        assert refused.returncode == 1 and "NT_STATUS_DISK_FULL" in refused.stdout + refused.stderr
        assert "1024 blocks of size 1024. 0 blocks available" in client("ls").stdout
        assert mount.statistic("used_bytes") <= 1 << 20
        assert client("del large; deltree d").returncode == 0
        wait_until(lambda: mount.statistic("used_bytes") == 0)


def test_a_file_handle_as_nfs_keeps_it_goes_stale_when_the_kernel_forgets_the_file(place):
    with mounted(place) as mount:
        (mount.path / "f").write_text("x")
        root = os.open(mount.path, os.O_RDONLY)
        try:
            file = os.open(mount.path / "f", os.O_RDONLY)
            handle = syscalls.file_handle(file)
            os.close(syscalls.open_handle(root, handle))
            os.close(file)
            Path("/proc/sys/vm/drop_caches").write_text("2")
            wait_until(lambda: mount.statistic("inodes") <= 1)
            with pytest.raises(OSError, match="Stale"):
                syscalls.open_handle(root, handle)
        finally:
            os.close(root)
