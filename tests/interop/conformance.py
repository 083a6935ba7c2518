"""pjdfstest and fsx, run on any directory."""

import re
import subprocess
from pathlib import Path

import programs

_CONFIG = """
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"], ["lp", "lp"]]
"""
_RESULT = re.compile(r"^(\S+)\s+(ok|FAILED|skipped)$", re.MULTILINE)


def pjdfstest(directory: Path, scratch: Path) -> dict[str, str]:
    """Return the outcome of every case run in a directory."""
    config = scratch / "pjdfstest.toml"
    config.write_text(_CONFIG)
    done = subprocess.run(
        [programs.program("pjdfstest"), "-c", str(config), "-p", str(directory)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    outcomes = dict(_RESULT.findall(done.stdout))
    assert len(outcomes) > 350, done.stdout[-2000:] + done.stderr[-2000:]
    return outcomes


def fsx(path: Path, seed: int, operations: int, scratch: Path) -> None:
    """Exercise one file; raises AssertionError with fsx's words where it read what was not written."""
    done = subprocess.run(
        [programs.program("fsx"), "-q", "-N", str(operations), "-S", str(seed), "-P", str(scratch), str(path)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
