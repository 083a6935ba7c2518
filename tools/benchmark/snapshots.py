"""What snapshots cost: to take one, the first change after it, what changed, the way back, and its end.

One line of JSON for each figure to standard output, a table of medians with (min..max) to standard error.
A change on s3 is one with fsync(2): the object is copied for the snapshot, and replaced. On a share the fake Anvil
copies all files where a product would not, so its "create" says nothing.
Usage: tools/bench snapshots [--files N] [--rounds N] [--places ext4,btrfs,ceph,cephfs,s3,share]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from figures import spread

import ceph_cluster
import mounting
import s3_server
import shares
from volgate.drivers.hammerspace.anvil import MARK

_FILE_BYTES = 100
_LARGE_BYTES = 100 << 20
ROWS = {
    "create": "s", "create-again": "s", "first-change": "ms", "second-change": "ms", "change-100m": "ms", "diff": "s",
    "restore-one": "s", "delete": "s", "stored": "MiB",
}  # fmt: skip


def fill(path: Path, files: int) -> None:
    """Make files of 100 bytes, a thousand in a directory, and one of 100 MiB."""
    for number in range(files):
        folder = path / str(number // 1000)
        if number % 1000 == 0:
            folder.mkdir()
        (folder / str(number)).write_bytes(b"x" * _FILE_BYTES)
    (path / "large").write_bytes(os.urandom(1 << 20) * (_LARGE_BYTES >> 20))
    os.sync()


def verb(mount: mounting.Mount, name: str, *arguments: str) -> dict:
    """Run a verb of snapshots; returns its answer where it has one."""
    done = mounting.volgate("snapshot", name, mount.path, *arguments, timeout_s=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else {}


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds a call took."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def change(path: Path, *, durably: bool) -> None:
    """Write one byte."""
    with path.open("r+b", buffering=0) as file:
        file.write(b"y")
        if durably:
            os.fsync(file.fileno())


def stored_bytes(backing: Path) -> int:
    """Return what lies on the storage for snapshots."""
    found = subprocess.run(["du", "-sk", backing / ".volgate/snapshots"], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0]) << 10


def measure(mount: mounting.Mount, backing: Path | None) -> Iterator[tuple[str, float]]:
    """Yield the figures of one round."""
    durably = str(mount.backing).startswith("s3://")
    yield "create", verb(mount, "create", "one", "--json")["took_s"]
    yield "create-again", verb(mount, "create", "two", "--json")["took_s"]
    yield "first-change", 1e3 * timed(lambda: change(mount.path / "0/5", durably=durably))
    yield "second-change", 1e3 * timed(lambda: change(mount.path / "0/5", durably=durably))
    yield "change-100m", 1e3 * timed(lambda: change(mount.path / "large", durably=durably))
    mounting.volgate("refresh", mount.path)  # so that a bucket is listed as it is in the long run
    yield "diff", timed(lambda: verb(mount, "diff", "one", "--json"))
    yield "restore-one", timed(lambda: verb(mount, "restore", "one", "0/5", "--yes"))
    if backing is not None:
        yield "stored", stored_bytes(backing) / (1 << 20)
    yield "delete", timed(lambda: verb(mount, "delete", "two"))
    verb(mount, "delete", "one")


@contextlib.contextmanager
def places(wanted: list[str], place: Path) -> Iterator[dict[str, tuple[mounting.Mount, Path | None]]]:
    """Give a mount on each kind of storage, with where its data lie."""
    found: dict[str, tuple[mounting.Mount, Path | None]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(mounting.detach_below, place)
        if "ext4" in wanted:
            found["ext4"] = stack.enter_context(mounting.mounted(place, name="ext4")), place / "ext4.data"
        if "btrfs" in wanted:
            root = stack.enter_context(mounting.loop_image(place, "btrfs", 8 << 30))
            (root / "data").mkdir()
            mount = stack.enter_context(mounting.mounted(place, name="on-btrfs", source=str(root / "data")))
            found["btrfs"] = mount, root / "data"
        if {"ceph", "cephfs"} & set(wanted):
            cluster = stack.enter_context(ceph_cluster.running(place))
            fuse = stack.enter_context(ceph_cluster.mounted(cluster, place / "fuse"))
            for name in ("direct", "over"):
                (fuse.path / name).mkdir()
            options = ["-o", f"conf={cluster.configuration},client=fs"]
            if "ceph" in wanted:
                direct = mounting.mounted(place, *options, name="direct", source="ceph:///direct")
                found["ceph://"] = stack.enter_context(direct), None
            if "cephfs" in wanted:
                over = mounting.mounted(place, name="over", source=str(fuse.path / "over"))
                found["over ceph-fuse"] = stack.enter_context(over), None
        if "s3" in wanted:
            server = stack.enter_context(s3_server.running(place / "s3"))
            server.make_bucket("bench")
            mount = stack.enter_context(s3_server.mounted(server, "bench", place, name="bucket"))
            found["s3"] = mount, place / "s3/bench"
        if "share" in wanted:
            share = stack.enter_context(shares.running(place))
            share.anvil.add_share("projects", extendedInfo={MARK: "bench"})
            stack.enter_context(shares.bound(share))
            mount = mounting.mounted(place, "-o", share.options, name="share", source=share.source)
            found["share"] = stack.enter_context(mount), None
        yield found


def main(files: int, rounds: int, wanted: list[str]) -> None:
    """Measure and print."""
    place = Path(tempfile.mkdtemp(prefix="volgate-bench-", dir="/var/tmp"))
    results: dict[tuple[str, str], list[float]] = defaultdict(list)
    with places(wanted, place) as found:
        for mount, _ in found.values():
            fill(mount.path, files)
            mounting.volgate("flush", mount.path, timeout_s=3600)
        for _ in range(rounds):
            for name, (mount, backing) in found.items():
                for row, value in measure(mount, backing):
                    results[row, name].append(value)
                    print(json.dumps({"name": row, "place": name, "value": value, "unit": ROWS[row]}), flush=True)
    print("| row | unit |", " | ".join(found), "|", file=sys.stderr)
    for row, unit in ROWS.items():
        cells = [spread(values, 2) if values else "-" for values in (results[row, name] for name in found)]
        print("|", row, "|", unit, "|", " | ".join(cells), "|", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", default="ext4,btrfs,ceph,cephfs")
    given = parser.parse_args()
    main(given.files, given.rounds, given.places.split(","))
