"""pjdfstest and fsx, pinned: built once by cargo into .venv, run on any directory."""

import re
import subprocess
import sys
from pathlib import Path

PJDFSTEST, FSX = "0.2.2", "0.3.2"
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


def tool(name: str, version: str) -> str:
    """Return the path of a cargo-installed program; builds it at the first time (about a minute)."""
    root = Path(sys.prefix) / "cargo" / f"{name}-{version}"
    program = root / "bin" / name
    if not program.exists():
        subprocess.run(
            ["cargo", "install", "--quiet", "--locked", "--root", str(root), f"{name}@{version}"],
            check=True,
            timeout=900,
        )
    return str(program)


def pjdfstest(directory: Path, scratch: Path) -> dict[str, str]:
    """Return the outcome of every case run in a directory."""
    config = scratch / "pjdfstest.toml"
    config.write_text(_CONFIG)
    done = subprocess.run(
        [tool("pjdfstest", PJDFSTEST), "-c", str(config), "-p", str(directory)],
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
        [tool("fsx", FSX), "-q", "-N", str(operations), "-S", str(seed), "-P", str(scratch), str(path)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
