"""A real CephFS for tests: a cluster of its own, and ceph-fuse mounts of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

import mounting

TOOL = Path(__file__).parents[1] / "tools" / "mini-ceph"
_LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = iter(range(12_000 + _LANE % 9 * 2_000 + os.getpid() % 10 * 100, 32_000, 100))


@attrs.frozen
class Process:
    """What can be made to hang. Attributes: pid."""

    pid: int

    def hang(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@attrs.frozen
class FuseMount(Process):
    """A mount by ceph-fuse. Attributes: path; pid of its daemon."""

    path: Path


@attrs.frozen
class CephCluster:
    """A cluster that runs. Attributes: configuration: what its clients read."""

    configuration: Path

    def ceph(self, *words: str) -> str:
        """Run a command of its administrator."""
        said = subprocess.run(
            ["ceph", "-c", str(self.configuration), *words], check=True, capture_output=True, text=True, timeout=60
        )
        return said.stdout

    def daemon(self, name: str) -> Process:
        """Return one of its processes: mon, osd, mds."""
        return Process(int((self.configuration.parent / "run" / f"{name}.pid").read_text().split()[0]))


@contextlib.contextmanager
def running(place: Path, *further: str) -> Iterator[CephCluster]:
    """Run a cluster below ``place``; it is wiped at the end. further: options of ``tools/mini-ceph``."""
    options = ["--dir", str(place / "ceph"), "--port-base", str(next(_PORTS))]
    subprocess.run([TOOL, "start", "--no-rgw", *options, *further], check=True, timeout=100)
    try:
        said = subprocess.run([TOOL, "env", *options], check=True, capture_output=True, text=True).stdout
        found = re.search(r"^export CEPH_CONF=(\S+)$", said, re.MULTILINE)
        assert found
        yield CephCluster(Path(found[1]))
    finally:
        subprocess.run([TOOL, "wipe", *options], check=True, timeout=60)


@contextlib.contextmanager
def mounted(
    cluster: CephCluster, path: Path, *, client: str = "client.fs", keyring: Path | None = None
) -> Iterator[FuseMount]:
    """Mount its CephFS; ends the client before it returns, also one that hangs."""
    path.mkdir(exist_ok=True)
    command = ["ceph-fuse", "-f", "-c", str(cluster.configuration), "-n", client, "--client_fs", "cephfs", str(path)]
    if keyring is not None:
        command[1:1] = ["-k", str(keyring)]
    with path.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while mounting.find_mount(path) is None:
            assert process.poll() is None and time.monotonic() < deadline, path.with_suffix(".log").read_text()
            time.sleep(0.02)
        yield FuseMount(process.pid, path)
    finally:
        process.send_signal(signal.SIGCONT)
        mounting.detach(path)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
