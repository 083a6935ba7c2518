"""The host's clock jumps, as it does when a machine wakes or NTP first answers: nothing the daemon waits for cares."""

import json
import os
import subprocess

import pytest

from mounting import mounted, used_of, volgate, walk_usage


@pytest.fixture
def clock(place):
    """Return a function that sets what the daemon takes for the date, and the daemon's environment for it."""
    file = place / "date"

    def set_to(offset):
        file.write_text(offset)

    set_to("+0")
    (library,) = subprocess.run(
        ["bash", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"], capture_output=True, text=True, check=True
    ).stdout.split()
    return set_to, {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip


def test_a_clock_that_jumps_ten_years_ahead_and_back_disturbs_nothing(place, clock):
    set_to, environment = clock
    with mounted(place, "--quota", "1MiB", "--attr-timeout", "1", environment=environment) as mount:
        for number, offset in enumerate(("+3650d", "-3650d", "+0")):
            with (mount.path / f"f{number}").open("wb", buffering=0) as file:
                file.write(b"before")
                set_to(offset)
                file.write(b" and after")
                os.fsync(file.fileno())
                status = json.loads(volgate("status", mount.path, "--json").stdout)
                assert status["state"] == "ready" and not status["problems"]
                assert 0 <= status["statistics"]["oldest_request_s"] < 60
            assert (mount.path / f"f{number}").read_bytes() == b"before and after"
            assert abs(os.stat(mount.path / f"f{number}").st_mtime - os.stat(place).st_mtime) < 600
        assert used_of(mount) == walk_usage(mount.backing)
