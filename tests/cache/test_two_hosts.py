"""Two hosts, each with a network of its own, and one S3 server: one is paused, or cut off, for over a minute."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import s3_server
from networks import ip, two_networks


@pytest.fixture
def networks():
    with two_networks() as found:
        yield found


class Host:
    """A process of ``lease_host`` in a network namespace."""

    def __init__(self, server, network, bucket, name, place):
        self.output = place / f"{bucket}-{name}"
        program = Path(__file__).with_name("lease_host.py")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", network, sys.executable, "-u", program, bucket, name],
                env={**os.environ, **server.environment},
                stdout=output,
            )

    def answers(self):
        return [json.loads(line) for line in self.output.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, answer, within_s):
        """Return the first line that gives an answer."""
        deadline = time.monotonic() + within_s
        while True:
            for found in self.answers():
                if found["answer"] == answer:
                    return found
            assert self.process.poll() is None, "the process ended"
            assert time.monotonic() < deadline, f"no {answer} but {self.answers()}"
            time.sleep(0.05)

    def end(self):
        self.process.kill()
        self.process.wait(20)


@pytest.mark.timeout(240)
def test_a_host_that_was_paused_or_cut_off_for_a_minute_commits_nothing_more_and_says_who_may(networks, place):
    address, (a, b) = networks
    with s3_server.running(place / "s3", address=address) as server, contextlib.ExitStack() as undo:

        def start(network, bucket, name):
            host = Host(server, network, bucket, name, place)
            undo.callback(host.end)
            return host

        for bucket in ("paused", "cut-off"):
            server.make_bucket(bucket)
        paused, cut_off = (start(a, bucket, "ann") for bucket in ("paused", "cut-off"))
        for owner in (paused, cut_off):
            owner.wait_for("owner", 30)

        paused.process.send_signal(signal.SIGSTOP)
        ip("link", "set", a, "down")
        stopped_at = time.monotonic()
        heirs = [start(b, bucket, "bob") for bucket in ("paused", "cut-off")]
        taken = [heir.wait_for("owner", 100) for heir in heirs]
        time.sleep(max(0.0, stopped_at + 65 - time.monotonic()))
        paused.process.send_signal(signal.SIGCONT)
        ip("link", "set", a, "up")

        for owner, taken_by in zip((paused, cut_off), taken, strict=True):
            lost = owner.wait_for("Stale", 60)
            assert 'another host owns the volume: {"host": "bob"' in lost["why"]
            assert lost["owned_at"] < taken_by["at"], "both could have committed"
        assert [found["answer"] for found in cut_off.answers()] == ["owner", "Unavailable", "Stale"]
        assert paused.answers()[1]["answer"] in ("Unavailable", "Stale")
        assert [len(heir.answers()) for heir in heirs] == [1, 1], "the new owners stay so"
