"""Where a benchmark runs: the server, and a network between it and the mounts. All of it is gone at the end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

import programs

DELAYLINE = Path(__file__).parents[2] / "delayline"
DELAY, RATE_MBIT_S, QUEUE_MB = "10ms", "1000", "4"


@attrs.frozen
class Network:
    """Attributes:
    address: of the server.
    server, mounts: what a command of each side has before it.
    line_pid: the delay line's process, None where there is none.
    """

    name: str
    address: str
    line_pid: int | None = None
    server: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


@contextlib.contextmanager
def loop() -> Iterator[Network]:
    """Server and mounts on the loopback."""
    yield Network("loop", "127.0.0.1")


@contextlib.contextmanager
def cloud() -> Iterator[Network]:
    """Server and mounts in a network namespace each, the delay line between them."""
    ends = [f"bench{os.getpid()}{end}" for end in "ab"]  # a namespace and the device in it have one name
    with contextlib.ExitStack() as stack:
        for end in ends:
            stack.enter_context(_namespace(end))
        line_pid = stack.enter_context(_delay_line(*ends))
        for number, end in enumerate(ends, 1):
            _ip("link", "set", end, "netns", end)
            _ip("-n", end, "address", "add", f"10.99.0.{number}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", end, "link", "set", device, "up")
        # not by 'ip netns exec': that makes a mount namespace too, and nobody else would see what is mounted
        server, mounts = (("nsenter", f"--net=/run/netns/{end}") for end in ends)
        yield Network("cloud", "10.99.0.1", line_pid, server, mounts)


NETWORKS = {"loop": loop, "cloud": cloud}


@contextlib.contextmanager
def _delay_line(near: str, far: str) -> Iterator[int]:
    """Run the delay line; gives its process. Its two devices go when it does."""
    program = Path(sys.prefix) / "go" / "delayline"
    subprocess.run([programs.go(), "build", "-o", program, "."], cwd=DELAYLINE, check=True)
    command = [program, "-delay", DELAY, "-rate", RATE_MBIT_S, "-queue", QUEUE_MB, near, far]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                raise SystemExit("bench: the delay line did not start")
            yield process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[str]:
    _ip("netns", "add", name)
    try:
        yield name
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
