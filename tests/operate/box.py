"""A booted systemd to run commands in, with volgate installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

REPOSITORY = Path(__file__).parents[2]
BOOT_S = 60
AGENT = """\
[Unit]
DefaultDependencies=no
After=sysinit.target
Wants=sysinit.target
[Service]
# Runs what is laid into /host, one script after another, each with a time limit.
ExecStart=/bin/bash -c 'cd /; touch /host/up; n=0; while true; do n=$((n+1)); \
 until [ -e /host/$n.sh ]; do sleep 0.02; done; \
 timeout $(cat /host/$n.limit) bash /host/$n.sh >/host/$n.out 2>&1; echo $? >/host/$n.rc.new; \
 mv /host/$n.rc.new /host/$n.rc; done'
StandardOutput=null
"""


@attrs.define
class Box:
    """A machine in a box."""

    out: Path
    process: subprocess.Popen[bytes]
    count: int = 0

    def try_(self, script: str, limit_s: int = 60) -> tuple[int, str]:
        """Run a bash script inside; return its exit status and all it printed."""
        self.count += 1
        stem = self.out / str(self.count)
        stem.with_suffix(".limit").write_text(str(limit_s))
        stem.with_suffix(".sh.new").write_text(script)
        stem.with_suffix(".sh.new").rename(stem.with_suffix(".sh"))
        deadline = time.monotonic() + limit_s + 10
        while not stem.with_suffix(".rc").exists():
            assert time.monotonic() < deadline and self.process.poll() is None, f"the box does not answer: {script}"
            time.sleep(0.02)
        return int(stem.with_suffix(".rc").read_text()), stem.with_suffix(".out").read_text(errors="replace")

    def run(self, script: str, limit_s: int = 60) -> str:
        """Run a bash script that must succeed; return what it printed, stripped."""
        status, printed = self.try_(f"set -eu\n{script}", limit_s)
        assert status == 0, f"{script}\nended with {status} and printed:\n{printed}\n{self.log()}"
        return printed.strip()

    def wait_for(self, condition: str, limit_s: int = 30) -> None:
        """Wait until a script succeeds."""
        self.run(
            f"for i in $(seq {limit_s * 10}); do if {condition}; then exit 0; fi; sleep 0.1; done; exit 1", limit_s + 10
        )

    def log(self) -> str:
        """Return what the services said."""
        return self.try_("journalctl --no-pager -o cat -n 200")[1]


def _install_driver(lib: Path) -> None:
    """Add a driver of somebody else's, as pip does: found by its entry point."""
    shutil.copy(Path(__file__).with_name("moody_driver.py"), lib)
    metadata = lib / "moody-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[volgate.drivers]\nmoody = moody_driver:MoodyBackend\n")


@contextlib.contextmanager
def booted(place: Path) -> Iterator[Box]:
    """Install volgate into a box of its own and boot it."""
    tree, out = place / "tree", place / "out"
    out.mkdir()
    subprocess.run([REPOSITORY / "tools/install", "--destdir", tree], check=True, timeout=300)
    _install_driver(tree / "opt/volgate/lib")
    units = tree / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "agent.service").write_text(AGENT)
    with (out / "console").open("wb") as console:
        process = subprocess.Popen(
            [REPOSITORY / "tools/systemd-box", tree, out, "agent.service"],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + BOOT_S
        while not (out / "up").exists():
            booting = process.poll() is None and time.monotonic() < deadline
            assert booting, (out / "console").read_text(errors="replace")
            time.sleep(0.05)
        yield Box(out, process)
    finally:
        process.kill()
        process.wait()
